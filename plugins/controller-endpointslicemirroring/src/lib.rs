//! Shows hand-written Endpoints as EndpointSlices, which is all that proxies read.
//!
//! Only those of a Service without a selector: where there is one, both are made from its pods.

mod mirror;

use std::collections::BTreeMap;

use sdk::controller::{Precondition, Propagation, relabel};
use sdk::{Fields, ObjectKey, Outcome, Owner, Request, Value, View, json, slices};

const SERVICE: &str = "v1/Service";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are no addresses but a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

#[derive(Fields)]
struct Endpoints {
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".metadata.labels")]
    labels: BTreeMap<String, String>,
    #[at(".metadata.annotations")]
    annotations: BTreeMap<String, String>,
    #[at(".subsets")]
    subsets: Value,
}

#[derive(Fields)]
struct Service {
    #[at(".spec.selector")]
    selector: BTreeMap<String, String>,
}

#[derive(Fields)]
struct Slice {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.resourceVersion")]
    version: String,
    #[at(".metadata.labels")]
    labels: BTreeMap<String, String>,
    #[at(".addressType")]
    family: String,
    #[at(".ports")]
    ports: Value,
    #[at(".endpoints")]
    endpoints: Value,
}

#[sdk::controller(
    of = "v1/Endpoints",
    asks = ["get endpoints", "get services", "get create patch delete endpointslices.discovery.k8s.io"],
)]
fn reconcile(endpoints: Option<Endpoints>, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let (namespace, name) = (&request.key.namespace, &request.key.name);
    let ours = slices::of_service(namespace, name, slices::OF_ENDPOINTS);
    let found: Vec<Slice> = view.find(slices::SLICE, &ours, "", 0)?;
    let service: Option<Service> = view.get(SERVICE, namespace, name)?;
    let by_hand = service.is_some_and(|service| service.selector.is_empty());
    let shown = endpoints.filter(|endpoints| by_hand && !endpoints.deleting && !endpoints.hides());
    let mut wanted = shown
        .as_ref()
        .map(|endpoints| mirror::of(&endpoints.subsets))
        .unwrap_or_default();
    let labels = shown
        .as_ref()
        .map(|endpoints| endpoints.labels(name))
        .unwrap_or_default();
    for slice in found {
        let key = ObjectKey::new(slices::SLICE, namespace, &slice.name);
        let like = (slice.family, slices::ports(&slice.ports));
        let Some(endpoints) = wanted.remove(&like) else {
            outcome.remove(key, Precondition::Uid(slice.uid), Propagation::Background);
            continue;
        };
        let mut body = json!({});
        if slice.endpoints != endpoints {
            body["endpoints"] = endpoints;
        }
        if let Some(change) = relabel(&slice.labels, &labels) {
            body["metadata"]["labels"] = change;
        }
        if body != json!({}) {
            outcome.merge(key, &body, Precondition::Version(slice.version));
        }
    }
    let Some(shown) = shown else {
        return Ok(outcome);
    };
    let owner = Owner {
        kind: "v1/Endpoints",
        namespace,
        name,
        uid: &shown.uid,
        deleting: false,
    };
    for ((family, ports), endpoints) in wanted {
        let ports: Value = serde_json::from_str(&ports)?;
        let annotations = shown
            .annotations
            .iter()
            .filter(|(key, _)| !key.starts_with("kubectl.kubernetes.io/"));
        let annotations: BTreeMap<&String, &String> = annotations.collect();
        outcome.create(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": format!("{name}-"),
                "namespace": namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner.reference()],
            },
            "addressType": family,
            "ports": ports,
            "endpoints": endpoints,
        }));
    }
    Ok(outcome)
}

impl Endpoints {
    /// They ask not to be shown.
    fn hides(&self) -> bool {
        self.labels.get(SKIP).is_some_and(|value| value == "true") || self.annotations.contains_key(LEADER)
    }

    /// Their own, and those that say whose slices they are.
    fn labels(&self, service: &str) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        slices::mark(&mut labels, service, slices::OF_ENDPOINTS);
        labels
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
