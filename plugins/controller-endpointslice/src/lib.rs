//! Says which pods answer for a Service.
//!
//! Start at [`reconcile`]. `endpoint` makes a pod's endpoint and its ports, `slices` reads and writes EndpointSlices, `fill`
//! places endpoints in them (pure), `single` is the short way when few pods changed.
//!
//! There are two ways to the same end. The long one compares all pods with all slices. The short one takes the pods that
//! changed since the last run and writes the slices that hold them; it gives up, and the long one is taken, as soon as
//! anything else is to be done. So one pod of 5,000 costs one row and one slice.

mod endpoint;
mod fill;
mod single;
mod slices;

use std::collections::BTreeMap;

use sdk::{Fields, Outcome, Owner, Request, Value, View};
use serde::{Deserialize, Serialize};

const POD: &str = "v1/Pod";
const NODE: &str = "v1/Node";

#[derive(Fields)]
struct Service {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.name")]
    name: String,
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
    #[at(".spec.ipFamilies")]
    families: Vec<String>,
    #[at(".spec.selector")]
    selector: BTreeMap<String, String>,
    #[at(".spec.ports")]
    ports: Value,
    #[at(".spec.publishNotReadyAddresses")]
    publishes_not_ready: bool,
}

impl Service {
    fn owner(&self) -> Owner<'_> {
        Owner {
            kind: "v1/Service",
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
            deleting: self.deleting,
        }
    }

    fn ports(&self) -> &[Value] {
        self.ports.as_array().map_or(&[], Vec::as_slice)
    }

    /// `IPv4` where nothing is said, as for headless Services of old.
    fn families(&self) -> Vec<String> {
        if self.families.is_empty() {
            vec!["IPv4".into()]
        } else {
            self.families.clone()
        }
    }

    /// Changes with all that the slices depend on beside the pods.
    fn fingerprint(&self) -> u64 {
        let parts = (
            (&self.uid, &self.labels, &self.kind, &self.cluster_ip),
            (&self.families, &self.selector, &self.ports, self.publishes_not_ready),
        );
        fingerprint(serde_json::to_string(&parts).unwrap_or_default().as_bytes())
    }
}

/// FNV-1a.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A lost one costs one long way.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memo {
    cursor: u64,
    service: u64,
    /// Of the slices as they are once the last run's intents are carried out; 0 where that could not be told.
    slices: u64,
}

#[sdk::controller(
    of = "v1/Service",
    asks = [
        "get services",
        "get pods",
        "get nodes",
        "get create patch delete endpointslices.discovery.k8s.io",
        "create patch events",
    ],
)]
fn reconcile(service: Service, view: &View, request: &Request) -> sdk::Result<Outcome> {
    // Without a selector somebody else says who answers; the name of an external one is all there is to say.
    if service.deleting || service.selector.is_empty() || service.kind == "ExternalName" {
        return Ok(Outcome::new());
    }
    let memo: Memo = serde_json::from_slice(&request.memo).unwrap_or_default();
    let known = request.refused.is_none() && memo.cursor != 0 && memo.service == service.fingerprint();
    if known && let Some(outcome) = single::step(&service, &memo, view)? {
        return Ok(outcome);
    }
    whole(&service, view)
}

fn whole(service: &Service, view: &View) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let pods = endpoint::pods(service, 0, view)?;
    let existing = slices::all(service, view)?;
    let mut makes = endpoint::Maker::new(service, view)?;
    let mut wanted = fill::Wanted::default();
    for (identity, pod) in &pods.rows {
        for (family, ports, endpoint) in makes.endpoints(identity, pod)? {
            wanted
                .entry((family, ports))
                .or_default()
                .insert(identity.uid.clone(), endpoint);
        }
    }
    let plan = fill::plan(&service.families(), wanted, &existing);
    let memo = Memo {
        cursor: pods.cursor,
        service: service.fingerprint(),
        slices: slices::write(service, &existing, plan, &mut outcome),
    };
    outcome.memo = serde_json::to_vec(&memo)?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the memo: its cursor is another one in every process.
    fn forgetful(service: Service, view: &View, request: &Request) -> sdk::Result<Outcome> {
        reconcile(service, view, request).map(|outcome| Outcome {
            memo: Vec::new(),
            ..outcome
        })
    }

    #[test]
    fn cases() {
        sdk::test::cases(forgetful, "cases");
    }

    /// The second run says which way it took.
    fn telling(service: Service, view: &View, request: &Request) -> sdk::Result<Outcome> {
        let Ok(memo) = serde_json::from_slice::<Memo>(&request.memo) else {
            return reconcile(service, view, request);
        };
        let way = if single::step(&service, &memo, view)?.is_some() {
            "the short way"
        } else {
            "the long way"
        };
        reconcile(service, view, request).map(|outcome| Outcome {
            memo: way.into(),
            ..outcome
        })
    }

    #[test]
    fn second_runs() {
        sdk::test::cases(telling, "cases/then");
    }
}
