//! APIService: who serves a group and version: this server, or an extension server behind a Service.

use model::{Cause, text};
use serde_json::{Value, json};

use crate::names::NameRule;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{born_with_status, default};
use crate::table::{Column, list_at, text_at};

pub(crate) fn resource() -> Resource {
    Resource::cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .categories(&["api-extensions"])
        .no_generation()
        .names(NameRule::PathSegment)
        .stored_under("/registry/apiregistration.k8s.io/apiservices/")
        .columns(vec![
            Column::computed("Service", |o, _| match text_at(o, "spec.service.name") {
                "" => "Local".into(),
                name => format!("{}/{name}", text_at(o, "spec.service.namespace")).into(),
            })
            .about("The Service that leads to the extension server."),
            Column::computed("Available", |o, _| available(o).into()).about("Whether it answers."),
            Column::age(),
        ])
        .prepare(|new, old| {
            born_with_status(new, old);
            if let Some(service) = new.pointer_mut("/spec/service").filter(|s| s.is_object()) {
                default(service, "port", 443);
            }
            // What this server serves itself is always there.
            if old.is_none() && new["spec"]["service"].is_null() {
                new["status"] = json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
                    "message": "Local APIServices are always available"}]});
            }
        })
        .stamp(|new, _, now| {
            for condition in new
                .pointer_mut("/status/conditions")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                default(condition, "lastTransitionTime", model::time::seconds(now));
            }
        })
        .validate(validate)
        .status_checked(|new, _, wrong| {
            At::new(&new["status"], "status", wrong).each("conditions", |mut condition| {
                if !matches!(condition.text("status"), "True" | "False" | "Unknown") {
                    condition.under("status").not_supported(&["True", "False", "Unknown"]);
                }
            });
        })
}

fn available(service: &Value) -> String {
    let found = list_at(service, "status.conditions")
        .iter()
        .find(|c| c["type"] == "Available");
    found.map_or("Unknown".into(), |c| match text_at(c, "status") {
        "True" => "True".into(),
        status => format!("{status} ({})", text_at(c, "reason")),
    })
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut whole = At::new(new, "", wrong);
    let (group, version) = (whole.text("spec.group"), whole.text("spec.version"));
    let name = format!("{version}.{group}");
    if whole.text("metadata.name") != name {
        let says = format!("must be `spec.version+\".\"+spec.group`: {name:?}");
        whole.under("metadata.name").invalid(&says);
    }
    let mut spec = whole.under("spec");
    if group.is_empty() && version != "v1" {
        spec.under("group")
            .required("only v1 may have an empty group and it better be legacy kube");
    }
    spec.may_fit("group", text::dns1123_subdomain);
    spec.under("version").fits(text::dns1035_label);
    for (key, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let value = spec.int(key).unwrap_or(0);
        if !(1..=most).contains(&value) {
            let says = format!("must be positive and less than {most}");
            let cause = Cause::invalid(spec.path_of(key), value, &says);
            spec.push(cause);
        }
    }
    if !spec.has("service") {
        if !spec.text("caBundle").is_empty() {
            let field = spec.path_of("caBundle");
            spec.push(Cause::invalid(
                field,
                "0 bytes",
                "local APIServices may not have a caBundle",
            ));
        }
        if spec.value["insecureSkipTLSVerify"] == true {
            spec.under("insecureSkipTLSVerify")
                .invalid("local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    if spec.value["insecureSkipTLSVerify"] == true && !spec.text("caBundle").is_empty() {
        spec.under("insecureSkipTLSVerify")
            .invalid("may not be true if caBundle is present");
    }
    let mut service = spec.under("service");
    service.need("namespace", "");
    service.need("name", "");
    let port = service.int("port").unwrap_or(0);
    if !(1..=65535).contains(&port) {
        let says = "port is not valid: must be between 1 and 65535, inclusive";
        let cause = Cause::invalid(service.path_of("port"), port, says);
        service.push(cause);
    }
}
