//! What Deployment, ReplicaSet, StatefulSet, DaemonSet and Job have in common: a template of pods and a selector.

use model::{Cause, Selector};
use serde_json::{Value, json};

use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::resources::pod;
use crate::resources::{pod_check, pod_spec};
use crate::table::{Column, at, selector};

/// The template's pod spec, filled in.
pub(crate) fn default_template(object: &mut Value) {
    let template = child(child(object, "spec"), "template");
    pod_spec::default_spec(child(template, "spec"));
}

/// `status: {}` on creation; what the kind's own defaults add to the spec.
pub(crate) fn prepare(new: &mut Value, old: Option<&Value>, defaults: &[(&str, Value)]) {
    if old.is_none() {
        new["status"] = json!({});
    }
    default_template(new);
    let spec = child(new, "spec");
    for (key, value) in defaults {
        default(spec, key, value.clone());
    }
}

/// Selector and template: both there, and each fitting the other. `what` names the kind in the complaint about an empty
/// selector.
pub(crate) fn validate(new: &Value, old: Option<&Value>, what: &str, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.at_least("replicas", 0);
    spec.at_least("minReadySeconds", 0);
    let template = &spec.value["template"];
    if !spec.has("selector") {
        spec.under("selector").required("");
    }
    spec.selector("selector");
    match Selector::from_json(&spec.value["selector"]) {
        Ok(parsed) if parsed.is_everything() => {
            let says = format!("empty selector is invalid for {what}");
            spec.under("selector").invalid(&says);
        }
        Ok(parsed) => template_matches(&mut spec, &parsed),
        Err(_) => spec.under("selector").invalid("invalid label selector"),
    }
    if let Some(old) = old {
        spec.immutable("selector", &old["spec"]);
    }
    pod_check::validate_template(template, "spec.template", &["Always"], wrong);
}

/// The template's labels are those that the selector looks for.
pub(crate) fn template_matches(spec: &mut At<'_, '_>, selector: &Selector) {
    let labels = at(spec.value, "template.metadata.labels");
    let found = labels.and_then(Value::as_object).into_iter().flatten();
    let found = found.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect();
    if !selector.matches(&found) {
        let says = "`selector` does not match template `labels`";
        let field = spec.path_of("template.metadata.labels");
        spec.push(Cause::invalid(field, labels.unwrap_or(&Value::Null), says));
    }
}

/// CONTAINERS, IMAGES and SELECTOR of `-o wide`.
pub(crate) fn wide() -> Vec<Column> {
    let mut columns = containers();
    columns.push(Column::computed("Selector", |o, _| selector(o["spec"].get("selector")).into()).wide());
    columns
}

/// CONTAINERS and IMAGES of `-o wide`.
pub(crate) fn containers() -> Vec<Column> {
    vec![
        Column::computed("Containers", |o, _| pod::containers(&o["spec"]["template"]).into())
            .wide()
            .about("Names of each container in the template."),
        Column::computed("Images", |o, _| pod::images(&o["spec"]["template"]).into())
            .wide()
            .about("Images referenced by each container in the template."),
    ]
}

/// Counts of a status: none below zero.
pub(crate) fn validate_counts(object: &Value, counts: &[&str], wrong: &mut Vec<Cause>) {
    let mut status = At::new(&object["status"], "status", wrong);
    for count in counts {
        status.at_least(count, 0);
    }
}

/// `status.replicas` and its parts: none below zero, none above the whole.
pub(crate) fn validate_replicas(object: &Value, parts: &[&str], wrong: &mut Vec<Cause>) {
    let mut status = At::new(&object["status"], "status", wrong);
    status.at_least("replicas", 0);
    for part in parts {
        status.at_least(part, 0);
    }
    status.at_least("observedGeneration", 0);
    let whole = status.int("replicas").unwrap_or(0);
    for part in parts {
        let count = status.int(part).unwrap_or(0);
        if count > whole {
            let cause = Cause::invalid(status.path_of(part), count, "cannot be greater than status.replicas");
            status.push(cause);
        }
    }
}
