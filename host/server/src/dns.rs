//! The `kube-dns` Service: what leads pods to the name server in this process.

use std::net::SocketAddr;

use anyhow::Result;
use auth::users;
use client::Cluster;
use registry::Registry;
use serde_json::json;

use crate::network::ProxyMode;

/// Creates the Service once, and says at every start where its one endpoint is now.
pub async fn publish(registry: &Registry, mode: ProxyMode, listening: &[SocketAddr]) -> Result<()> {
    let caller = users::api_server();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "labels": { "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS" } },
        "spec": {
            "clusterIP": mode.dns_address().to_string(),
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
            ],
        },
    });
    registry.ensure(&caller, "kube-system", &service).await?;
    let Some(address) = listening.first() else {
        return Ok(());
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": { "kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "pilotis" },
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [
            { "name": "dns", "port": address.port(), "protocol": "UDP" },
            { "name": "dns-tcp", "port": address.port(), "protocol": "TCP" },
        ],
    });
    let target = client::Target::new(
        model::Gvr::new("discovery.k8s.io", "v1", "endpointslices"),
        "kube-system",
        "kube-dns",
    );
    let action = client::Action::Patch {
        kind: client::PatchKind::Apply { force: true },
        body: slice.to_string().into(),
        preconditions: client::Preconditions::default(),
    };
    let options = client::WriteOptions {
        field_manager: "pilotis-dns".into(),
        ..client::WriteOptions::default()
    };
    registry
        .write(
            &caller,
            client::Write {
                target,
                action,
                options,
            },
        )
        .await?;
    Ok(())
}
