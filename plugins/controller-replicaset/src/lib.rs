//! Keeps as many pods as a ReplicaSet asks for.

mod replicas;

use sdk::{Outcome, Request, View};

use crate::replicas::{Of, Set};

const OF: Of = Of {
    kind: "apps/v1/ReplicaSet",
    selector: sdk::selector::text,
    tells_terminating: true,
};

#[sdk::controller(
    of = "apps/v1/ReplicaSet",
    asks = [
        "get replicasets.apps",
        "update patch replicasets.apps/status",
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
