//! HorizontalPodAutoscaler: replicas by load. Stored as `autoscaling/v2`; `autoscaling/v1` shows the CPU target as a
//! field and keeps the rest in annotations, so that nothing is lost on the way there and back.

use model::{Cause, Quantity, text};
use serde_json::{Value, json};

use crate::names::path_segment;
use crate::resource::{Resource, Translation};
use crate::resources::check::At;
use crate::resources::common::{born_with_status, child, default};
use crate::resources::hpa_v1;
use crate::table::{Column, at, list_at, plain, text_at};

/// What the CPU of the pods is held at when no metric is given, in percent of their requests.
const USUAL_CPU: i64 = 80;

const LONGEST_PERIOD: i64 = 1800;
const LONGEST_WINDOW: i64 = 3600;

pub(crate) fn resource() -> Resource {
    face(Resource::namespaced(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    ))
    .prepare(prepare)
    .validate(validate)
    .status_checked(validate_status)
}

pub(crate) fn old_face() -> Resource {
    let translation = Translation {
        to_served: hpa_v1::from_v2,
        to_stored: hpa_v1::to_v2,
    };
    face(Resource::namespaced(
        "autoscaling",
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    ))
    .translated_from(&resource(), translation)
    .prepare(|new, old| {
        born(new, old);
        default(child(new, "spec"), "minReplicas", 1);
    })
    .validate(|new, old, wrong| validate(&in_v2(new), old.map(in_v2).as_ref(), wrong))
    .status_checked(validate_status)
}

fn in_v2(old_form: &Value) -> Value {
    let mut new_form = old_form.clone();
    hpa_v1::to_v2(&mut new_form);
    new_form
}

/// Both faces print the same: a row of `v1` is made from what `v2` says.
fn face(resource: Resource) -> Resource {
    resource
        .no_generation()
        .short(&["hpa"])
        .categories(&["all"])
        .columns(vec![
            Column::computed("Reference", |o, _| {
                let at = |key: &str| text_at(&o["spec"]["scaleTargetRef"], key);
                format!("{}/{}", at("kind"), at("name")).into()
            })
            .about("What is scaled."),
            Column::computed("Targets", |o, _| match text_at(o, "apiVersion") {
                "autoscaling/v1" => targets(&in_v2(o)).into(),
                _ => targets(o).into(),
            })
            .about("Where the metrics are, and where they should be."),
            Column::computed("MinPods", |o, _| {
                at(o, "spec.minReplicas").map_or("<unset>".into(), |n| plain(n).into())
            })
            .about("The fewest replicas."),
            Column::number("MaxPods", "spec.maxReplicas").about("The most replicas."),
            Column::number("Replicas", "status.currentReplicas").about("Replicas that there are."),
            Column::age(),
        ])
}

fn born(new: &mut Value, old: Option<&Value>) {
    born_with_status(new, old);
    if old.is_none() {
        new["status"]["desiredReplicas"] = 0.into();
    }
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    born(new, old);
    if old.is_none() {
        new["status"]["currentMetrics"] = Value::Null;
    }
    let spec = child(new, "spec");
    default(spec, "minReplicas", 1);
    if list_at(spec, "metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": USUAL_CPU});
        spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    }
    if let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) {
        let double = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let four = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let up = child(behavior, "scaleUp");
        default(up, "stabilizationWindowSeconds", 0);
        default(up, "selectPolicy", "Max");
        default(up, "policies", json!([four, double]));
        let down = child(behavior, "scaleDown");
        default(down, "selectPolicy", "Max");
        default(down, "policies", json!([double]));
    }
}

/// The member of a metric that its type names.
fn member(kind: &str) -> &'static str {
    match kind {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => "",
    }
}

const MEMBERS: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

fn targets(hpa: &Value) -> String {
    let current = list_at(hpa, "status.currentMetrics");
    let all = list_at(hpa, "spec.metrics");
    if all.is_empty() {
        return "<none>".into();
    }
    // Two are shown, and how many more there are.
    let shown: Vec<String> = all
        .iter()
        .enumerate()
        .take(2)
        .map(|(i, metric)| target(metric, current.get(i)))
        .collect();
    match all.len() {
        n if n > 2 => format!("{} + {} more...", shown.join(", "), n - 2),
        _ => shown.join(", "),
    }
}

