//! Gives pods what their RuntimeClass says: the overhead of its sandbox, and where it can run (KEP-585, KEP-688).

use std::collections::BTreeMap;

use sdk::admission::{Answer, Phase, Request};
use sdk::{Fields, Value, View, json};

#[derive(Fields, Clone, Debug)]
struct Pod {
    #[at(".spec.runtimeClassName")]
    class: String,
    #[at(".spec.overhead")]
    overhead: Value,
    #[at(".spec.nodeSelector")]
    node_selector: BTreeMap<String, String>,
    #[at(".spec.tolerations")]
    tolerations: Value,
}

#[derive(Fields, Debug)]
struct Class {
    #[at(".overhead.podFixed")]
    overhead: Value,
    #[at(".scheduling.nodeSelector")]
    node_selector: BTreeMap<String, String>,
    #[at(".scheduling.tolerations")]
    tolerations: Value,
}

#[sdk::admission(
    on = ["create pods"],
    phases = ["mutating", "validating"],
    asks = ["get runtimeclasses.node.k8s.io"],
    with_fields = [".spec.runtimeClassName", ".spec.overhead"],
)]
fn review(request: Request<Pod>, view: &View) -> sdk::Result<Answer> {
    let Some(pod) = &request.object else {
        return Ok(Answer::allow());
    };
    let class: Option<Class> = match pod.class.as_str() {
        "" => None,
        name => {
            let class = view.get("node.k8s.io/v1/RuntimeClass", "", name)?;
            if class.is_none() {
                return Ok(Answer::deny(format!("pod rejected: RuntimeClass {name:?} not found")));
            }
            class
        }
    };
    Ok(decide(pod, class.as_ref(), matches!(request.phase, Phase::Mutating)))
}

fn decide(pod: &Pod, class: Option<&Class>, mutating: bool) -> Answer {
    let overhead = class.map_or(&Value::Null, |class| &class.overhead);
    let differs = sdk::pods::amounts(&pod.overhead) != sdk::pods::amounts(overhead);
    if differs && (!mutating || !pod.overhead.is_null()) {
        return Answer::deny(match class {
            None => "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            Some(_) => "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        });
    }
    let mut answer = Answer::allow();
    let Some(class) = class.filter(|_| mutating) else {
        return answer;
    };
    if differs {
        answer = answer.patch("add", "/spec/overhead", overhead.clone());
    }
    let mut selector = pod.node_selector.clone();
    for (key, value) in &class.node_selector {
        if pod.node_selector.get(key).is_some_and(|own| own != value) {
            return Answer::deny(format!(
                "conflict: cannot merge RuntimeClass nodeSelector: key {key:?} differs in the pod"
            ));
        }
        selector.insert(key.clone(), value.clone());
    }
    if selector != pod.node_selector {
        answer = answer.patch("add", "/spec/nodeSelector", json!(selector));
    }
    let mut tolerations = pod.tolerations.as_array().cloned().unwrap_or_default();
    let own = tolerations.len();
    for toleration in class.tolerations.as_array().into_iter().flatten() {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > own {
        answer = answer.patch("add", "/spec/tolerations", tolerations.into());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(overhead: Value, selector: &[(&str, &str)]) -> Pod {
        Pod {
            class: "vm".into(),
            overhead,
            node_selector: selector.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            tolerations: json!([{"key": "own"}]),
        }
    }

    fn class() -> Class {
        Class {
            overhead: json!({"cpu": "250m"}),
            node_selector: [("vm".to_owned(), "yes".to_owned())].into(),
            tolerations: json!([{"key": "own"}, {"key": "vm"}]),
        }
    }

    #[test]
    fn a_class_adds_overhead_nodes_and_tolerations() {
        let answer = decide(&pod(Value::Null, &[("a", "b")]), Some(&class()), true);
        let expected = json!([
            {"op": "add", "path": "/spec/overhead", "value": {"cpu": "250m"}},
            {"op": "add", "path": "/spec/nodeSelector", "value": {"a": "b", "vm": "yes"}},
            {"op": "add", "path": "/spec/tolerations", "value": [{"key": "own"}, {"key": "vm"}]},
        ]);
        assert_eq!(Value::from(answer.patch), expected);
    }

    #[test]
    fn what_contradicts_the_class_is_refused() {
        let refused = |pod: &Pod, class: Option<&Class>, mutating| decide(pod, class, mutating).denied.is_some();
        assert!(refused(&pod(json!({"cpu": "1"}), &[]), Some(&class()), true));
        assert!(refused(&pod(json!({"cpu": "1"}), &[]), None, true));
        assert!(refused(&pod(Value::Null, &[("vm", "no")]), Some(&class()), true));
        assert!(!refused(&pod(json!({"cpu": "0.25"}), &[]), Some(&class()), false));
        assert!(!refused(&pod(Value::Null, &[]), None, false));
    }
}
