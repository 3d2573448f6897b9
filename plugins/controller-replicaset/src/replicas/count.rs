//! How the set's pods are, counted by the host.

use sdk::{Fields, Instant, View, within};

use super::{POD, Set};

/// Of pods that are neither finished nor terminating, but for `terminating`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) active: i64,
    pub(crate) ready: i64,
    /// Ready for at least `minReadySeconds`.
    pub(crate) available: i64,
    /// Carrying every label of the template.
    pub(crate) fully_labeled: i64,
    pub(crate) terminating: i64,
}

const BY: &str = ".status.phase .metadata.deletionTimestamp? .status.conditions[type=Ready].status";
const READY_SINCE: &str = ".status.conditions[type=Ready].lastTransitionTime";

impl Count {
    pub(crate) fn take(set: &Set, selector: &str, view: &View) -> sdk::Result<Self> {
        let ours = within(&set.namespace).controlled_by(&set.uid).labels(selector);
        let mut count = Count::default();
        for row in view.tally(POD, &ours, BY, "")?.rows()? {
            let finished = matches!(row.value(0).str(), "Succeeded" | "Failed");
            match (finished, row.value(1) == sdk::columns::Cell::Bool(true)) {
                (false, false) => {
                    count.active += row.count();
                    count.ready += if row.value(2).str() == "True" { row.count() } else { 0 };
                }
                (false, true) => count.terminating += row.count(),
                (true, _) => {}
            }
        }
        count.fully_labeled = fully_labeled(set, selector, view)?;
        count.available = count.ready
            - if set.min_ready_seconds > 0 {
                too_fresh(set, selector, view)?
            } else {
                0
            };
        Ok(count)
    }
}

fn fully_labeled(set: &Set, selector: &str, view: &View) -> sdk::Result<i64> {
    let mut labels = sdk::selector::of_labels(&set.labels);
    if !selector.is_empty() && !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(selector);
    let whole = within(&set.namespace).controlled_by(&set.uid).labels(labels);
    let tally = view.tally(POD, &whole, ".status.phase .metadata.deletionTimestamp?", "")?;
    let active = tally.rows()?.filter(|row| {
        !matches!(row.value(0).str(), "Succeeded" | "Failed") && row.value(1) != sdk::columns::Cell::Bool(true)
    });
    Ok(active.map(|row| row.count()).sum())
}

/// Pods that are ready, but not for long enough. Read from the most recently ready one on, and no further than to the first
/// that is available; the one that is due next is a reason to run again, then.
fn too_fresh(set: &Set, selector: &str, view: &View) -> sdk::Result<i64> {
    #[derive(Fields)]
    struct Ready {
        #[at(".status.conditions[type=Ready].lastTransitionTime")]
        since: Option<Instant>,
    }
    let ready = within(&set.namespace)
        .controlled_by(&set.uid)
        .equals(".status.conditions[type=Ready].status", "True")
        .equals(".metadata.deletionTimestamp?", "false")
        .labels(selector);
    let mut limit = 16;
    loop {
        let pods: Vec<Ready> = view.find(POD, &ready, &format!("-{READY_SINCE}"), limit)?;
        let due = |pod: &Ready| pod.since.map(|since| since.plus_seconds(set.min_ready_seconds));
        // A pod without the time of its condition is not available, as in Kubernetes, and no time makes it so.
        let available = pods
            .iter()
            .position(|pod| due(pod).is_some_and(|due| view.reached(due)));
        match available {
            Some(fresh) => return Ok(fresh as i64),
            None if (pods.len() as u32) < limit => return Ok(pods.len() as i64),
            None => limit *= 4,
        }
    }
}
