//! What a container does not ask for, and its namespace has a default of.

use sdk::{Value, json};

use crate::Object;

/// Says which values are not the author's.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The steps that fill in; of several LimitRanges the first one's default stands.
pub(crate) fn patch<'a>(pod: &Object, ranges: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let mut lists = [
        ("containers", "container", pod.containers.clone()),
        ("initContainers", "init container", pod.init_containers.clone()),
    ];
    let (mut steps, mut notes) = (Vec::new(), Vec::new());
    for range in ranges {
        let of_containers = range.as_array().into_iter().flatten();
        for limit in of_containers.filter(|limit| limit["type"] == "Container") {
            for (_, what, list) in &mut lists {
                for container in list.as_array_mut().into_iter().flatten() {
                    let name = container["name"].as_str().unwrap_or_default().to_owned();
                    for (part, from, word) in [
                        ("requests", "defaultRequest", "request"),
                        ("limits", "default", "limit"),
                    ] {
                        let set = fill(container, part, &limit[from]);
                        if !set.is_empty() {
                            notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                        }
                    }
                }
            }
        }
    }
    for ((field, _, list), was) in lists.iter().zip([&pod.containers, &pod.init_containers]) {
        for (at, container) in list.as_array().into_iter().flatten().enumerate() {
            if container["resources"] != was[at]["resources"] {
                let path = format!("/spec/{field}/{at}/resources");
                steps.push(json!({"op": "add", "path": path, "value": container["resources"]}));
            }
        }
    }
    if !notes.is_empty() {
        let note = json!(format!("LimitRanger plugin set: {}", notes.join("; ")));
        let (path, value) = match pod.annotations.is_null() {
            true => ("/metadata/annotations".to_owned(), json!({ANNOTATION: note})),
            false => (format!("/metadata/annotations/{}", ANNOTATION.replace('/', "~1")), note),
        };
        steps.push(json!({"op": "add", "path": path, "value": value}));
    }
    steps
}

/// The names that were not there.
fn fill(container: &mut Value, part: &str, defaults: &Value) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults.as_object().into_iter().flatten() {
        let has = &mut container["resources"][part][name];
        if has.is_null() {
            *has = amount.clone();
            set.push(name.clone());
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_is_missing_and_says_so() {
        let range = json!([
            {"type": "Pod", "default": {"cpu": "9"}},
            {"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "1Gi"}, "default": {"cpu": "1"}},
        ]);
        let pod = Object {
            annotations: json!({"a": "b"}),
            deleting: false,
            containers: json!([{"name": "web", "resources": {"requests": {"cpu": "5m"}}}, {"name": "db"}]),
            init_containers: Value::Null,
            overhead: Value::Null,
            resources: Value::Null,
        };
        let steps = patch(&pod, [&range].into_iter());
        let expected = json!([
            {"op": "add", "path": "/spec/containers/0/resources",
                "value": {"requests": {"cpu": "5m", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
            {"op": "add", "path": "/spec/containers/1/resources",
                "value": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
            {"op": "add", "path": "/metadata/annotations/kubernetes.io~1limit-ranger",
                "value": "LimitRanger plugin set: memory request for container web; cpu limit for container web; \
                          cpu, memory request for container db; cpu limit for container db"},
        ]);
        assert_eq!(Value::from(steps), expected);
    }
}
