//! Says which addresses a Service has, in the old form that some programs still read.
//!
//! Endpoints are made of the Service's EndpointSlices, not of its pods once more: which pod answers is decided in one place,
//! and a Service of thousands of pods is read as its few slices.

mod subsets;

use std::collections::BTreeMap;

use sdk::controller::{Precondition, Propagation, relabel};
use sdk::{Fields, ObjectKey, Outcome, Request, Value, View, json, slices};

use crate::subsets::Slice;

const ENDPOINTS: &str = "v1/Endpoints";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Says that there are more than [`subsets::MOST`].
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

#[derive(Fields)]
struct Service {
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".metadata.labels")]
    labels: BTreeMap<String, String>,
    #[at(".spec.type")]
    kind: String,
    #[at(".spec.clusterIP")]
    cluster_ip: String,
    #[at(".spec.ipFamilies[0]")]
    family: String,
    #[at(".spec.selector")]
    selector: BTreeMap<String, String>,
    #[at(".spec.publishNotReadyAddresses")]
    publishes_not_ready: bool,
}

#[derive(Fields)]
struct Endpoints {
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.resourceVersion")]
    version: String,
    #[at(".metadata.labels")]
    labels: BTreeMap<String, String>,
    #[at(".metadata.annotations")]
    annotations: BTreeMap<String, String>,
    #[at(".subsets")]
    subsets: Value,
}

#[sdk::controller(
    of = "v1/Service",
    asks = ["get services", "get endpointslices.discovery.k8s.io", "get create patch delete endpoints"],
)]
fn reconcile(service: Option<Service>, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let (namespace, name) = (&request.key.namespace, &request.key.name);
    let key = ObjectKey::new(ENDPOINTS, namespace, name);
    let Some(service) = service else {
        // Also those that somebody wrote by hand: they were the Service's.
        if let Some(endpoints) = view.get::<Endpoints>(ENDPOINTS, namespace, name)? {
            outcome.remove(key, Precondition::Uid(endpoints.uid), Propagation::Background);
        }
        return Ok(outcome);
    };
    // Without a selector somebody else says who answers.
    if service.deleting || service.selector.is_empty() || service.kind == "ExternalName" {
        return Ok(outcome);
    }
    let of_pods = slices::of_service(namespace, name, slices::OF_PODS);
    let slices: Vec<Slice> = view.find(slices::SLICE, &of_pods, "", 0)?;
    // An old form with one family: the Service's first.
    let family = if service.family.is_empty() {
        "IPv4"
    } else {
        &service.family
    };
    let (subsets, cut) = subsets::of(&slices, family, service.publishes_not_ready);
    let mut labels = slices::labels_of(&service.labels, &service.cluster_ip);
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let Some(is) = view.get::<Endpoints>(ENDPOINTS, namespace, name)? else {
        let mut metadata = json!({
            "name": name,
            "namespace": namespace,
            "labels": labels,
            // For the collector, should we be stopped between the Service's end and theirs.
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": service.uid}],
        });
        if cut {
            metadata["annotations"] = json!({OVER_CAPACITY: "truncated"});
        }
        outcome.create(&json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}));
        return Ok(outcome);
    };
    let mut body = json!({});
    let is_none = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if is.subsets != subsets && !(is_none(&is.subsets) && is_none(&subsets)) {
        body["subsets"] = subsets;
    }
    if let Some(change) = relabel(&is.labels, &labels) {
        body["metadata"]["labels"] = change;
    }
    if is.annotations.contains_key(OVER_CAPACITY) != cut {
        let mark = if cut { json!("truncated") } else { Value::Null };
        body["metadata"]["annotations"] = json!({OVER_CAPACITY: mark});
    }
    if body != json!({}) {
        outcome.merge(key, &body, Precondition::Version(is.version));
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