fn target(metric: &Value, now: Option<&Value>) -> String {
    let kind = text_at(metric, "type");
    let member = member(kind);
    let wanted = &metric[member]["target"];
    let current = |key: &str| {
        now.and_then(|now| now[member]["current"].get(key))
            .filter(|v| !v.is_null())
            .map(plain)
    };
    let unknown = || "<unknown>".to_owned();
    let average = wanted.get("averageValue").filter(|v| !v.is_null());
    match (kind, average) {
        ("Pods", Some(average)) => {
            format!("{}/{}", current("averageValue").unwrap_or_else(unknown), plain(average))
        }
        ("Object" | "External", Some(average)) => {
            format!(
                "{}/{} (avg)",
                current("averageValue").unwrap_or_else(unknown),
                plain(average)
            )
        }
        ("Object" | "External", None) => {
            format!(
                "{}/{}",
                current("value").unwrap_or_else(unknown),
                plain(&wanted["value"])
            )
        }
        ("Resource" | "ContainerResource", Some(average)) => {
            let name = text_at(&metric[member], "name");
            format!(
                "{name}: {}/{}",
                current("averageValue").unwrap_or_else(unknown),
                plain(average)
            )
        }
        ("Resource" | "ContainerResource", None) => {
            let name = text_at(&metric[member], "name");
            let percent = current("averageUtilization").map_or_else(unknown, |n| format!("{n}%"));
            let wanted = match &wanted["averageUtilization"] {
                Value::Null => "<auto>".to_owned(),
                n => format!("{n}%"),
            };
            format!("{name}: {percent}/{wanted}")
        }
        _ => "<unknown type>".into(),
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    let (least, most) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or(0));
    // Scaling to zero is behind a feature gate that is off; what was stored with it stays valid.
    let lowest = i64::from(old.is_none_or(|old| old["spec"]["minReplicas"] != 0));
    spec.at_least("minReplicas", lowest);
    match most {
        0 => spec.under("maxReplicas").required("must be set and greater than 0"),
        ..0 => spec.under("maxReplicas").invalid("must be greater than or equal to 1"),
        _ => {}
    }
    if least.is_some_and(|least| most < least) {
        let says = "must be greater than or equal to `minReplicas`";
        let cause = Cause::invalid(spec.path_of("maxReplicas"), most, says);
        spec.push(cause);
    }
    reference(spec.under("scaleTargetRef"));
    spec.each("metrics", metric);
    let outside = |metric: &Value| matches!(text_at(metric, "type"), "Object" | "External");
    if least == Some(0) && !spec.list("metrics").iter().any(outside) {
        let says = "must specify at least one Object or External metric to support scaling to zero replicas";
        spec.under("metrics").forbidden(says);
    }
    for way in ["behavior.scaleUp", "behavior.scaleDown"] {
        if spec.has(way) {
            rules(spec.under(way));
        }
    }
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut status = At::new(&new["status"], "status", wrong);
    status.at_least("currentReplicas", 0);
    status.at_least("desiredReplicas", 0);
}

fn reference(mut to: At<'_, '_>) {
    to.need_fit("kind", path_segment);
    to.need_fit("name", path_segment);
    let version = to.text("apiVersion");
    // The old objects of the core group are the only ones without one.
    if to.text("kind") != "ReplicationController" && !version.contains('/') {
        let says = "apiVersion must specify API group";
        let cause = Cause::invalid(to.path_of("apiVersion"), format!("{version:?}"), says);
        to.push(cause);
    }
}

fn metric(mut metric: At<'_, '_>) {
    let kind = metric.text("type");
    let expected = member(kind);
    if kind.is_empty() {
        metric.under("type").required("must specify a metric source type");
    }
    if expected.is_empty() {
        metric.under("type").not_supported(&TYPES);
    }
    let given: Vec<&str> = MEMBERS.into_iter().filter(|m| metric.has(m)).collect();
    if let Some(first) = given.first() {
        source(metric.under(first), first);
    }
    if !expected.is_empty() && !metric.has(expected) {
        metric
            .under(expected)
            .required("must populate information for the given metric source");
    }
    if given.len() != 1 {
        for other in given.iter().filter(|m| **m != expected) {
            metric
                .under(other)
                .forbidden("must populate the given metric source only");
        }
    }
}

