//! HorizontalPodAutoscaler between `autoscaling/v1` and `autoscaling/v2`.
//!
//! `v1` has one field for one metric, the utilization of CPU. Everything else that `v2` can say travels in four
//! annotations, as JSON in `v1`'s own spelling of metrics, and comes out of them again.

use serde_json::{Map, Value, json};

use crate::meta;
use crate::resources::common::child;
use crate::table::list_at;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// `v2` as `v1` shows it.
pub(crate) fn from_v2(object: &mut Value) {
    let utilization = |value: &Value, part: &str| value["resource"][part]["averageUtilization"].clone();
    let is_cpu = |metric: &Value, part: &str| {
        metric["type"] == "Resource" && metric["resource"]["name"] == "cpu" && !utilization(metric, part).is_null()
    };
    let mut notes = Map::new();
    let mut note = |key: &str, list: Vec<Value>| {
        if !list.is_empty() {
            notes.insert(key.into(), Value::Array(list).to_string().into());
        }
    };
    let metrics = list_at(object, "spec.metrics").to_vec();
    let cpu = metrics.iter().position(|m| is_cpu(m, "target"));
    let rest = metrics.iter().enumerate().filter(|(i, _)| Some(*i) != cpu);
    note(METRICS, rest.map(|(_, m)| spelled_v1(m, "target")).collect());
    let current = list_at(object, "status.currentMetrics").to_vec();
    note(CURRENT, current.iter().map(|m| spelled_v1(m, "current")).collect());
    note(CONDITIONS, list_at(object, "status.conditions").to_vec());
    if let Some(behavior) = object["spec"].get("behavior").filter(|b| b.is_object()) {
        notes.insert(BEHAVIOR.into(), behavior.to_string().into());
    }
    if let Some(spec) = object.get_mut("spec") {
        meta::put(spec, "metrics", None);
        meta::put(spec, "behavior", None);
        let target = cpu.map(|i| utilization(&metrics[i], "target"));
        meta::put(spec, "targetCPUUtilizationPercentage", target);
    }
    if let Some(status) = object.get_mut("status") {
        meta::put(status, "currentMetrics", None);
        meta::put(status, "conditions", None);
        let now = current.iter().find(|m| is_cpu(m, "current"));
        meta::put(
            status,
            "currentCPUUtilizationPercentage",
            now.map(|m| utilization(m, "current")),
        );
        if status["currentReplicas"].is_null() {
            status["currentReplicas"] = 0.into();
        }
    }
    if !notes.is_empty() {
        let annotations = child(child(object, "metadata"), "annotations");
        for (key, value) in notes {
            annotations[key] = value;
        }
    }
}

/// `v1` as it is stored.
pub(crate) fn to_v2(object: &mut Value) {
    let mut take = |key: &str| -> Option<Value> {
        let annotations = object.pointer_mut("/metadata/annotations")?.as_object_mut()?;
        let text = annotations.remove(key)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let list = |value: Option<Value>| value.and_then(|v| v.as_array().cloned()).unwrap_or_default();
    let (metrics, current) = (list(take(METRICS)), list(take(CURRENT)));
    let (conditions, behavior) = (list(take(CONDITIONS)), take(BEHAVIOR));
    if object
        .pointer("/metadata/annotations")
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        meta::put(&mut object["metadata"], "annotations", None);
    }
    let mut metrics: Vec<Value> = metrics.iter().map(|m| spelled_v2(m, "target")).collect();
    let cpu = |part: &str, percent: Value| {
        let mut resource = json!({"name": "cpu"});
        resource[part] = match part {
            "target" => json!({"type": "Utilization", "averageUtilization": percent}),
            _ => json!({"averageUtilization": percent}),
        };
        json!({"type": "Resource", "resource": resource})
    };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let percent = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null());
        if let Some(percent) = percent {
            metrics.push(cpu("target", percent));
        }
        if metrics.is_empty() {
            metrics.push(cpu("target", 80.into()));
        }
        spec.insert("metrics".into(), metrics.into());
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let percent = status
            .remove("currentCPUUtilizationPercentage")
            .filter(|p| !p.is_null());
        let mut current: Vec<Value> = current.iter().map(|m| spelled_v2(m, "current")).collect();
        if let Some(percent) = percent.filter(|_| current.is_empty()) {
            current.push(cpu("current", percent));
        }
        let current = if current.is_empty() {
            Value::Null
        } else {
            current.into()
        };
        status.insert("currentMetrics".into(), current);
        if !conditions.is_empty() {
            status.insert("conditions".into(), conditions.into());
        }
    }
}

