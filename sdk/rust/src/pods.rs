//! What a pod asks for in all, as quotas, limit ranges and the scheduler count it.

use std::collections::BTreeMap;

use crate::{Quantity, Value};

/// Resource names to amounts.
pub type Amounts = BTreeMap<String, Quantity>;

/// `resources.requests` and `resources.limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Requests,
    Limits,
}

impl Part {
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Requests => "requests",
            Part::Limits => "limits",
        }
    }
}

/// One `requests`, `limits`, `hard` or `overhead`. What is no quantity is left out: validation refuses it.
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, value)| Some((name.clone(), quantity(value)?)))
        .collect()
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        number @ Value::Number(_) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// The sum over the containers that run together, or what an init container needs where that is more (KEP-753); what the
/// pod names for itself instead (KEP-2837); and the overhead of its runtime class (KEP-688).
pub fn total(spec: &Value, part: Part) -> Amounts {
    let own = |container: &Value| amounts(&container["resources"][part.as_str()]);
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    let mut sum = Amounts::new();
    for container in list("containers") {
        add(&mut sum, &own(container));
    }
    let (mut beside, mut most) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let mut needs = own(container);
        if container["restartPolicy"] == "Always" {
            // A sidecar goes on running: it counts among the containers, and beside each init container behind it.
            add(&mut sum, &needs);
            add(&mut beside, &needs);
            needs = beside.clone();
        } else {
            add(&mut needs, &beside);
        }
        raise(&mut most, needs);
    }
    raise(&mut sum, most);
    for (name, amount) in amounts(&spec["resources"][part.as_str()]) {
        sum.insert(name, amount);
    }
    for (name, amount) in amounts(&spec["overhead"]) {
        match (part, sum.get_mut(&name)) {
            (_, Some(sum)) => *sum = *sum + amount,
            (Part::Requests, None) => drop(sum.insert(name, amount)),
            // What is not limited stays so.
            (Part::Limits, None) => {}
        }
    }
    sum
}

/// Adds each amount to the one of its name.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = *sum + *amount;
    }
}

fn raise(to: &mut Amounts, at_least: Amounts) {
    for (name, amount) in at_least {
        let most = to.entry(name).or_insert(amount);
        *most = (*most).max(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn cpu(spec: &Value, part: Part) -> Option<String> {
        total(spec, part).get("cpu").map(Quantity::to_string)
    }

    #[test]
    fn counts_as_the_keps_say() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}});
        let sidecar = |cpu: &str| {
            let mut sidecar = container(cpu);
            sidecar["restartPolicy"] = "Always".into();
            sidecar
        };
        for (spec, requests, limits) in [
            (
                json!({"containers": [container("1"), container("500m")]}),
                "1500m",
                "1500m",
            ),
            // An init container that needs more than all the others together, and one that does not.
            (
                json!({"containers": [container("1")], "initContainers": [container("3")]}),
                "3",
                "3",
            ),
            (
                json!({"containers": [container("4")], "initContainers": [container("3")]}),
                "4",
                "4",
            ),
            // The sidecar runs beside the init container behind it, and beside the containers.
            (
                json!({"containers": [container("1")], "initContainers": [sidecar("2"), container("3")]}),
                "5",
                "5",
            ),
            (
                json!({"containers": [container("1")], "initContainers": [container("2"), sidecar("2")]}),
                "3",
                "3",
            ),
            (
                json!({"containers": [container("1")], "resources": {"requests": {"cpu": "7"}}, "overhead": {"cpu": "1"}}),
                "8",
                "2",
            ),
        ] {
            assert_eq!(cpu(&spec, Part::Requests).as_deref(), Some(requests), "{spec}");
            assert_eq!(cpu(&spec, Part::Limits).as_deref(), Some(limits), "{spec}");
        }
        let bare = json!({"containers": [{}], "overhead": {"cpu": "1"}});
        assert_eq!(
            (cpu(&bare, Part::Requests).as_deref(), cpu(&bare, Part::Limits)),
            (Some("1"), None)
        );
    }
}
