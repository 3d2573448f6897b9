//! Rolls a Deployment's pods from one template to the next, through ReplicaSets.
//!
//! Start at [`reconcile`]. `sets` finds the ReplicaSets and the one of today's template, `scale` says how many each should have,
//! `rollout` takes one step towards that, `status` is what is told about it, `history` clears up behind it.
//!
//! One run takes one step: up or down, never both. The next run sees what came of it.

mod history;
mod rollout;
mod scale;
mod sets;
mod status;

use sdk::controller::Precondition;
use sdk::{Fields, ObjectKey, Outcome, Owner, Request, Value, View, json};

use crate::sets::{Claimed, Sets};
use crate::status::Facts;

const DEPLOYMENT: &str = "apps/v1/Deployment";
const REPLICA_SET: &str = "apps/v1/ReplicaSet";

const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";

#[derive(Fields)]
struct Deployment {
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
    #[at(".metadata.annotations")]
    annotations: std::collections::BTreeMap<String, String>,
    #[at(".spec.replicas")]
    replicas: Option<i64>,
    #[at(".spec.paused")]
    paused: bool,
    #[at(".spec.minReadySeconds")]
    min_ready_seconds: i64,
    #[at(".spec.progressDeadlineSeconds")]
    progress_deadline: Option<i64>,
    #[at(".spec.revisionHistoryLimit")]
    history_limit: Option<i64>,
    #[at(".spec.strategy.type")]
    strategy: String,
    #[at(".spec.strategy.rollingUpdate.maxSurge")]
    max_surge: Value,
    #[at(".spec.strategy.rollingUpdate.maxUnavailable")]
    max_unavailable: Value,
    #[at(".spec.selector")]
    selector: Value,
    #[at(".spec.template")]
    template: Value,
    #[at(".status")]
    status: Value,
}

impl Deployment {
    fn key(&self) -> ObjectKey {
        ObjectKey::new(DEPLOYMENT, &self.namespace, &self.name)
    }

    fn wanted(&self) -> i64 {
        self.replicas.unwrap_or(1).max(0)
    }

    fn recreates(&self) -> bool {
        self.strategy == "Recreate"
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            kind: DEPLOYMENT,
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
            deleting: self.deleting,
        }
    }
}

#[sdk::controller(
    of = "apps/v1/Deployment",
    asks = [
        "get patch deployments.apps",
        "update patch deployments.apps/status",
        "get create patch delete replicasets.apps",
        "get pods",
        "create patch events",
    ],
)]
fn reconcile(deployment: Deployment, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let selector = sdk::selector::text(&deployment.selector)?;
    // One that selects everything would take in every ReplicaSet of the namespace; Kubernetes leaves it alone, too.
    if selector.is_empty() {
        return Ok(outcome);
    }
    if deployment
        .owner()
        .claim::<Claimed>(REPLICA_SET, &selector, view, &mut outcome)?
    {
        return Ok(outcome);
    }
    let sets = Sets::find(&deployment, view)?;
    let facts = Facts::of(&sets, request);
    // The status goes first: what follows may be refused, and then people read here why nothing moves.
    let status = status::status(&deployment, &sets, &facts, view, request.now);
    if status != deployment.status {
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": deployment.name, "namespace": deployment.namespace},
            "status": status,
        });
        outcome.set_status(&object, Precondition::Uid(deployment.uid.clone()));
    }
    // A collision is written down before the next name is tried: the name is made of their number.
    if deployment.deleting || facts.collided {
        return Ok(outcome);
    }
    history::number(&deployment, &sets, &mut outcome);
    if deployment.paused || (scale::was_scaled(&deployment, &sets) && !deployment.recreates()) {
        scale::proportionally(&deployment, &sets, &mut outcome);
    } else {
        rollout::step(&deployment, &sets, view, &mut outcome)?;
    }
    history::clear(&deployment, &sets, &mut outcome);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
