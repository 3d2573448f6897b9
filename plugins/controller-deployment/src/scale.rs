//! How many pods which set should have, and the write that says so.

use sdk::controller::{PatchFormat, Precondition};
use sdk::{Outcome, Value, json};

use crate::sets::{Set, Sets};
use crate::{DESIRED, Deployment, MAX};

/// `maxSurge` and `maxUnavailable` in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) surge: i64,
    pub(crate) unavailable: i64,
}

impl Bounds {
    /// Shares of surge are rounded up, of unavailable down; both zero would stand still, so then one may be unavailable.
    pub(crate) fn of(deployment: &Deployment) -> Self {
        if deployment.recreates() {
            return Self {
                surge: 0,
                unavailable: 0,
            };
        }
        let wanted = deployment.wanted();
        let surge = pods(&deployment.max_surge, wanted, true);
        let unavailable = pods(&deployment.max_unavailable, wanted, false).min(wanted);
        if surge == 0 && unavailable == 0 {
            Self { surge, unavailable: 1 }
        } else {
            Self { surge, unavailable }
        }
    }
}

/// An int-or-string: `3` or `"25%"`; 25 % where nothing is said.
fn pods(value: &Value, of: i64, up: bool) -> i64 {
    let percent = match value {
        Value::Number(number) => return number.as_i64().unwrap_or(0).max(0),
        Value::String(text) => match text.strip_suffix('%').map(str::parse::<i64>) {
            Some(Ok(percent)) => percent,
            _ => return text.parse().unwrap_or(0),
        },
        _ => 25,
    };
    let share = of.saturating_mul(percent.max(0));
    if up { (share + 99) / 100 } else { share / 100 }
}

/// The most pods there may be.
pub(crate) fn most(deployment: &Deployment) -> i64 {
    let surge = if deployment.wanted() == 0 {
        0
    } else {
        Bounds::of(deployment).surge
    };
    deployment.wanted() + surge
}

/// Someone changed `spec.replicas` since the sets were last told.
pub(crate) fn was_scaled(deployment: &Deployment, sets: &Sets) -> bool {
    let wanted = deployment.wanted().to_string();
    sets.all()
        .filter(|set| set.wanted() > 0)
        .any(|set| set.annotations.get(DESIRED).is_some_and(|told| *told != wanted))
}

/// Writes how many pods a set should have, if that or its notes changed. The set must still be as large as it was read.
pub(crate) fn set(deployment: &Deployment, set: &Set, replicas: i64, outcome: &mut Outcome) {
    let (desired, most) = (deployment.wanted().to_string(), most(deployment).to_string());
    let noted = set.annotations.get(DESIRED) == Some(&desired) && set.annotations.get(MAX) == Some(&most);
    if set.wanted() == replicas && noted {
        return;
    }
    let body = json!({
        "metadata": {"annotations": {DESIRED: desired, MAX: most}},
        "spec": {"replicas": replicas},
    });
    let when = Precondition::FieldsAsRead((set.uid.clone(), ".spec.replicas".into()));
    outcome.patch(set.key(deployment), PatchFormat::Merge, &body, "", when);
    if set.wanted() != replicas {
        let way = if replicas > set.wanted() { "up" } else { "down" };
        let sentence = format!(
            "Scaled {way} replica set {} from {} to {replicas}",
            set.name,
            set.wanted()
        );
        outcome.event(&deployment.key(), &deployment.uid, false, "ScalingReplicaSet", sentence);
    }
}

/// Scales in the middle of a rollout, or while paused: each set grows or shrinks by its share, so that a bad new template is
/// not given more than it had. With one active set it is simply that one.
pub(crate) fn proportionally(deployment: &Deployment, sets: &Sets, outcome: &mut Outcome) {
    let mut active: Vec<&Set> = sets.all().filter(|set| set.wanted() > 0).collect();
    if active.len() <= 1 {
        let latest = || {
            sets.new
                .as_ref()
                .or_else(|| sets.old.iter().max_by_key(|set| set.revision()))
        };
        if let Some(one) = active.first().copied().or_else(latest) {
            set(deployment, one, deployment.wanted(), outcome);
        }
        return;
    }
    if sets.new.as_ref().is_some_and(|new| saturated(deployment, new)) {
        sets.active_old().for_each(|old| set(deployment, old, 0, outcome));
        return;
    }
    if deployment.recreates() {
        return;
    }
    let now: i64 = active.iter().map(|set| set.wanted()).sum();
    let to_add = most(deployment) - now;
    // The largest first, the newest first among equals when growing: who gets the rounding's remainder.
    active.sort_by(|a, b| {
        b.wanted().cmp(&a.wanted()).then_with(|| {
            let order = b.created.cmp(&a.created);
            if to_add > 0 { order } else { order.reverse() }
        })
    });
    let mut left = to_add;
    let mut wanted: Vec<i64> = active
        .iter()
        .map(|one| {
            let share = share(one, to_add, most(deployment)).clamp(left.min(0), left.max(0));
            left -= share;
            one.wanted() + share
        })
        .collect();
    if let Some(first) = wanted.first_mut() {
        *first = (*first + left).max(0);
    }
    for (one, replicas) in active.into_iter().zip(wanted) {
        set(deployment, one, replicas, outcome);
    }
}

/// How many of the pods to add are this set's, rounded to nearest.
fn share(set: &Set, to_add: i64, most: i64) -> i64 {
    let before = set
        .annotations
        .get(MAX)
        .and_then(|text| text.parse().ok())
        .filter(|max: &i64| *max > 0);
    let before = before.unwrap_or(most - to_add).max(1);
    let size = (set.wanted() * most * 2 + before) / (before * 2);
    let share = size - set.wanted();
    if to_add > 0 {
        share.clamp(0, to_add)
    } else {
        share.clamp(to_add, 0)
    }
}

/// It has all the pods there should be, and they are available.
pub(crate) fn saturated(deployment: &Deployment, set: &Set) -> bool {
    let told = set.annotations.get(DESIRED).and_then(|text| text.parse::<i64>().ok());
    let wanted = deployment.wanted();
    set.wanted() == wanted && told == Some(wanted) && set.available == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_surge_are_rounded_up_and_of_unavailable_down() {
        assert_eq!(pods(&json!("25%"), 10, true), 3);
        assert_eq!(pods(&json!("25%"), 10, false), 2);
        assert_eq!(pods(&json!(4), 10, false), 4);
        assert_eq!(pods(&Value::Null, 4, true), 1);
    }
}
