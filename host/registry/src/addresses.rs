//! An IPAddress for every address that a Service has, so that people and other programs see what is taken and by whom.
//!
//! The Services are the truth (`allocate.rs`); these objects follow them. A crash between the two writes leaves one too many
//! or too few, which the next start puts right.

use client::{Action, Cluster, DeleteOptions, ListOptions, Target, Write, WriteOptions};
use model::{Failure, Gvr, Object};
use serde_json::{Value, json};

use crate::Registry;
use crate::allocate::{Good, goods};
use crate::bootstrap::system;
use crate::table::text_at;

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

fn gvr() -> Gvr {
    Gvr::new("networking.k8s.io", "v1", "ipaddresses")
}

fn addresses(service: Option<&Value>) -> Vec<std::net::IpAddr> {
    let all = service.map(goods).unwrap_or_default().into_iter();
    all.filter_map(|good| match good {
        Good::Address(address) => Some(address),
        Good::Port(..) => None,
    })
    .collect()
}

impl Registry {
    /// Makes and removes what a written Service calls for. That the Service is written does not depend on it.
    pub(crate) async fn follow_addresses(&self, service: &Object, old: Option<&Value>) {
        let now = addresses(Some(&service.value()));
        let before = addresses(old);
        for address in now.iter().filter(|a| !before.contains(a)) {
            let made = self.ensure(&system(), "", &document(service, *address)).await;
            log(service, made);
        }
        for address in before.iter().filter(|a| !now.contains(a)) {
            log(service, self.drop_address(&address.to_string()).await);
        }
    }

    /// The same for a Service that is gone.
    pub(crate) async fn drop_addresses(&self, service: &Object) {
        for address in addresses(Some(&service.value())) {
            log(service, self.drop_address(&address.to_string()).await);
        }
    }

    async fn drop_address(&self, name: &str) -> Result<(), Failure> {
        let write = Write {
            target: Target::new(gvr(), "", name),
            action: Action::Delete(DeleteOptions::default()),
            options: WriteOptions::default(),
        };
        match self.write(&system(), write).await {
            Ok(_) | Err(Failure::NotFound(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// At the start: an object for every address that a Service has, and none that no Service has.
    pub(crate) async fn repair_addresses(&self) -> Result<(), Failure> {
        let services = client::Collection::all(Gvr::new("", "v1", "services"));
        let services = self.list(&system(), &services, &ListOptions::default()).await?;
        let mut known = Vec::new();
        for service in &services.items {
            for address in addresses(Some(&service.value())) {
                known.push(address.to_string());
                self.ensure(&system(), "", &document(service, address)).await?;
            }
        }
        let all = client::Collection::all(gvr());
        for object in &self.list(&system(), &all, &ListOptions::default()).await?.items {
            let value = object.value();
            let ours = value["metadata"]["labels"][MANAGED_BY] == ALLOCATOR;
            let name = text_at(&value, "metadata.name").to_owned();
            if ours && !known.contains(&name) {
                self.drop_address(&name).await?;
            }
        }
        Ok(())
    }
}

fn document(service: &Object, address: std::net::IpAddr) -> Value {
    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": address.to_string(), "labels": {FAMILY: family, MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": {"resource": "services", "namespace": service.key.namespace, "name": service.key.name}},
    })
}

fn log(service: &Object, done: Result<(), Failure>) {
    if let Err(error) = done {
        tracing::warn!(service = %service.key, %error, "an IPAddress does not follow its Service; the next start puts it right");
    }
}
