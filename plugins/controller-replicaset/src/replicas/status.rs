//! What is told about the set.

use sdk::{Instant, Request, Value, json};

use super::count::Count;
use super::{Memo, Of, Set};

/// The last run could not do what it meant to.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Trouble {
    /// A refusal of a create or remove. Others (a status that came too late) mend themselves.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let refused = request.refused.as_ref()?;
        let memo: Memo = serde_json::from_slice(&request.memo).unwrap_or_default();
        let within = |(first, count): (u32, u32)| (first..first + count).contains(&refused.intent);
        let reason = match (within(memo.creates), within(memo.removes)) {
            (true, _) => "FailedCreate",
            (_, true) => "FailedDelete",
            _ => return None,
        };
        Some(Self {
            reason,
            message: refused.why.message.clone(),
        })
    }

    pub(crate) fn sentence(&self) -> String {
        let doing = if self.reason == "FailedCreate" {
            "creating"
        } else {
            "deleting"
        };
        format!("Error {doing}: {}", self.message)
    }
}

/// The whole status. Other people's conditions stay; equal to the old one where nothing changed.
pub(crate) fn status(of: &Of, set: &Set, count: &Count, trouble: Option<&Trouble>, now: Instant) -> Value {
    let mut status = json!({
        "replicas": count.active,
        "observedGeneration": set.generation,
    });
    // As Kubernetes writes it: zero is left out.
    for (name, number) in [
        ("fullyLabeledReplicas", count.fully_labeled),
        ("readyReplicas", count.ready),
        ("availableReplicas", count.available),
        ("terminatingReplicas", count.terminating),
    ] {
        if number > 0 && (name != "terminatingReplicas" || of.tells_terminating) {
            status[name] = number.into();
        }
    }
    let mut conditions: Vec<Value> = set.status["conditions"].as_array().cloned().unwrap_or_default();
    let known = conditions
        .iter()
        .position(|condition| condition["type"] == "ReplicaFailure");
    match (trouble, known) {
        // One that stands is left as it is, whatever failed since: its time says since when.
        (None, None) | (Some(_), Some(_)) => {}
        (None, Some(at)) => drop(conditions.remove(at)),
        (Some(trouble), None) => conditions.push(json!({
            "type": "ReplicaFailure",
            "status": "True",
            "reason": trouble.reason,
            "message": trouble.message,
            "lastTransitionTime": now.to_string(),
        })),
    }
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    }
    status
}
