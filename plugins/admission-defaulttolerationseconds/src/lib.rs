//! Lets pods stay five minutes on a node that is not ready or not reachable, unless they say otherwise.

use sdk::admission::{Answer, Request};
use sdk::{Fields, Value, json};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

#[derive(Fields, Clone, Debug)]
struct Pod {
    #[at(".spec.tolerations")]
    tolerations: Value,
}

#[sdk::admission(on = ["create pods"], phases = ["mutating"])]
fn review(request: Request<Pod>) -> sdk::Result<Answer> {
    Ok(request
        .object
        .map_or_else(Answer::allow, |pod| complete(&pod.tolerations)))
}

fn complete(tolerations: &Value) -> Answer {
    let own = tolerations.as_array();
    let tolerates = |taint: &str| {
        own.into_iter().flatten().any(|t| {
            let key = t["key"].as_str().unwrap_or_default();
            let effect = t["effect"].as_str().unwrap_or_default();
            (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
        })
    };
    let missing = TAINTS
        .iter()
        .filter(|taint| !tolerates(taint))
        .map(|taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
    let missing: Vec<Value> = missing.collect();
    match own {
        _ if missing.is_empty() => Answer::allow(),
        None => Answer::allow().patch("add", "/spec/tolerations", missing.into()),
        Some(_) => missing.into_iter().fold(Answer::allow(), |answer, one| {
            answer.patch("add", "/spec/tolerations/-", one)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        assert_eq!(complete(&Value::Null).patch.len(), 1);
        let own = json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]);
        let answer = complete(&own);
        assert_eq!(answer.patch.len(), 1);
        assert_eq!(answer.patch[0]["value"]["key"], TAINTS[1]);
        assert!(complete(&json!([{"operator": "Exists"}])).patch.is_empty());
    }
}
