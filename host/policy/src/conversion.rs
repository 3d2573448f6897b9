//! Webhooks that turn custom objects of one version into another (`apiextensions.k8s.io/v1` ConversionReview), over HTTPS.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{Cluster, ReadVersion, Target};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use model::{Failure, Gvr, Kind, ResourceVersion};
use parking_lot::Mutex;
use registry::gates::Convert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::caller;

/// How long a webhook may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What an answer may hold.
const LARGEST: usize = 16 << 20;

/// Converts by the webhooks that definitions name. Built before the registry, which asks it; connected after.
#[derive(Default)]
pub struct Webhooks {
    cluster: OnceLock<Weak<dyn Cluster>>,
    /// By the definition's name: where to ask, as of a version of it.
    known: Mutex<HashMap<String, (ResourceVersion, Arc<Webhook>)>>,
}

/// Where and how to ask.
struct Webhook {
    place: Place,
    path: String,
    /// Which review versions it understands, best first.
    reviews: Vec<String>,
    tls: TlsConnector,
}

enum Place {
    Url { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

impl Webhooks {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Where definitions and Services are read.
    pub fn connect(&self, cluster: &Arc<dyn Cluster>) {
        // A second cluster in one process has webhooks of its own.
        let _ = self.cluster.set(Arc::downgrade(cluster));
    }

    async fn webhook(&self, cluster: &dyn Cluster, kind: &Kind) -> Result<Arc<Webhook>, String> {
        let name = format!("{}.{}", kind.plural, kind.gvk.group);
        let definitions = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let target = Target::new(definitions, "", &name);
        let definition = cluster.get(&caller(), &target, ReadVersion::Any).await;
        let definition = definition.map_err(|failure| failure.to_string())?;
        if let Some((version, webhook)) = self.known.lock().get(&name)
            && *version == definition.version
        {
            return Ok(webhook.clone());
        }
        let webhook = Arc::new(Webhook::read(&definition.value()["spec"]["conversion"]["webhook"])?);
        self.known.lock().insert(name, (definition.version, webhook.clone()));
        Ok(webhook)
    }
}

#[async_trait]
impl Convert for Webhooks {
    async fn convert(&self, kind: &Kind, object: Value, to: &str) -> Result<Value, Failure> {
        let from = object["apiVersion"].as_str().unwrap_or_default().to_owned();
        let failed = |why: String| {
            Failure::Internal(format!(
                "conversion webhook for {from}, Kind={} failed: {why}",
                kind.gvk.kind
            ))
        };
        let Some(cluster) = self.cluster.get().and_then(Weak::upgrade) else {
            return Err(failed("the cluster is not up".into()));
        };
        let webhook = self.webhook(&*cluster, kind).await.map_err(failed)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = webhook
            .reviews
            .iter()
            .find(|version| matches!(version.as_str(), "v1" | "v1beta1"))
            .ok_or_else(|| failed("it understands no ConversionReview that is sent here (v1, v1beta1)".into()))?;
        let asked = json!({
            "apiVersion": format!("apiextensions.k8s.io/{review}"),
            "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": [object]},
        });
        let asking = webhook.ask(&*cluster, asked.to_string().into());
        let answer = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer.map_err(failed)?,
            Err(_) => return Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        accept(&asked, &answer, to).map_err(failed)
    }
}

/// The object in an answer, if the answer is one to the question.
fn accept(asked: &Value, answer: &[u8], to: &str) -> Result<Value, String> {
    let answer: Value = serde_json::from_slice(answer).map_err(|error| format!("its answer is no JSON: {error}"))?;
    if answer["kind"] != "ConversionReview" || answer["apiVersion"] != asked["apiVersion"] {
        return Err(format!(
            "expected a ConversionReview of {}, got {} {}",
            asked["apiVersion"], answer["apiVersion"], answer["kind"]
        ));
    }
    let response = &answer["response"];
    if !response.is_object() {
        return Err("no response provided".into());
    }
    let uid = &asked["request"]["uid"];
    if response["uid"] != *uid {
        return Err(format!("expected response.uid={uid}, got {}", response["uid"]));
    }
    if response["result"]["status"] != "Success" {
        let message = response["result"]["message"].as_str().unwrap_or_default();
        return Err(match message {
            "" => format!("unknown failure: result.status is {}", response["result"]["status"]),
            message => message.to_owned(),
        });
    }
    let objects = response["convertedObjects"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let [converted] = objects else {
        return Err(format!("webhook returned {} objects, expected 1", objects.len()));
    };
    let sent = &asked["request"]["objects"][0];
    if converted["apiVersion"] != to {
        return Err(format!(
            "returned invalid converted object at index 0: invalid groupVersion (expected {to}, received {})",
            converted["apiVersion"].as_str().unwrap_or_default()
        ));
    }
    if converted["kind"] != sent["kind"] {
        return Err(format!(
            "returned invalid converted object at index 0: invalid kind (expected {}, received {})",
            sent["kind"], converted["kind"]
        ));
    }
    for key in ["name", "namespace", "uid"] {
        let (had, got) = (&sent["metadata"][key], &converted["metadata"][key]);
        if had != got {
            return Err(format!(
                "returned invalid metadata in object at index 0: metadata.{key}: must not change ({had} to {got})"
            ));
        }
    }
    Ok(converted.clone())
}

impl Webhook {
    fn read(webhook: &Value) -> Result<Self, String> {
        let config = &webhook["clientConfig"];
        let reviews = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        let (place, path) = match config["url"].as_str() {
            Some(url) => {
                let rest = url
                    .strip_prefix("https://")
                    .ok_or_else(|| format!("{url:?} is no https:// URL"))?;
                let (authority, path) = match rest.find('/') {
                    Some(at) => rest.split_at(at),
                    None => (rest, "/"),
                };
                let (host, port) = split_port(authority);
                (Place::Url { host, port }, path.to_owned())
            }
            None => {
                let service = &config["service"];
                let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
                let place = Place::Service {
                    namespace: text("namespace"),
                    name: text("name"),
                    port: service["port"]
                        .as_u64()
                        .and_then(|port| port.try_into().ok())
                        .unwrap_or(443),
                };
                let path = text("path");
                (place, if path.is_empty() { "/".into() } else { path })
            }
        };
        Ok(Self {
            place,
            path,
            reviews: reviews.filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            tls: TlsConnector::from(Arc::new(trust(config["caBundle"].as_str())?)),
        })
    }

    /// Name for TLS and the `Host` header, and the address to connect to.
    async fn address(&self, cluster: &dyn Cluster) -> Result<(String, String, u16), String> {
        match &self.place {
            Place::Url { host, port } => Ok((host.clone(), host.clone(), *port)),
            Place::Service { namespace, name, port } => {
                let target = Target::new(Gvr::new("", "v1", "services"), namespace, name);
                let service = cluster.get(&caller(), &target, ReadVersion::Any).await;
                let service = service.map_err(|failure| failure.to_string())?.value();
                let ip = service["spec"]["clusterIP"]
                    .as_str()
                    .filter(|ip| ip.parse::<IpAddr>().is_ok());
                let ip = ip.ok_or_else(|| format!("service {namespace}/{name} has no cluster IP"))?;
                Ok((format!("{name}.{namespace}.svc"), ip.to_owned(), *port))
            }
        }
    }

    async fn ask(&self, cluster: &dyn Cluster, body: Bytes) -> Result<Bytes, String> {
        let (name, address, port) = self.address(cluster).await?;
        let url = format!("https://{name}:{port}{}", self.path);
        let wrong = |error: &dyn std::fmt::Display| format!("Post {url:?}: {error}");
        let stream = TcpStream::connect((address.as_str(), port))
            .await
            .map_err(|e| wrong(&e))?;
        let server = ServerName::try_from(name.clone()).map_err(|e| wrong(&e))?;
        let stream = self.tls.connect(server, stream).await.map_err(|e| wrong(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| wrong(&e))?;
        // Ends with the sender, at the latest.
        let connection = tokio::spawn(connection);
        let request = http::Request::post(&self.path)
            .header("host", format!("{name}:{port}"))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(body))
            .map_err(|e| wrong(&e))?;
        let response = sender.send_request(request).await.map_err(|e| wrong(&e))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), LARGEST).collect().await;
        connection.abort();
        let answer = answer.map_err(|e| wrong(&e))?.to_bytes();
        if !status.is_success() {
            return Err(wrong(&format!("the server answered {status}")));
        }
        Ok(answer)
    }
}

fn split_port(authority: &str) -> (String, u16) {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (bare(host), port),
            Err(_) => (bare(authority), 443),
        },
        _ => (bare(authority), 443),
    }
}

/// Trusts the bundle of the definition, and nobody else.
fn trust(bundle: Option<&str>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(bundle) = bundle.filter(|bundle| !bundle.is_empty()) {
        let pem = STANDARD
            .decode(bundle)
            .map_err(|error| format!("its caBundle is no base64: {error}"))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| format!("its caBundle cannot be read: {error}"))?;
            roots
                .add(certificate)
                .map_err(|error| format!("its caBundle holds a bad certificate: {error}"))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
