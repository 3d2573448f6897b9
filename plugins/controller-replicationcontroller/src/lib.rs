//! Keeps as many pods as a ReplicationController asks for: what ReplicaSets came after.

// The decision is the ReplicaSet's, compiled a second time: a component has one kind of subject.
#[path = "../../controller-replicaset/src/replicas/mod.rs"]
mod replicas;

use sdk::{Outcome, Request, Value, View};

use crate::replicas::{Of, Set};

const OF: Of = Of {
    kind: "v1/ReplicationController",
    selector,
    tells_terminating: false,
};

/// A ReplicationController's selector is plain labels.
fn selector(labels: &Value) -> sdk::Result<String> {
    sdk::selector::text(&sdk::json!({"matchLabels": labels}))
}

#[sdk::controller(
    of = "v1/ReplicationController",
    asks = [
        "get replicationcontrollers",
        "update patch replicationcontrollers/status",
        "get create patch delete pods",
        "create patch events",
    ],
)]
fn reconcile(set: Set, view: &View, request: &Request) -> sdk::Result<Outcome> {
    replicas::reconcile(&OF, &set, view, request)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
