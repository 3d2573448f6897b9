//! A cluster of one process on port 0, with its own CA, in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ApiConfig;
use api::escalation::NoEscalation;
use api::gates::{RbacGate, TokenGate};
use api::tls::{self, ServingCertificate};
use auth::kubeconfig::Kubeconfig;
use auth::pki::{Authority, Purpose, generate_signing_key};
use auth::token::{ServiceAccounts, Tokens};
use auth::{Authenticators, Rbac, defaults, users};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use registry::{AdmitAll, NoAudit, Options, Registry};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(crate) struct TestCluster {
    pub(crate) port: u16,
    pub(crate) directory: tempfile::TempDir,
    authority: Authority,
    stop: CancellationToken,
    serving: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    following: tokio::task::JoinHandle<()>,
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

impl TestCluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let store = Arc::new(store::memory::open(store::History::default()).unwrap());
        let rbac = Arc::new(Rbac::default());
        let tokens = Arc::new(Tokens::new("https://kubernetes.default.svc", &generate_signing_key().unwrap()).unwrap());
        let mut options = Options::new(
            Arc::new(RbacGate(rbac.clone())),
            Arc::new(NoEscalation {
                rbac: rbac.clone(),
                rest: Arc::new(AdmitAll),
            }),
            Arc::new(NoAudit),
        );
        options.sign_token = Some(Arc::new(TokenGate(tokens.clone())));
        let registry = Registry::open(store, options).await.unwrap();
        let cluster: Arc<dyn client::Cluster> = Arc::new(registry.clone());
        defaults::ensure(&*cluster, &users::api_server()).await.unwrap();
        let following = tokio::spawn(rbac.clone().keep_current(cluster.clone()));
        rbac.wait_until_synced().await;

        let authority = Authority::generate("test-ca").unwrap();
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let serving = authority
            .issue(
                &Purpose::Serving {
                    name: "kube-apiserver",
                    hosts,
                },
                HOUR,
            )
            .unwrap();
        let tls = tls::config(ServingCertificate::new(&serving).unwrap(), authority.certificate_pem()).unwrap();
        let accounts = ServiceAccounts {
            tokens: tokens.clone(),
            cluster: cluster.clone(),
        };
        let authenticators = Authenticators::default().service_accounts(accounts);
        let mut config = ApiConfig::new(cluster, Arc::new(authenticators), rbac.clone(), tls);
        config.tables = Arc::new(registry.clone());
        config.connections = Arc::new(registry.clone());
        config.tokens = Some(tokens);
        change(&mut config);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(api::serve(listener, config, stop.clone()));
        let directory = tempfile::tempdir().unwrap();
        let cluster = Self {
            port,
            directory,
            authority,
            stop,
            serving: Some(serving),
            following,
        };
        cluster.kubeconfig("admin", users::MASTERS);
        cluster
    }

    /// Writes a kubeconfig for a user with a client certificate, and says where.
    pub(crate) fn kubeconfig(&self, user: &str, group: &str) -> PathBuf {
        let identity = self.authority.issue(&Purpose::Client { user, group }, HOUR).unwrap();
        let server = format!("https://127.0.0.1:{}", self.port);
        let ca_pem = self.authority.certificate_pem();
        let text = Kubeconfig {
            name: "test",
            server: &server,
            ca_pem,
            user,
            identity: &identity,
        }
        .yaml();
        let path = self.config_of(user);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A kubeconfig that names nobody, for tokens on the command line.
    pub(crate) fn without_user(&self) -> PathBuf {
        let path = self.directory.path().join("nobody.kubeconfig");
        let text = std::fs::read_to_string(self.config_of("admin")).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.contains("client-certificate-data") && !line.contains("client-key-data"));
        let text: Vec<&str> = lines
            .map(|line| if line == "  user:" { "  user: {}" } else { line })
            .collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        path
    }

    pub(crate) fn config_of(&self, user: &str) -> PathBuf {
        self.directory.path().join(format!("{user}.kubeconfig"))
    }

    /// Stops the server and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        let serving = self.serving.take().expect("stopped once");
        tokio::time::timeout(Duration::from_secs(20), serving)
            .await
            .expect("the server stops")
            .unwrap()
            .unwrap();
    }

    /// One request on a connection of its own; `user` empty: without a certificate.
    pub(crate) async fn send(&self, user: &str, request: http::Request<String>) -> http::Response<String> {
        let response = self.open(user, request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        http::Response::from_parts(parts, String::from_utf8_lossy(&body).into_owned())
    }

    /// A connection on which nothing is said yet; `user` empty: without a certificate.
    pub(crate) async fn connect(&self, user: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority.certificate_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = if user.is_empty() {
            builder.with_no_client_auth()
        } else {
            let group = if user == "admin" { users::MASTERS } else { "" };
            let identity = self.authority.issue(&Purpose::Client { user, group }, HOUR).unwrap();
            let chain = vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        };
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap()
    }

    /// The same, with the body still to come.
    pub(crate) async fn open(
        &self,
        user: &str,
        request: http::Request<impl Into<bytes::Bytes>>,
    ) -> http::Response<hyper::body::Incoming> {
        let tls = self.connect(user).await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(http::header::HOST, "localhost".parse().unwrap());
        sender
            .send_request(http::Request::from_parts(parts, Full::new(body.into())))
            .await
            .unwrap()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.stop.cancel();
        self.following.abort();
    }
}

/// Every kubectl on this machine, by its version. A version that is not here is not tested, and said so.
pub(crate) fn kubectls() -> Vec<(String, PathBuf)> {
    let Some(home) = std::fs::canonicalize("/usr/bin/kubectl")
        .ok()
        .and_then(|p| p.parent().map(Path::to_owned))
    else {
        return Vec::new();
    };
    (27..=40)
        .map(|minor| (format!("1.{minor}"), home.join(format!("kubectl.1.{minor}"))))
        .filter(|(_, path)| path.exists())
        .collect()
}

pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs kubectl to its end with something on its input.
pub(crate) async fn kubectl(program: &Path, config: &Path, input: &str, arguments: &[&str]) -> Ran {
    use tokio::io::AsyncWriteExt;
    let mut child = kubectl_running(program, config, arguments);
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let ran = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let ran = ran
        .unwrap_or_else(|_| panic!("kubectl {arguments:?} did not end"))
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        ok: ran.status.success(),
        out: text(ran.stdout),
        err: text(ran.stderr),
    }
}

/// Starts kubectl, which is killed when the child is dropped.
pub(crate) fn kubectl_running(program: &Path, config: &Path, arguments: &[&str]) -> tokio::process::Child {
    let home = config.parent().unwrap();
    tokio::process::Command::new(program)
        .arg("--kubeconfig")
        .arg(config)
        // Discovery is kept on disk: each cluster its own, or a test would see the kinds of another.
        .args(["--cache-dir", home.join("cache").to_str().unwrap()])
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