fn source(mut source: At<'_, '_>, kind: &str) {
    match kind {
        "object" => {
            let mut object = source.under("describedObject");
            object.need_fit("kind", path_segment);
            object.need_fit("name", path_segment);
            identifier(&mut source);
        }
        "external" | "pods" => identifier(&mut source),
        "resource" => {
            source.need("name", "must specify a resource name");
        }
        _ => {
            source.need("name", "must specify a resource name");
            if source.need("container", "must specify a container") {
                source.under("container").fits(text::dns1123_label);
            }
        }
    }
    let mut target = source.under("target");
    if target.text("type").is_empty() {
        target.under("type").required("must specify a metric target type");
    }
    if !matches!(target.text("type"), "Utilization" | "Value" | "AverageValue") {
        let cause = Cause::invalid(
            target.path_of("type"),
            format!("{:?}", target.text("type")),
            "must be either Utilization, Value, or AverageValue",
        );
        target.push(cause);
    }
    for key in ["value", "averageValue"] {
        if !target.has(key) {
            continue;
        }
        let mut amount = target.under(key);
        if amount.quantity().is_some_and(|q| q <= Quantity::default()) {
            amount.invalid("must be positive");
        }
    }
    if target.int("averageUtilization").is_some_and(|n| n < 1) {
        target.under("averageUtilization").invalid("must be greater than 0");
    }
    let (value, average, share) = (
        target.has("value"),
        target.has("averageValue"),
        target.has("averageUtilization"),
    );
    match kind {
        "object" if !value && !average => target
            .under("averageValue")
            .required("must set either a target value or averageValue"),
        "external" if !value && !average => target
            .under("averageValue")
            .required("must set either a target value for metric or a per-pod target"),
        "external" if value && average => target
            .under("value")
            .forbidden("may not set both a target value for metric and a per-pod target"),
        "pods" if !average => target
            .under("averageValue")
            .required("must specify a positive target averageValue"),
        "resource" | "containerResource" if !share && !average => target
            .under("averageUtilization")
            .required("must set either a target raw value or a target utilization"),
        "resource" | "containerResource" if share && average => target
            .under("averageValue")
            .forbidden("may not set both a target raw value and a target utilization"),
        _ => {}
    }
}

fn identifier(source: &mut At<'_, '_>) {
    if source.text("metric.name").is_empty() {
        source.under("metric.name").required("must specify a metric name");
    } else {
        source.under("metric.name").fits(path_segment);
    }
}

fn rules(mut rules: At<'_, '_>) {
    match rules.int("stabilizationWindowSeconds") {
        Some(..0) => rules
            .under("stabilizationWindowSeconds")
            .invalid("must be greater than or equal to zero"),
        Some(seconds) if seconds > LONGEST_WINDOW => rules
            .under("stabilizationWindowSeconds")
            .invalid(&format!("must be less than or equal to {LONGEST_WINDOW}")),
        _ => {}
    }
    rules.may_be_one_of("selectPolicy", &["Disabled", "Max", "Min"]);
    if rules.list("policies").is_empty() {
        rules.under("policies").required("must specify at least one Policy");
    }
    rules.each("policies", |mut policy| {
        if !matches!(policy.text("type"), "Pods" | "Percent") {
            policy.under("type").not_supported(&["Percent", "Pods"]);
        }
        for key in ["value", "periodSeconds"] {
            let value = policy.int(key).unwrap_or(0);
            if value <= 0 {
                let cause = Cause::invalid(policy.path_of(key), value, "must be greater than zero");
                policy.push(cause);
            }
        }
        if policy.int("periodSeconds").is_some_and(|s| s > LONGEST_PERIOD) {
            policy
                .under("periodSeconds")
                .invalid(&format!("must be less than or equal to {LONGEST_PERIOD}"));
        }
    });
    if rules.has("tolerance") {
        rules.under("tolerance").quantity_not_negative();
    }
}
