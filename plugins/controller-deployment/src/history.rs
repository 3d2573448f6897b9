//! Revisions: which number the new set has, and which old sets are kept to roll back to.

use std::collections::BTreeMap;

use sdk::controller::{PatchFormat, Precondition, Propagation};
use sdk::{Outcome, json};

use crate::sets::{self, Set, Sets};
use crate::{Deployment, HISTORY, REVISION};

/// Kept where the Deployment does not say.
const LIMIT: i64 = 10;

/// The new set has the highest number, also when it is an old one that was rolled back to; the Deployment carries the same.
/// On the way the set gets what else it takes over from its Deployment without being another set.
pub(crate) fn number(deployment: &Deployment, sets: &Sets, outcome: &mut Outcome) {
    let Some(new) = &sets.new else { return };
    let mut annotations: BTreeMap<String, String> = sets::inherited(deployment);
    let next = sets.next_revision();
    let mut revision = new.revision();
    if revision < next {
        if revision > 0 {
            let before = new
                .annotations
                .get(HISTORY)
                .map(|text| format!("{text},"))
                .unwrap_or_default();
            annotations.insert(HISTORY.into(), format!("{before}{revision}"));
        }
        annotations.insert(REVISION.into(), next.to_string());
        revision = next;
    }
    annotations.retain(|key, value| new.annotations.get(key) != Some(value));
    let mut body = json!({});
    if !annotations.is_empty() {
        body["metadata"] = json!({"annotations": annotations});
    }
    if new.min_ready_seconds != deployment.min_ready_seconds {
        body["spec"] = json!({"minReadySeconds": deployment.min_ready_seconds});
    }
    if body != json!({}) {
        outcome.patch(
            new.key(deployment),
            PatchFormat::Merge,
            &body,
            "",
            Precondition::Uid(new.uid.clone()),
        );
    }
    if deployment.annotations.get(REVISION) != Some(&revision.to_string()) {
        let body = json!({"metadata": {"annotations": {REVISION: revision.to_string()}}});
        outcome.patch(
            deployment.key(),
            PatchFormat::Merge,
            &body,
            "",
            Precondition::Uid(deployment.uid.clone()),
        );
    }
}

/// Old sets without pods beyond the limit go, oldest first. A set's status must say so of its present size.
pub(crate) fn clear(deployment: &Deployment, sets: &Sets, outcome: &mut Outcome) {
    if !crate::status::complete(deployment, sets) {
        return;
    }
    let empty = |set: &&Set| set.wanted() == 0 && set.existing == 0 && set.observed >= set.generation && !set.deleting;
    let mut empty: Vec<&Set> = sets.old.iter().filter(empty).collect();
    empty.sort_by_key(|set| set.revision());
    let surplus = empty.len() as i64 - deployment.history_limit.unwrap_or(LIMIT).max(0);
    for set in empty.into_iter().take(surplus.max(0) as usize) {
        outcome.remove(
            set.key(deployment),
            Precondition::Uid(set.uid.clone()),
            Propagation::Background,
        );
    }
}
