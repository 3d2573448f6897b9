//! Connections to nodes and into pods: logs, exec, attach, port-forward, proxies. The node does the work; here it becomes
//! HTTP, WebSocket and SPDY.

mod exec;
mod forward;
mod log;
mod node;
mod proxy;
mod tunnel;
mod upgrade;

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
    Proxy,
}

/// Whether a subresource is a stream. What follows the subresource's name is for the proxied program.
pub(crate) fn of(gvr: &Gvr, subresource: &str) -> Option<Stream> {
    if !gvr.group.is_empty() {
        return None;
    }
    let door = subresource.split('/').next().unwrap_or_default();
    match (gvr.resource.as_str(), door) {
        ("pods", "log") => Some(Stream::Log),
        ("pods", "exec") => Some(Stream::Exec),
        ("pods", "attach") => Some(Stream::Attach),
        ("pods", "portforward") => Some(Stream::PortForward),
        ("pods" | "services" | "nodes", "proxy") => Some(Stream::Proxy),
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
        // What the method does is the proxied program's affair; the verb is that of the method.
        (Stream::Proxy, &Method::GET | &Method::HEAD | &Method::OPTIONS) => "get",
        (Stream::Proxy, &Method::POST) => "create",
        (Stream::Proxy, &Method::PUT) => "update",
        (Stream::Proxy, &Method::PATCH) => "patch",
        (Stream::Proxy, &Method::DELETE) => "delete",
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
        resource: &at.gvr.resource,
        subresource: at.subresource.split('/').next().unwrap_or_default(),
        namespace: &at.namespace,
        name: &at.name,
    };
    let user = doing.asked.caller.user();
    doing.app.rbac.check(&Ask { user, verb, what })?;
    let pod = Pod::get(doing, &at.name);
    match stream {
        Stream::Log => log::answer(doing, &pod.await?).await,
        Stream::Exec | Stream::Attach => exec::answer(doing, stream, &pod.await?, parts).await,
        Stream::PortForward => forward::answer(doing, &pod.await?, parts).await,
        Stream::Proxy => proxy::answer(doing, verb, parts, body).await,
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
    #[serde(default, rename = "podIP")]
    pod_ip: String,
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
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    name: String,
    container_port: u16,
}

impl Pod {
    /// A pod of the namespace that the URL names.
    async fn get(doing: &Doing<'_>, name: &str) -> Result<Self, Failure> {
        let target = Target::new(Gvr::new("", "v1", "pods"), &doing.at.namespace, name);
        let as_server = users::api_server();
        let object = doing.app.cluster.get(&as_server, &target, ReadVersion::Latest).await?;
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

    /// As [`Pod::node`], for what needs a node.
    fn running_on(&self, doing: &Doing<'_>) -> Result<Arc<dyn NodeStreams>, Failure> {
        let unplaced = || Failure::BadRequest(format!("pod {} does not have a host assigned", self.name()));
        self.node(doing)?.ok_or_else(unplaced)
    }
}
