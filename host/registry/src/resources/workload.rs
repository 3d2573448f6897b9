//! What Deployment, ReplicaSet, StatefulSet, DaemonSet and Job have in common: a template of pods and a selector.

use model::{Cause, Selector};
use serde_json::{Value, json};

use crate::resources::common::{child, default, immutable, not_negative};
use crate::resources::pod;
use crate::resources::{pod_check, pod_spec};
use crate::table::{Column, at, selector};

/// The template's pod spec, filled in.
pub(crate) fn default_template(object: &mut Value) {
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        pod_spec::default_spec(spec);
    }
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

/// Selector and template: both there, and each fitting the other.
pub(crate) fn validate(new: &Value, old: Option<&Value>, restart: &[&str], wrong: &mut Vec<Cause>) {
    not_negative(new, "spec.replicas", wrong);
    not_negative(new, "spec.minReadySeconds", wrong);
    let given = &new["spec"]["selector"];
    let template = &new["spec"]["template"];
    if given.is_null() {
        wrong.push(Cause::required("spec.selector", ""));
    } else {
        match Selector::from_json(given) {
            Ok(parsed) if parsed.is_everything() => {
                wrong.push(Cause::invalid(
                    "spec.selector",
                    given,
                    "empty selector is invalid for this kind",
                ));
            }
            Ok(parsed) => {
                let labels = at(template, "metadata.labels").and_then(Value::as_object);
                let labels = labels
                    .into_iter()
                    .flatten()
                    .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
                    .collect();
                if !parsed.matches(&labels) {
                    let field = "spec.template.metadata.labels";
                    let shown = at(template, "metadata.labels").cloned().unwrap_or(json!({}));
                    wrong.push(Cause::invalid(
                        field,
                        shown,
                        "`selector` does not match template `labels`",
                    ));
                }
            }
            Err(failure) => wrong.push(Cause::invalid("spec.selector", given, &failure.to_string())),
        }
    }
    immutable(new, old, "spec.selector", wrong);
    pod_check::validate_template(template, "spec.template", restart, wrong);
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
