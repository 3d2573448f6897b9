//! What is told about a Deployment.

use sdk::{Instant, Reason, Request, Value, View, json};

use crate::Deployment;
use crate::scale::Bounds;
use crate::sets::{Set, Sets};

/// What the last run's refusal says, beside what the sets say.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Why there is no new set, if one was tried.
    pub(crate) refused: Option<String>,
    /// The new set's name is taken by something else.
    pub(crate) collided: bool,
}

impl Facts {
    pub(crate) fn of(sets: &Sets, request: &Request) -> Self {
        let Some(refused) = request.refused.as_ref().filter(|_| sets.new.is_none()) else {
            return Self::default();
        };
        Self {
            refused: Some(refused.why.message.clone()),
            collided: matches!(refused.why.reason, Reason::AlreadyExists),
        }
    }
}

/// Every pod is of the new template and available, and no old one is left.
pub(crate) fn complete(deployment: &Deployment, sets: &Sets) -> bool {
    let wanted = deployment.wanted();
    let updated = sets.new.as_ref().map_or(0, |set| set.existing);
    updated == wanted
        && sets.sum(|set| set.existing) == wanted
        && sets.sum(|set| set.available) == wanted
        && sets.new.as_ref().is_some_and(|set| set.observed >= set.generation)
}

pub(crate) fn status(deployment: &Deployment, sets: &Sets, facts: &Facts, view: &View, now: Instant) -> Value {
    let updated = sets.new.as_ref().map_or(0, |set| set.existing);
    let replicas = sets.sum(|set| set.existing);
    let available = sets.sum(|set| set.available);
    let mut status = json!({ "observedGeneration": deployment.generation });
    for (name, number) in [
        ("replicas", replicas),
        ("updatedReplicas", updated),
        ("readyReplicas", sets.sum(|set| set.ready)),
        ("availableReplicas", available),
        ("unavailableReplicas", (sets.sum(Set::wanted) - available).max(0)),
        ("terminatingReplicas", sets.sum(|set| set.terminating)),
        (
            "collisionCount",
            deployment.status["collisionCount"].as_i64().unwrap_or(0) + i64::from(facts.collided),
        ),
    ] {
        if number > 0 {
            status[name] = number.into();
        }
    }
    let mut conditions = Conditions {
        list: deployment.status["conditions"].as_array().cloned().unwrap_or_default(),
        now,
    };
    let least = deployment.wanted() - Bounds::of(deployment).unavailable;
    if available >= least {
        conditions.set(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        );
    } else {
        conditions.set(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        );
    }
    progress(deployment, sets, facts, &status, view, &mut conditions);
    let failed = sets
        .new
        .iter()
        .chain(&sets.old)
        .find(|set| set.failure["status"] == "True");
    match failed {
        Some(set) => {
            let text = |name: &str| set.failure[name].as_str().unwrap_or_default();
            conditions.set("ReplicaFailure", "True", text("reason"), text("message"));
        }
        None => conditions.remove("ReplicaFailure"),
    }
    status["conditions"] = conditions.list.into();
    status
}

/// The `Progressing` condition: `lastUpdateTime` moves with every progress, and the deadline counts from it.
fn progress(
    deployment: &Deployment,
    sets: &Sets,
    facts: &Facts,
    status: &Value,
    view: &View,
    conditions: &mut Conditions,
) {
    let name = sets.new.as_ref().map_or(&deployment.name, |set| &set.name);
    let what = if sets.new.is_some() { "ReplicaSet" } else { "Deployment" };
    let number = |of: &Value, name: &str| of[name].as_i64().unwrap_or(0);
    let old = &deployment.status;
    let reason = conditions.reason("Progressing").map(str::to_owned);
    if deployment.paused {
        if reason.as_deref() != Some("DeploymentPaused") {
            conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
        }
        return;
    }
    if reason.as_deref() == Some("DeploymentPaused") {
        conditions.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
    }
    if sets.new.is_none() {
        if let Some(message) = &facts.refused
            && !facts.collided
        {
            let message = format!("Failed to create new replica set: {message}");
            conditions.set("Progressing", "False", "ReplicaSetCreateError", &message);
        }
        return;
    }
    // Nothing is rolled out, and nothing was: a Deployment that only scales keeps the word of its last rollout.
    let rests = reason.as_deref() == Some("NewReplicaSetAvailable")
        && number(status, "replicas") == number(status, "updatedReplicas");
    if complete(deployment, sets) {
        if reason.as_deref() != Some("NewReplicaSetAvailable") {
            let message = format!("{what} \"{name}\" has successfully progressed.");
            conditions.set("Progressing", "True", "NewReplicaSetAvailable", &message);
        }
        return;
    }
    if rests {
        return;
    }
    let old_left = |of: &Value| number(of, "replicas") - number(of, "updatedReplicas");
    let progressed = number(status, "updatedReplicas") > number(old, "updatedReplicas")
        || number(status, "readyReplicas") > number(old, "readyReplicas")
        || number(status, "availableReplicas") > number(old, "availableReplicas")
        || old_left(status) < old_left(old);
    let known = matches!(
        reason.as_deref(),
        Some("ReplicaSetUpdated" | "NewReplicaSetCreated" | "FoundNewReplicaSet" | "ProgressDeadlineExceeded")
    );
    if progressed || !known {
        let message = format!("{what} \"{name}\" is progressing.");
        conditions.touch("Progressing", "True", "ReplicaSetUpdated", &message);
        return;
    }
    let Some(deadline) = deployment.progress_deadline else {
        return;
    };
    let since = conditions.updated("Progressing");
    if reason.as_deref() != Some("ProgressDeadlineExceeded")
        && since.is_some_and(|since| view.reached(since.plus_seconds(deadline)))
    {
        let message = format!("{what} \"{name}\" has timed out progressing.");
        conditions.set("Progressing", "False", "ProgressDeadlineExceeded", &message);
    }
}

struct Conditions {
    list: Vec<Value>,
    now: Instant,
}

impl Conditions {
    fn find(&self, kind: &str) -> Option<&Value> {
        self.list.iter().find(|condition| condition["type"] == kind)
    }

    fn reason(&self, kind: &str) -> Option<&str> {
        self.find(kind)?["reason"].as_str()
    }

    fn updated(&self, kind: &str) -> Option<Instant> {
        Instant::parse(self.find(kind)?["lastUpdateTime"].as_str()?)
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition["type"] != kind);
    }

    /// Says it, if it is news.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let told = self
            .find(kind)
            .is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message);
        if !told {
            self.touch(kind, status, reason, message);
        }
    }

    /// Says it again: the time of the update is now, that of the transition only if the status is another one.
    fn touch(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = self.now.to_string();
        let before = self.find(kind).filter(|c| c["status"] == status);
        let since = before.map_or_else(|| now.clone().into(), |c| c["lastTransitionTime"].clone());
        let condition = json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastUpdateTime": now,
            "lastTransitionTime": since,
        });
        match self.list.iter_mut().find(|c| c["type"] == kind) {
            Some(place) => *place = condition,
            None => self.list.push(condition),
        }
    }
}
