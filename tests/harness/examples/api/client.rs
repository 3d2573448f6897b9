//! A client of API servers that does nothing but send and read.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Result;

/// An API server and who we are to it.
pub struct Server {
    /// `127.0.0.1:6443`.
    authority: String,
    token: Option<String>,
    tls: Arc<ClientConfig>,
}

impl Server {
    /// From a URL, or from the path of a kubeconfig.
    pub fn parse(text: &str) -> Result<Self> {
        if Path::new(text).is_file() {
            return Self::of_kubeconfig(Path::new(text));
        }
        Self::new(text, std::env::var("BENCH_TOKEN").ok(), None)
    }

    /// From its current context. kubectl reads it for us, and finds what it refers to.
    pub fn of_kubeconfig(path: &Path) -> Result<Self> {
        let mut kubectl = Command::new("kubectl");
        kubectl.args([
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
            "-o",
            "json",
            "--kubeconfig",
        ]);
        let read = kubectl.arg(path).output()?;
        let config: Value = serde_json::from_slice(&read.stdout)?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let pem = |name: &str| user[name].as_str().map(|text| STANDARD.decode(text)).transpose();
        let identity = pem("client-certificate-data")?.zip(pem("client-key-data")?);
        let server = cluster["server"].as_str().ok_or("the kubeconfig names no server")?;
        Self::new(server, user["token"].as_str().map(str::to_owned), identity)
    }

    /// `identity`: certificate and key in PEM.
    fn new(url: &str, token: Option<String>, identity: Option<(Vec<u8>, Vec<u8>)>) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let mut tls = match identity {
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(&certificate).collect::<std::result::Result<_, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let authority = url.strip_prefix("https://").ok_or("the URL is not https://HOST:PORT")?;
        Ok(Self {
            authority: authority.trim_end_matches('/').to_owned(),
            token,
            tls: Arc::new(tls),
        })
    }

    pub async fn connect(&self) -> Result<Client> {
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(&*self.authority, |(host, _)| host);
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned())?;
        let tls = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await?;
        let mut http = http2::Builder::new(TokioExecutor::new());
        // Windows as client-go has them, so that lists do not wait for us.
        http.initial_stream_window_size(4 << 20)
            .initial_connection_window_size(1 << 30);
        let (sender, connection) = http.handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Client {
            sender,
            authority: self.authority.clone(),
            token: self.token.clone(),
        })
    }
}

/// One connection. Clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    token: Option<String>,
}

impl Client {
    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        gzip: bool,
        body: String,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "bench");
        if gzip {
            request = request.header(header::ACCEPT_ENCODING, "gzip");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request.body(Full::new(body.into()))?).await?)
    }

    /// Sends a request that must succeed, and reads its answer.
    pub async fn expect(&self, method: Method, path: &str, accept: &str, body: String) -> Result<Bytes> {
        let response = self.send(method.clone(), path, accept, false, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }

    /// Reads an answer to its end without keeping it, and says how long it was on the wire.
    pub async fn read(&self, path: &str, accept: &str, gzip: bool) -> Result<usize> {
        let mut answer = self.open(path, accept, gzip).await?;
        let mut length = 0;
        while let Some(frame) = answer.next().await? {
            length += frame.len();
        }
        Ok(length)
    }

    /// An answer that is still coming.
    pub async fn open(&self, path: &str, accept: &str, gzip: bool) -> Result<Answer> {
        let response = self.send(Method::GET, path, accept, gzip, String::new()).await?;
        if !response.status().is_success() {
            return Err(format!("GET {path}: {}", response.status()).into());
        }
        Ok(Answer(response.into_body()))
    }
}

pub struct Answer(Incoming);

impl Answer {
    /// `None` at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Takes every server for the one that was meant: what is measured here is not a secret, and a self-signed peer is fine.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
