//! `min`, `max` and `maxLimitRequestRatio` of a LimitRange, and the sentences that kube-apiserver says of them.

use sdk::pods::{Amounts, Part, amounts, total};
use sdk::{Quantity, Value, json};

use crate::Object;

/// Requests and limits of one thing.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

pub(crate) fn of_pod(pod: &Object, limits: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let containers = [&pod.containers, &pod.init_containers].map(Value::as_array);
    let each: Vec<Asked> = containers
        .into_iter()
        .flatten()
        .flatten()
        .map(|container| Asked {
            requests: amounts(&container["resources"]["requests"]),
            limits: amounts(&container["resources"]["limits"]),
        })
        .collect();
    for limit in of_type(limits, "Container") {
        each.iter()
            .for_each(|asked| bounded(limit, "Container", asked, &mut wrong));
    }
    for limit in of_type(limits, "Pod") {
        let spec = json!({
            "containers": pod.containers,
            "initContainers": pod.init_containers,
            "overhead": pod.overhead,
            "resources": pod.resources,
        });
        let whole = Asked {
            requests: total(&spec, Part::Requests),
            limits: total(&spec, Part::Limits),
        };
        bounded(limit, "Pod", &whole, &mut wrong);
    }
    wrong
}

pub(crate) fn of_claim(claim: &Object, limits: &Value) -> Vec<String> {
    const TYPE: &str = "PersistentVolumeClaim";
    let requests = amounts(&claim.resources["requests"]);
    let mut wrong = Vec::new();
    for limit in of_type(limits, TYPE) {
        for (name, least) in amounts(&limit["min"]) {
            minimum(&name, TYPE, least, requests.get(&name), None, &mut wrong);
        }
        for (name, most) in amounts(&limit["max"]) {
            let says = format!("maximum {name} usage per {TYPE} is {most}");
            match requests.get(&name) {
                None => wrong.push(format!("{says}.  No request is specified")),
                Some(request) if *request > most => wrong.push(format!("{says}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    wrong
}

fn of_type<'a>(limits: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = limits.as_array().into_iter().flatten();
    all.filter(move |limit| limit["type"] == kind)
}

fn bounded(limit: &Value, kind: &str, asked: &Asked, wrong: &mut Vec<String>) {
    for (name, least) in amounts(&limit["min"]) {
        minimum(
            &name,
            kind,
            least,
            asked.requests.get(&name),
            asked.limits.get(&name),
            wrong,
        );
    }
    for (name, most) in amounts(&limit["max"]) {
        let says = format!("maximum {name} usage per {kind} is {most}");
        match (asked.limits.get(&name), asked.requests.get(&name)) {
            (None, _) => wrong.push(format!("{says}.  No limit is specified")),
            (Some(limit), _) if *limit > most => wrong.push(format!("{says}, but limit is {limit}")),
            (_, Some(request)) if *request > most => wrong.push(format!("{says}, but request is {request}")),
            _ => {}
        }
    }
    for (name, most) in amounts(&limit["maxLimitRequestRatio"]) {
        let says = format!("{name} max limit to request ratio per {kind} is {most}");
        let some = |amounts: &Amounts| amounts.get(&name).copied().filter(|amount| !amount.is_zero());
        match (some(&asked.requests), some(&asked.limits)) {
            (None, _) => wrong.push(format!("{says}, but no request is specified or request is 0")),
            (_, None) => wrong.push(format!("{says}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.nanos() as f64 / request.nanos() as f64;
                if ratio > most.nanos() as f64 / 1e9 {
                    wrong.push(format!("{says}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

fn minimum(
    name: &str,
    kind: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
    wrong: &mut Vec<String>,
) {
    let says = format!("minimum {name} usage per {kind} is {least}");
    match (request, limit) {
        (None, _) => wrong.push(format!("{says}.  No request is specified")),
        (Some(request), _) if *request < least => wrong.push(format!("{says}, but request is {request}")),
        (_, Some(limit)) if *limit < least => wrong.push(format!("{says}, but limit is {limit}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(requests: Value, limits: Value) -> Object {
        Object {
            annotations: Value::Null,
            deleting: false,
            containers: json!([{"name": "a", "resources": {"requests": requests, "limits": limits}}, {"name": "b",
                "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}]),
            init_containers: Value::Null,
            overhead: Value::Null,
            resources: Value::Null,
        }
    }

    #[test]
    fn says_what_kube_apiserver_says() {
        let range = |kind: &str, bounds: Value| {
            let mut limit = bounds;
            limit["type"] = kind.into();
            json!([limit])
        };
        let cases = [
            (
                range("Container", json!({"min": {"cpu": "50m"}})),
                "minimum cpu usage per Container is 50m, but request is 10m",
            ),
            (
                range("Container", json!({"max": {"cpu": "1"}})),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                range("Pod", json!({"max": {"cpu": "2"}})),
                "maximum cpu usage per Pod is 2, but limit is 3",
            ),
            (
                range("Container", json!({"maxLimitRequestRatio": {"cpu": "3"}})),
                "cpu max limit to request ratio per Container is 3, but provided ratio is 200.000000",
            ),
            (
                range("Pod", json!({"min": {"memory": "1Gi"}})),
                "minimum memory usage per Pod is 1Gi.  No request is specified",
            ),
        ];
        for (limits, says) in cases {
            let wrong = of_pod(&pod(json!({"cpu": "10m"}), json!({"cpu": "2"})), &limits);
            assert_eq!(wrong, [says], "{limits}");
        }
        let within = range("Container", json!({"min": {"cpu": "1m"}, "max": {"cpu": "2"}}));
        assert!(of_pod(&pod(json!({"cpu": "10m"}), json!({"cpu": "2"})), &within).is_empty());
    }

    #[test]
    fn claims_are_held_to_their_storage() {
        let mut claim = pod(Value::Null, Value::Null);
        claim.resources = json!({"requests": {"storage": "5Gi"}});
        let limits = json!([{"type": "PersistentVolumeClaim", "min": {"storage": "6Gi"}, "max": {"storage": "4Gi"}}]);
        let expected = [
            "minimum storage usage per PersistentVolumeClaim is 6Gi, but request is 5Gi",
            "maximum storage usage per PersistentVolumeClaim is 4Gi, but request is 5Gi",
        ];
        assert_eq!(of_claim(&claim, &limits), expected);
    }
}
