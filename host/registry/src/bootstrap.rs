//! What every cluster has from its first second: four namespaces and the Service that leads to the API.

use std::net::IpAddr;

use client::{Action, Cluster, PatchKind, Preconditions, Target, Write, WriteOptions};
use model::{Caller, Failure, Gvr};
use serde_json::{Value, json};

use crate::Registry;
use crate::registry::SYSTEM_USER;

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
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "sessionAffinity": "None",
            "clusterIP": registry.api_service_ip(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": registry.inner.options.network.api_port}]},
    });
    registry.ensure(&system(), "default", &service).await?;
    match registry.inner.options.network.api_address {
        Some(address) => lead(registry, address).await,
        None => Ok(()),
    }
}

/// Makes the Service lead here. Applied at every start, as the address and the port may be others than the last time.
async fn lead(registry: &Registry, address: IpAddr) -> Result<(), Failure> {
    let port = registry.inner.options.network.api_port;
    let metadata = |label: &str, value: &str| json!({"name": "kubernetes", "labels": {label: value}});
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata("component", "apiserver"),
        "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]},
    });
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        // The slice stands beside it: nobody has to make one of it.
        "metadata": metadata("endpointslice.kubernetes.io/skip-mirror", "true"),
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata("kubernetes.io/service-name", "kubernetes"),
        "addressType": if address.is_ipv6() { "IPv6" } else { "IPv4" },
        "ports": ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    let core = |resource| Gvr::new("", "v1", resource);
    for (gvr, object) in [
        (core("services"), service),
        (core("endpoints"), endpoints),
        (Gvr::new("discovery.k8s.io", "v1", "endpointslices"), slice),
    ] {
        let apply = Action::Patch {
            kind: PatchKind::Apply { force: true },
            body: object.to_string().into(),
            preconditions: Preconditions::default(),
        };
        let write = Write {
            target: Target::new(gvr, "default", "kubernetes"),
            action: apply,
            options: WriteOptions {
                field_manager: "kube-apiserver".into(),
                ..WriteOptions::default()
            },
        };
        registry.write(&system(), write).await?;
    }
    Ok(())
}

impl Registry {
    /// Creates an object if there is none of its name, and leaves the one that is there alone. For what `auth` and
    /// `server` put into every cluster (default roles, priority classes, built-in Plugins): an ordinary write like any other.
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
