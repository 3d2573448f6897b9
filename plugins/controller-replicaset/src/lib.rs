//! Keeps as many pods as a ReplicaSet asks for.
//!
//! Start at [`reconcile`]. What stands where: `claim` says which pods are ours, `count` how they are, `victims` which go
//! first, `status` what is told about them.
//!
//! The cost of one pod's change does not grow with the set: what is asked each time is counted by the host. Pods are read
//! one by one only to remove, adopt or release some.

mod claim;
mod count;
mod status;
mod victims;

use std::collections::BTreeMap;

use sdk::controller::{Precondition, Propagation};
use sdk::{Fields, ObjectKey, Outcome, Owner, Request, Value, View, json};
use serde::{Deserialize, Serialize};

use crate::count::Count;
use crate::status::Trouble;

const REPLICA_SET: &str = "apps/v1/ReplicaSet";
const POD: &str = "v1/Pod";

/// Pods created or removed in one run, as kube-controller-manager has it: the next run goes on, on a view that has them.
const BURST: usize = 500;

#[derive(Fields)]
struct ReplicaSet {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.generation")]
    generation: i64,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".metadata.ownerReferences[controller=true].uid")]
    controller: String,
    #[at(".spec.replicas")]
    replicas: Option<i64>,
    #[at(".spec.minReadySeconds")]
    min_ready_seconds: i64,
    #[at(".spec.selector")]
    selector: Value,
    #[at(".spec.template.metadata.labels")]
    labels: BTreeMap<String, String>,
    #[at(".status")]
    status: Value,
}

impl ReplicaSet {
    fn key(&self) -> ObjectKey {
        ObjectKey::new(REPLICA_SET, &self.namespace, &self.name)
    }

    fn pod(&self, name: &str) -> ObjectKey {
        ObjectKey::new(POD, &self.namespace, name)
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            kind: REPLICA_SET,
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
            deleting: self.deleting,
        }
    }
}

/// Read only when pods are created: it is the largest part of the object.
#[derive(Fields)]
struct Template {
    #[at(".spec.template.metadata")]
    metadata: Value,
    #[at(".spec.template.spec")]
    spec: Value,
}

/// Where in the last run's intents what was, so that a refusal tells what could not be done. Lost memos cost a condition's
/// text, no more.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memo {
    creates: (u32, u32),
    removes: (u32, u32),
}

#[sdk::controller(
    of = "apps/v1/ReplicaSet",
    asks = [
        "get replicasets.apps",
        "update patch replicasets.apps/status",
        "get create patch delete pods",
        "create patch events",
    ],
)]
fn reconcile(set: ReplicaSet, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let selector = sdk::selector::text(&set.selector)?;
    // Pods change hands first and are counted in the next run, which sees them: what is counted is always ours.
    if set.owner().claim::<claim::Pod>(POD, &selector, view, &mut outcome)? {
        return Ok(outcome);
    }
    let count = Count::take(&set, &selector, view)?;
    let trouble = Trouble::of(request);
    let status = status::status(&set, &count, trouble.as_ref(), request.now);
    if status != set.status {
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": set.name, "namespace": set.namespace},
            "status": status,
        });
        outcome.set_status(&object, Precondition::Uid(set.uid.clone()));
    }
    if let Some(trouble) = &trouble {
        outcome.event(&set.key(), &set.uid, true, trouble.reason, trouble.sentence());
    }
    let wanted = set.replicas.unwrap_or(1).max(0);
    let mut memo = None;
    if !set.deleting && count.active < wanted {
        let creates = create(&set, (wanted - count.active) as usize, view, &mut outcome)?;
        memo = Some(Memo {
            creates,
            ..Memo::default()
        });
    } else if !set.deleting && count.active > wanted {
        let removes = remove(
            &set,
            (count.active - wanted) as usize,
            &selector,
            view,
            request,
            &mut outcome,
        )?;
        memo = Some(Memo {
            removes,
            ..Memo::default()
        });
    }
    if let Some(memo) = memo {
        outcome.memo = serde_json::to_vec(&memo)?;
    }
    Ok(outcome)
}

/// The first refused create keeps those behind it from being tried, so a quota that is full is asked once a run.
fn create(set: &ReplicaSet, missing: usize, view: &View, outcome: &mut Outcome) -> sdk::Result<(u32, u32)> {
    let template: Option<Template> = view.get(REPLICA_SET, &set.namespace, &set.name)?;
    let Some(template) = template else {
        return Ok((0, 0));
    };
    let first = outcome.intents.len();
    let mut names = Names {
        prefix: format!("{}-", set.name),
        dice: view.random(),
    };
    for _ in 0..missing.min(BURST) {
        let name = names.next();
        let mut metadata = json!({
            "name": name,
            "generateName": names.prefix,
            "namespace": set.namespace,
            "ownerReferences": [set.owner().reference()],
        });
        for inherited in ["labels", "annotations", "finalizers"] {
            if !template.metadata[inherited].is_null() {
                metadata[inherited] = template.metadata[inherited].clone();
            }
        }
        outcome.create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.spec}));
        outcome.event(
            &set.key(),
            &set.uid,
            false,
            "SuccessfulCreate",
            format!("Created pod: {name}"),
        );
    }
    Ok((first as u32, (outcome.intents.len() - first) as u32))
}

fn remove(
    set: &ReplicaSet,
    surplus: usize,
    selector: &str,
    view: &View,
    request: &Request,
    outcome: &mut Outcome,
) -> sdk::Result<(u32, u32)> {
    let first = outcome.intents.len();
    for pod in victims::choose(set, selector, surplus.min(BURST), view, request.now)? {
        outcome.remove(set.pod(&pod.name), Precondition::Uid(pod.uid), Propagation::Background);
        outcome.event(
            &set.key(),
            &set.uid,
            false,
            "SuccessfulDelete",
            format!("Deleted pod: {}", pod.name),
        );
    }
    Ok((first as u32, (outcome.intents.len() - first) as u32))
}

/// Names as the API server generates them, so that events can say which pod was made. One that is taken is refused, and
/// the next run throws new dice.
struct Names {
    prefix: String,
    dice: u64,
}

impl Names {
    fn next(&mut self) -> String {
        /// Without vowels and look-alikes, so that no words come out.
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut name = self.prefix.clone();
        // SplitMix64: one number from the host is enough for all names of a run.
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.dice;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        for _ in 0..5 {
            name.push(LETTERS[(bits % LETTERS.len() as u64) as usize].into());
            bits /= LETTERS.len() as u64;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        sdk::test::cases(reconcile, "cases");
    }

    #[test]
    fn names_are_valid_and_differ() {
        let mut names = Names {
            prefix: "web-".into(),
            dice: 7,
        };
        let made: std::collections::BTreeSet<String> = (0..500).map(|_| names.next()).collect();
        assert_eq!(made.len(), 500);
        assert!(made.iter().all(|name| name.len() == 9 && name.starts_with("web-")));
    }
}
