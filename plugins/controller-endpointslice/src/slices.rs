//! EndpointSlices as they are, and the writes that make them what they should be.

use std::collections::BTreeMap;

use sdk::controller::{Precondition, Propagation, relabel};
use sdk::slices::{OF_PODS, SLICE, labels_of, mark, of_service, ports};
use sdk::view::Selection;
use sdk::{Fields, ObjectKey, Outcome, Value, View, json};

use crate::fill::{Plan, Slice};
use crate::{Service, fingerprint};

#[derive(Fields)]
struct Read {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.resourceVersion")]
    version: String,
    #[at(".metadata.generation")]
    generation: i64,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".metadata.labels")]
    labels: BTreeMap<String, String>,
    #[at(".addressType")]
    family: String,
    #[at(".ports")]
    ports: Value,
    #[at(".endpoints")]
    endpoints: Value,
}

/// Those of this controller: others may keep slices for a Service, too.
pub(crate) fn ours(service: &Service) -> Selection {
    of_service(&service.namespace, &service.name, OF_PODS)
}

pub(crate) fn all(service: &Service, view: &View) -> sdk::Result<Vec<Slice>> {
    read(service, &ours(service), view)
}

/// Those that hold an endpoint of this pod: looked up in an index.
pub(crate) fn holding(service: &Service, pod: &str, view: &View) -> sdk::Result<Vec<Slice>> {
    read(service, &ours(service).equals(".endpoints[*].targetRef.uid", pod), view)
}

fn read(service: &Service, which: &Selection, view: &View) -> sdk::Result<Vec<Slice>> {
    let mut found: Vec<Read> = view.find(SLICE, which, "", 0)?;
    found.retain(|slice| !slice.deleting);
    let labels = labels(service);
    let slices = found.into_iter().map(|slice| Slice {
        ports: ports(&slice.ports),
        endpoints: slice.endpoints.as_array().cloned().unwrap_or_default(),
        stale_labels: relabel(&slice.labels, &labels).unwrap_or_default(),
        name: slice.name,
        uid: slice.uid,
        version: slice.version,
        generation: slice.generation,
        family: slice.family,
    });
    Ok(slices.collect())
}

/// The Service's own, but for those that say whose slices they are.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = labels_of(&service.labels, &service.cluster_ip);
    mark(&mut labels, &service.name, OF_PODS);
    labels
}

/// Names and generations: tells a slice that somebody else wrote, made or removed.
#[derive(Fields)]
struct Stand {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.generation")]
    generation: i64,
}

pub(crate) fn stands(service: &Service, view: &View) -> sdk::Result<BTreeMap<String, i64>> {
    let stands: Vec<Stand> = view.find(SLICE, &ours(service), "", 0)?;
    Ok(stands.into_iter().map(|stand| (stand.name, stand.generation)).collect())
}

pub(crate) fn fingerprint_of(stands: &BTreeMap<String, i64>) -> u64 {
    fingerprint(serde_json::to_string(stands).unwrap_or_default().as_bytes()).max(1)
}

/// The endpoints of one slice, if nobody has written it since.
pub(crate) fn update(service: &Service, slice: &Slice, endpoints: &[Value], outcome: &mut Outcome) {
    let mut body = json!({"endpoints": endpoints});
    if !slice.stale_labels.is_null() {
        body["metadata"] = json!({"labels": slice.stale_labels});
    }
    let key = ObjectKey::new(SLICE, &service.namespace, &slice.name);
    outcome.merge(key, &body, Precondition::Version(slice.version.clone()));
}

/// Carries a plan out, and says how the slices stand then; 0 if new ones come, whose names are not known yet.
///
/// New endpoints are written before old slices are removed, so that at no time an endpoint is in none.
pub(crate) fn write(service: &Service, existing: &[Slice], plan: Plan, outcome: &mut Outcome) -> u64 {
    let mut stands: BTreeMap<String, i64> = existing
        .iter()
        .map(|slice| (slice.name.clone(), slice.generation))
        .collect();
    for (family, ports, endpoints) in &plan.creates {
        let ports: Value = serde_json::from_str(ports).unwrap_or_default();
        outcome.create(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": format!("{}-", service.name),
                "namespace": service.namespace,
                "labels": labels(service),
                "ownerReferences": [service.owner().reference()],
            },
            "addressType": family,
            "ports": ports,
            "endpoints": endpoints,
        }));
    }
    for (at, endpoints) in &plan.updates {
        let slice = &existing[*at];
        update(service, slice, endpoints, outcome);
        let changed = *endpoints != slice.endpoints;
        *stands.entry(slice.name.clone()).or_default() += i64::from(changed && slice.generation > 0);
    }
    for at in &plan.removes {
        let slice = &existing[*at];
        let key = ObjectKey::new(SLICE, &service.namespace, &slice.name);
        outcome.remove(key, Precondition::Uid(slice.uid.clone()), Propagation::Background);
        stands.remove(&slice.name);
    }
    if plan.creates.is_empty() {
        fingerprint_of(&stands)
    } else {
        0
    }
}
