//! Says which addresses a Service has, in the old form that some programs still read.
//!
//! Endpoints are made of the Service's EndpointSlices, not of its pods once more: which pod answers is decided in one place,
//! and a Service of thousands of pods is read as its few slices.

mod subsets;

use std::collections::BTreeMap;

use sdk::controller::{Precondition, Propagation};
use sdk::{Fields, ObjectKey, Outcome, Request, Value, View, json, within};

use crate::subsets::Slice;

const ENDPOINTS: &str = "v1/Endpoints";
const SLICE: &str = "discovery.k8s.io/v1/EndpointSlice";
const HEADLESS: &str = "service.kubernetes.io/headless";
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
    let ours = within(namespace).labels(format!(
        "kubernetes.io/service-name={name},endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io"
    ));
    let slices: Vec<Slice> = view.find(SLICE, &ours, "", 0)?;
    // An old form with one family: the Service's first.
    let family = if service.family.is_empty() {
        "IPv4"
    } else {
        &service.family
    };
    let (subsets, cut) = subsets::of(&slices, family, service.publishes_not_ready);
    let mut labels = service.labels.clone();
    labels.remove(HEADLESS);
    if service.cluster_ip == "None" {
        labels.insert(HEADLESS.into(), String::new());
    }
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
    if is.labels != labels {
        body["metadata"]["labels"] = change(&is.labels, &labels);
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

/// A merge patch from these labels to those.
fn change(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Value {
    let gone = from
        .keys()
        .filter(|key| !to.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let new = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let new = new.map(|(key, value)| (key.clone(), value.as_str().into()));
    gone.chain(new).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
