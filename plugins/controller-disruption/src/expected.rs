//! How many pods there ought to be, and how many of them must be healthy.

use std::collections::BTreeMap;

use sdk::view::Selection;
use sdk::{Fields, Value, View};

use crate::{Budget, POD};

pub(crate) struct Expected {
    pub(crate) pods: i64,
    pub(crate) healthy: i64,
}

/// `Err` says what keeps it from being known.
pub(crate) fn count(budget: &Budget, pods: Option<&Selection>, view: &View) -> sdk::Result<Result<Expected, String>> {
    let there = match pods {
        Some(pods) => view.tally(POD, pods, "", "")?.total()?,
        None => 0,
    };
    // A number of pods that must be there needs no more than those that are.
    if let Some(healthy) = budget.min_available.as_i64() {
        let pods = there;
        return Ok(Ok(Expected { pods, healthy }));
    }
    let pods = match pods.filter(|_| there > 0) {
        Some(pods) => match wanted(budget, pods, view)? {
            Ok(pods) => pods,
            Err(why) => return Ok(Err(why)),
        },
        None => 0,
    };
    let healthy = match (&budget.min_available, &budget.max_unavailable) {
        (Value::String(percent), _) => share(percent, pods),
        (_, Value::String(percent)) => Some((pods - share(percent, pods).unwrap_or(0)).max(0)),
        (_, Value::Number(number)) => Some((pods - number.as_i64().unwrap_or(0)).max(0)),
        _ => Some(0),
    };
    Ok(healthy
        .map(|healthy| Expected { pods, healthy })
        .ok_or_else(|| "minAvailable is neither a number nor a percentage".to_owned()))
}

/// Rounded up, as for both fields in Kubernetes.
fn share(percent: &str, of: i64) -> Option<i64> {
    let percent: i64 = percent.strip_suffix('%')?.parse().ok()?;
    Some((of * percent + 99).div_euclid(100))
}

/// Who controls a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Controller {
    kind: String,
    name: String,
}

/// The replicas that the controllers of the pods want, all together.
fn wanted(budget: &Budget, pods: &Selection, view: &View) -> sdk::Result<Result<i64, String>> {
    const BY: &str = ".metadata.ownerReferences[controller=true].apiVersion \
                      .metadata.ownerReferences[controller=true].kind \
                      .metadata.ownerReferences[controller=true].name";
    let mut controllers: BTreeMap<Controller, i64> = BTreeMap::new();
    for row in view.tally(POD, pods, BY, "")?.rows()? {
        let (version, kind, name) = (row.value(0).str(), row.value(1).str(), row.value(2).str());
        if name.is_empty() {
            return Ok(Err(
                "found no controller ref for some of the pods: only a budget with a number as minAvailable \
                           covers pods that nobody controls"
                    .into(),
            ));
        }
        let controller = Controller {
            kind: format!("{version}/{kind}"),
            name: name.to_owned(),
        };
        controllers.insert(above(budget, controller, view)?, 0);
    }
    let mut sum = 0;
    for controller in controllers.keys() {
        match view.scale(&controller.kind, &budget.namespace, &controller.name)? {
            Some(scale) => sum += i64::from(scale.spec_replicas),
            None => {
                let Controller { kind, name } = controller;
                return Ok(Err(format!("{kind} {name} is not there, or has no scale subresource")));
            }
        }
    }
    Ok(Ok(sum))
}

/// The Deployment of a ReplicaSet: in the middle of a rollout its sets want more than it does.
fn above(budget: &Budget, controller: Controller, view: &View) -> sdk::Result<Controller> {
    #[derive(Fields)]
    struct Set {
        #[at(".metadata.ownerReferences[controller=true].apiVersion")]
        version: String,
        #[at(".metadata.ownerReferences[controller=true].kind")]
        kind: String,
        #[at(".metadata.ownerReferences[controller=true].name")]
        name: String,
    }
    if controller.kind != "apps/v1/ReplicaSet" {
        return Ok(controller);
    }
    let set: Option<Set> = view.get(&controller.kind, &budget.namespace, &controller.name)?;
    Ok(match set.filter(|set| set.kind == "Deployment") {
        Some(set) => Controller {
            kind: format!("{}/{}", set.version, set.kind),
            name: set.name,
        },
        None => controller,
    })
}
