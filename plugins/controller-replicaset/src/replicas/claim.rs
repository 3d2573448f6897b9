//! Whose pod is it? Adopts orphans that the selector matches, releases pods that it no longer does.

use std::collections::BTreeSet;

use sdk::controller::{PatchFormat, Precondition};
use sdk::{Fields, Outcome, View, json, within};

use super::{Of, POD, Set};

#[derive(Fields)]
struct Pod {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".status.phase")]
    phase: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
}

impl Pod {
    /// Finished and terminating pods stay with whoever has them.
    fn is_active(&self) -> bool {
        !self.deleting && self.phase != "Succeeded" && self.phase != "Failed"
    }
}

/// True if pods change hands.
pub(crate) fn claim(of: &Of, set: &Set, selector: &str, view: &View, outcome: &mut Outcome) -> sdk::Result<bool> {
    let orphans = within(&set.namespace)
        .equals(".metadata.ownerReferences[controller=true].uid?", "false")
        .labels(selector);
    let mut orphans: Vec<Pod> = view.find(POD, &orphans, "", 0)?;
    orphans.retain(Pod::is_active);
    // Looked up in the store: a set that is being deleted, or is another one of that name by now, takes in no pods.
    if !orphans.is_empty() && !set.deleting && still_there(of, set, view)? {
        for pod in &orphans {
            let body = json!({"metadata": {"uid": pod.uid, "ownerReferences": [set.owner_reference(of)]}});
            let key = set.pod(&pod.name);
            outcome.patch(
                key,
                PatchFormat::Strategic,
                &body,
                "",
                Precondition::Uid(pod.uid.clone()),
            );
        }
    }
    let ours = within(&set.namespace).controlled_by(&set.uid);
    let matching = ours.clone().labels(selector);
    if total(view, &ours)? != total(view, &matching)? {
        let matching: Vec<Pod> = view.find(POD, &matching, "", 0)?;
        let matching: BTreeSet<&str> = matching.iter().map(|pod| pod.uid.as_str()).collect();
        for pod in view.find::<Pod>(POD, &ours, "", 0)? {
            if pod.is_active() && !matching.contains(pod.uid.as_str()) {
                let release = json!({"$patch": "delete", "uid": set.uid});
                let body = json!({"metadata": {"uid": pod.uid, "ownerReferences": [release]}});
                let key = set.pod(&pod.name);
                outcome.patch(key, PatchFormat::Strategic, &body, "", Precondition::Uid(pod.uid));
            }
        }
    }
    Ok(!outcome.is_empty())
}

fn total(view: &View, which: &sdk::view::Selection) -> sdk::Result<i64> {
    view.tally(POD, which, "", "")?.total()
}

fn still_there(of: &Of, set: &Set, view: &View) -> sdk::Result<bool> {
    #[derive(Fields)]
    struct Live {
        #[at(".metadata.uid")]
        uid: String,
        #[at(".metadata.deletionTimestamp?")]
        deleting: bool,
    }
    let live: Option<Live> = view.get_live(of.kind, &set.namespace, &set.name)?;
    Ok(live.is_some_and(|live| live.uid == set.uid && !live.deleting))
}
