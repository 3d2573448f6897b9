//! ControllerRevision: what a StatefulSet or DaemonSet looked like at one time.

use model::Cause;
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::table::{Column, list_at, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions")
        .no_generation()
        .columns(vec![
            Column::computed("Controller", |o, _| controller(o).into()).about("Controller of the object"),
            Column::number("Revision", "revision").about("Counts up with each change."),
            Column::age(),
        ])
        .validate(validate)
}

fn controller(revision: &Value) -> String {
    let owners = list_at(revision, "metadata.ownerReferences");
    let Some(owner) = owners.iter().find(|r| r["controller"] == true) else {
        return "<none>".into();
    };
    let kind = text_at(owner, "kind").to_lowercase();
    match text_at(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text_at(owner, "name")),
        None => format!("{kind}/{}", text_at(owner, "name")),
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut revision = At::new(new, "", wrong);
    if old.is_none() && !revision.has("data") {
        revision.under("data").required("data is mandatory");
    }
    if let Some(old) = old {
        revision.immutable("data", old);
    }
    revision.at_least("revision", 0);
}
