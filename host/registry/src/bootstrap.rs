//! What every cluster has from its first second: four namespaces, the system's priority classes, the ranges of Services, and
//! the Service that leads to the API.

use std::net::IpAddr;

use client::{Action, Cluster, PatchKind, Preconditions, Target, Write, WriteOptions};
use model::{Caller, Failure, Gvr};
use serde_json::{Value, json};

use crate::Registry;
use crate::registry::SYSTEM_USER;
use crate::resources::priorityclass::SYSTEM;

/// Namespaces that are made at the first start, in the order of need.
pub const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// The registry's own user: a member of `system:masters`, so every authorizer lets it.
pub(crate) fn system() -> Caller {
    Caller::component(SYSTEM_USER, &["system:masters"])
}

pub(crate) async fn create(registry: &Registry) -> Result<(), Failure> {
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        registry.ensure(&system(), "", &namespace).await?;
    }
    for (name, value, description) in SYSTEM {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
        });
        registry.ensure(&system(), "", &class).await?;
    }
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "sessionAffinity": "None",
            "clusterIP": registry.api_service_ip(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": registry.inner.options.network.api_port}]},
    });
    registry.ensure(&system(), "default", &service).await?;
    ranges(registry).await?;
    let network = &registry.inner.options.network;
    match network.api_address {
        Some(address) => way_in(registry, address, network.api_port).await,
        None => Ok(()),
    }
}

/// The ranges of Services as an object.
async fn ranges(registry: &Registry) -> Result<(), Failure> {
    let all: Vec<String> = registry
        .inner
        .allocator
        .ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    let gvr = Gvr::new("networking.k8s.io", "v1", "servicecidrs");
    let range = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": all},
    });
    registry.ensure(&system(), "", &range).await?;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": model::time::seconds(registry.now())}]}});
    let target = Target::new(gvr, "", "kubernetes");
    let found = registry
        .get(&system(), &target, client::ReadVersion::Latest)
        .await?
        .value();
    if found["status"]["conditions"].as_array().is_none_or(Vec::is_empty) {
        patch(registry, target.subresource("status"), PatchKind::Merge, &ready).await?;
    }
    Ok(())
}

/// Where the `kubernetes` Service leads, in both forms. It has no selector, so nobody else keeps them; the address may be
/// another one after each start.
async fn way_in(registry: &Registry, address: IpAddr, port: u16) -> Result<(), Failure> {
    let meta = |labels: Value| json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": meta(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": meta(json!({"kubernetes.io/service-name": "kubernetes"})),
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": ports,
    });
    for (group, plural, document) in [
        ("", "endpoints", endpoints),
        ("discovery.k8s.io", "endpointslices", slice),
    ] {
        let target = Target::new(Gvr::new(group, "v1", plural), "default", "kubernetes");
        patch(registry, target, PatchKind::Apply { force: true }, &document).await?;
    }
    Ok(())
}

async fn patch(registry: &Registry, target: Target, kind: PatchKind, document: &Value) -> Result<(), Failure> {
    let write = Write {
        target,
        action: Action::Patch {
            kind,
            body: document.to_string().into(),
            preconditions: Preconditions::default(),
        },
        options: WriteOptions {
            field_manager: "pilotis-apiserver".into(),
            ..WriteOptions::default()
        },
    };
    registry.write(&system(), write).await.map(drop)
}

impl Registry {
    /// Creates an object if there is none of its name, and leaves the one that is there alone. For what `auth` and
    /// `server` put into every cluster (default roles, built-in Plugins): an ordinary write like any other.
    ///
    /// # Errors
    /// Those of [`Cluster::write`], `AlreadyExists` excepted; `NoSuchResource` for a kind that is not served.
    pub async fn ensure(&self, caller: &Caller, namespace: &str, object: &Value) -> Result<(), Failure> {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let gvk = model::Gvk::from_api_version(text("apiVersion"), text("kind"));
        let resources = self.resources();
        let found = resources.iter().find(|r| r.kind.gvk == gvk);
        let resource = found.ok_or_else(|| Failure::NoSuchResource { asked: gvk.to_string() })?;
        let target = Target::new(resource.kind.gvr(), namespace, crate::meta::text(object, "name"));
        let at = client::ReadVersion::Latest;
        match self.get(caller, &target, at).await {
            Ok(_) => return Ok(()),
            Err(Failure::NotFound(_)) => {}
            Err(failure) => return Err(failure),
        }
        let write = Write {
            target,
            action: Action::Create(object.to_string().into()),
            options: WriteOptions::default(),
        };
        match self.write(caller, write).await {
            Ok(_) | Err(Failure::AlreadyExists(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// The first address of the first service range: where pods reach the API.
    pub fn api_service_ip(&self) -> String {
        self.inner
            .allocator
            .ranges
            .first()
            .map(|r| r.first().to_string())
            .unwrap_or_else(|| "None".into())
    }

    /// Reads which addresses and ports the stored Services have, so that none is given away twice.
    pub(crate) async fn repair_allocations(&self) -> Result<(), Failure> {
        let Some(services) = self.resource(&Gvr::new("", "v1", "services")) else {
            return Ok(());
        };
        let (objects, _) = self.cache(&services).await?.snapshot();
        for entry in objects.values() {
            for (good, other) in self.inner.allocator.note(&entry.object) {
                tracing::warn!(service = %entry.object.key, ?good, %other, "two Services have the same address or port; the second one is to be made anew");
            }
        }
        Ok(())
    }
}
