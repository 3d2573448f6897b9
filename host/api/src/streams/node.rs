//! `nodes/proxy`: the pages of a node's kubelet, which is asked through its streams, and other ports of its machine.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use client::node::{ContainerRef, NodeStreams};
use client::{ReadVersion, Target};
use http::Method;
use jiff::Timestamp;
use model::{Failure, Uid};
use serde::Deserialize;
use tokio::net::TcpStream;

use super::log;
use super::proxy::{Named, Reached, unreachable};
use crate::path::decoded;
use crate::respond;
use crate::verbs::Doing;

/// A stock kubelet's port. Ours listens on none: it is asked in this process.
const KUBELET: u16 = 10250;

/// Where a request to a node goes.
pub(super) enum Place {
    Kubelet(Arc<dyn NodeStreams>),
    Port(Reached),
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    daemon_endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoints {
    #[serde(default)]
    kubelet_endpoint: Endpoint,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(default)]
    port: u16,
}

/// Without a port, or with the kubelet's own, its kubelet.
pub(super) async fn find(doing: &Doing<'_>, named: &Named<'_>) -> Result<Place, Failure> {
    let target = Target::new(doing.at.gvr.clone(), "", named.name);
    let as_server = auth::users::api_server();
    let node: Node = doing
        .app
        .cluster
        .get(&as_server, &target, ReadVersion::Latest)
        .await?
        .parse()?;
    let kubelet = match node.status.daemon_endpoints.kubelet_endpoint.port {
        0 => KUBELET,
        port => port,
    };
    let port = match named.port {
        "" => kubelet,
        number => number.parse().map_err(|_| {
            let name = named.name;
            Failure::BadRequest(format!("{number:?} is not a port of node {name}: write {name}:NUMBER"))
        })?,
    };
    if port == kubelet {
        let streams = doing.app.nodes.streams(named.name);
        let unknown = || unreachable(format_args!("no connection to the kubelet of node {}", named.name));
        return streams.map(Place::Kubelet).ok_or_else(unknown);
    }
    let address = ["InternalIP", "ExternalIP"]
        .iter()
        .find_map(|kind| node.status.addresses.iter().find(|a| a.kind == *kind));
    let address = address.ok_or_else(|| unreachable(format_args!("node {} tells no address", named.name)))?;
    let ip: IpAddr = address.address.parse().map_err(unreachable)?;
    if !may_be_proxied_to(ip) {
        // The words of Kubernetes (ErrAddressNotAllowed).
        return Err(Failure::BadRequest("address not allowed".into()));
    }
    Ok(Place::Port(Reached {
        io: Box::new(TcpStream::connect((ip, port)).await.map_err(unreachable)?),
        host: std::net::SocketAddr::new(ip, port).to_string(),
    }))
}

/// Whoever may write a node's status must not reach through us what only this machine reaches.
fn may_be_proxied_to(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let special = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(special || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

/// One of the kubelet's pages, which are read only; `path` is encoded.
pub(super) async fn page(
    doing: &Doing<'_>,
    kubelet: Arc<dyn NodeStreams>,
    method: &Method,
    path: &str,
) -> Result<Response, Failure> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Failure::MethodNotAllowed {
            verb: method.as_str().into(),
            resource: doing.at.gvr.group_resource(),
        });
    }
    let path = decoded(path).ok_or_else(|| Failure::BadRequest(format!("{path} is not a path")))?;
    let parts: Vec<&str> = path.split('/').collect();
    if let ["", "containerLogs", namespace, pod, container] = parts[..] {
        let of = ContainerRef {
            namespace: namespace.into(),
            pod: pod.into(),
            uid: Uid::default(),
            container: container.into(),
        };
        return log::of_container(doing, &*kubelet, &of, &log::options(&doing.query, Timestamp::now())?).await;
    }
    let page = kubelet.page(&path).await?;
    Ok(respond::typed(Body::from(page.text), page.content_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_reach_too_are_proxied_to() {
        for (ip, expected) in [
            ("10.0.0.1", true),
            ("192.0.2.7", true),
            ("2001:db8::1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(may_be_proxied_to(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