/// The flat fields of a `v1` metric: member of the metric, field, and where `v2` has it. `T` stands for the part at
/// hand, `target` or `current`, whose name the field begins with.
const FIELDS: [(&str, &str, &str); 21] = [
    ("resource", "name", "name"),
    ("resource", "TAverageUtilization", "T.averageUtilization"),
    ("resource", "TAverageValue", "T.averageValue"),
    ("containerResource", "name", "name"),
    ("containerResource", "container", "container"),
    ("containerResource", "TAverageUtilization", "T.averageUtilization"),
    ("containerResource", "TAverageValue", "T.averageValue"),
    ("pods", "metricName", "metric.name"),
    ("pods", "selector", "metric.selector"),
    ("pods", "TAverageValue", "T.averageValue"),
    ("object", "target", "describedObject"),
    ("object", "metricName", "metric.name"),
    ("object", "selector", "metric.selector"),
    ("object", "TValue", "T.value"),
    ("object", "averageValue", "T.averageValue"),
    ("external", "metricName", "metric.name"),
    ("external", "metricSelector", "metric.selector"),
    ("external", "TValue", "T.value"),
    ("external", "TAverageValue", "T.averageValue"),
    ("object", "TAverageUtilization", "T.averageUtilization"),
    ("pods", "TAverageUtilization", "T.averageUtilization"),
];

fn names(part: &str) -> impl Iterator<Item = (&'static str, String, String)> {
    FIELDS
        .into_iter()
        .map(move |(member, field, place)| (member, field.replace('T', part), place.replace('T', part)))
}

fn spelled_v1(metric: &Value, part: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (member, field, place) in names(part) {
        let found = crate::table::at(&metric[member], &place).filter(|v| !v.is_null());
        if let Some(found) = found {
            child(&mut out, member)[field] = found.clone();
        }
    }
    out
}

fn spelled_v2(metric: &Value, part: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (member, field, place) in names(part) {
        let found = metric[member].get(&field).filter(|v| !v.is_null());
        if let Some(found) = found {
            crate::scale::set(child(&mut out, member), &place, found.clone());
        }
    }
    // `v1` does not say of which type a target is; the field that is there tells.
    let members = ["resource", "containerResource", "pods", "object", "external"];
    for member in members.into_iter().filter(|_| part == "target") {
        let Some(target) = out
            .get_mut(member)
            .and_then(|m| m.get_mut("target"))
            .filter(|t| t.is_object())
        else {
            continue;
        };
        let has = |key: &str| !target[key].is_null();
        let kind = match () {
            () if has("averageUtilization") => "Utilization",
            () if has("averageValue") => "AverageValue",
            () => "Value",
        };
        target["type"] = kind.into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_nothing_is_lost() {
        let object = json!({
            "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "behavior": {"scaleDown": {"selectPolicy": "Max"}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "r"}, "target": {"type": "Value", "value": "9"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"currentReplicas": 1, "desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}]}});
        let mut shown = object.clone();
        from_v2(&mut shown);
        assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(shown["status"]["currentCPUUtilizationPercentage"], 7);
        assert!(shown["spec"].get("metrics").is_none() && shown["spec"].get("behavior").is_none());
        let mut back = shown.clone();
        to_v2(&mut back);
        assert_eq!(back, object, "{shown}");
    }
}
