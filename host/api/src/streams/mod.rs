//! Connections into pods: logs, exec, attach. The node does the work; here it becomes HTTP and WebSocket.

mod exec;
mod log;

use std::sync::Arc;

use auth::{Ask, What, users};
use axum::body::Body;
use axum::response::Response;
use client::node::{ContainerRef, NodeStreams};
use client::{ReadVersion, Target};
use http::{Method, request};
use model::{Failure, Gvr, Object};
use serde::Deserialize;

use crate::verbs::Doing;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Log,
    Exec,
    Attach,
    PortForward,
}

/// Whether a subresource is a stream.
pub(crate) fn of(gvr: &Gvr, subresource: &str) -> Option<Stream> {
    if !(gvr.group.is_empty() && gvr.resource == "pods") {
        return None;
    }
    match subresource {
        "log" => Some(Stream::Log),
        "exec" => Some(Stream::Exec),
        "attach" => Some(Stream::Attach),
        "portforward" => Some(Stream::PortForward),
        _ => None,
    }
}

/// # Errors
/// `Forbidden`, `NotFound`, `BadRequest` for a pod or container that cannot be streamed from.
pub(crate) async fn answer(
    doing: &Doing<'_>,
    stream: Stream,
    parts: request::Parts,
    body: Body,
) -> Result<Response, Failure> {
    // A command in a container is a change whatever the method (KEP-5592: WebSockets begin with GET).
    let verb = match (stream, &parts.method) {
        (Stream::Log, &Method::GET) => "get",
        (Stream::Exec | Stream::Attach | Stream::PortForward, &Method::GET | &Method::POST) => "create",
        (_, method) => {
            let resource = doing.at.gvr.group_resource();
            return Err(Failure::MethodNotAllowed {
                verb: method.as_str().into(),
                resource,
            });
        }
    };
    let at = doing.at;
    let what = What::Resource {
        group: "",
        resource: "pods",
        subresource: &at.subresource,
        namespace: &at.namespace,
        name: &at.name,
    };
    let user = doing.asked.caller.user();
    doing.app.rbac.check(&Ask { user, verb, what })?;
    let target = Target::new(at.gvr.clone(), &at.namespace, &at.name);
    let object = doing
        .app
        .cluster
        .get(&users::api_server(), &target, ReadVersion::Latest)
        .await?;
    let pod = Pod::read(object)?;
    match stream {
        Stream::Log => log::answer(doing, &pod).await,
        Stream::Exec | Stream::Attach => exec::answer(doing, stream, &pod, parts, body).await,
        Stream::PortForward => Err(Failure::BadRequest(
            "port-forward is not served by this release: kubectl carries it in SPDY frames; reach the pod through a Service instead"
                .into(),
        )),
    }
}

/// What a pod's document says that streams need.
struct Pod {
    object: Arc<Object>,
    document: Document,
}

#[derive(Deserialize)]
struct Document {
    metadata: Meta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    phase: String,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
    containers: Vec<Named>,
    #[serde(default)]
    init_containers: Vec<Named>,
    #[serde(default)]
    ephemeral_containers: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Pod {
    fn read(object: Arc<Object>) -> Result<Self, Failure> {
        let document = object.parse()?;
        Ok(Self { object, document })
    }

    fn name(&self) -> &str {
        &self.object.key.name
    }

    /// The container asked for, or the only one, or the one that the pod's annotation names.
    fn container(&self, asked: &str) -> Result<String, Failure> {
        let spec = &self.document.spec;
        let all = || {
            spec.containers
                .iter()
                .chain(&spec.init_containers)
                .chain(&spec.ephemeral_containers)
        };
        if !asked.is_empty() {
            return match all().any(|c| c.name == asked) {
                true => Ok(asked.to_owned()),
                false => Err(Failure::BadRequest(format!(
                    "container {asked} is not valid for pod {}",
                    self.name()
                ))),
            };
        }
        if let [only] = &spec.containers[..] {
            return Ok(only.name.clone());
        }
        let default = self
            .document
            .metadata
            .annotations
            .get("kubectl.kubernetes.io/default-container");
        if let Some(default) = default.filter(|name| all().any(|c| c.name == **name)) {
            return Ok(default.clone());
        }
        let names = |list: &[Named]| list.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ");
        let mut text = format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            self.name(),
            names(&spec.containers)
        );
        if !spec.init_containers.is_empty() {
            text += &format!(" or one of the init containers: [{}]", names(&spec.init_containers));
        }
        Err(Failure::BadRequest(text))
    }

    fn reference(&self, container: String) -> ContainerRef {
        ContainerRef {
            namespace: self.object.key.namespace.to_string(),
            pod: self.name().to_owned(),
            uid: self.object.uid.clone(),
            container,
        }
    }

    /// The streams of the pod's node; `None` while it has none.
    fn node(&self, doing: &Doing<'_>) -> Result<Option<Arc<dyn NodeStreams>>, Failure> {
        let node = &self.document.spec.node_name;
        if node.is_empty() {
            return Ok(None);
        }
        let streams = doing.app.nodes.streams(node);
        streams.map(Some).ok_or_else(|| Failure::Unavailable {
            what: "the pod's node",
            source: format!("no connection to the kubelet of node {node}").into(),
        })
    }
}
