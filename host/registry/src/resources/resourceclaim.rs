//! ResourceClaim and ResourceClaimTemplate: a wish for devices (KEP-4381). The scheduler writes the allocation into
//! `status`; what was asked for cannot change.

use model::{Cause, text};
use serde_json::Value;

use crate::names::{validate_annotations, validate_labels};
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{born_with_status, each_mut};
use crate::resources::csidriver::driver_name;
use crate::table::{Column, int_at, list_at, text_at};

const MOST_REQUESTS: usize = 32;
const MOST_CONSTRAINTS: usize = 32;
pub(crate) const MOST_CONFIGS: usize = 32;
const MOST_SELECTORS: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
const MOST_TOLERATIONS: usize = 16;
const MOST_CONSUMERS: usize = 256;
const LONGEST_EXPRESSION: usize = 10 * 1024;

pub(crate) fn resource() -> Resource {
    Resource::namespaced("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
        .no_generation()
        .columns(vec![
            Column::computed("State", |o, _| state(o).into())
                .about("A summary of the current state (allocated, pending, reserved, etc.)."),
            Column::age(),
        ])
        .prepare(|new, old| {
            born_with_status(new, old);
            fill_in(&mut new["spec"]);
        })
        .validate(|new, old, wrong| match old {
            Some(old) => At::new(new, "", wrong).immutable("spec", old),
            None => devices(At::new(&new["spec"]["devices"], "spec.devices", wrong)),
        })
        .status_checked(validate_status)
}

pub(crate) fn template() -> Resource {
    Resource::namespaced(
        "resource.k8s.io",
        "v1",
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
    )
    .no_generation()
    .columns(vec![Column::age()])
    .prepare(|new, _| {
        if let Some(spec) = new.pointer_mut("/spec/spec") {
            fill_in(spec);
        }
    })
    .validate(|new, old, wrong| {
        if let Some(old) = old {
            return At::new(new, "", wrong).immutable("spec", old);
        }
        let metadata = &new["spec"]["metadata"];
        validate_labels(metadata.get("labels"), "spec.metadata.labels", wrong);
        validate_annotations(metadata.get("annotations"), "spec.metadata.annotations", wrong);
        devices(At::new(&new["spec"]["spec"]["devices"], "spec.spec.devices", wrong));
    })
}

fn state(claim: &Value) -> String {
    let mut words = Vec::new();
    if !claim["metadata"]["deletionTimestamp"].is_null() {
        words.push("deleted");
    }
    if claim["status"]["allocation"].is_null() {
        if words.is_empty() {
            words.push("pending");
        }
    } else {
        words.push("allocated");
        if !list_at(claim, "status.reservedFor").is_empty() {
            words.push("reserved");
        }
    }
    words.join(",")
}

/// One device, unless the request says otherwise.
fn fill_in(spec: &mut Value) {
    let one = |request: &mut Value| {
        if text_at(request, "allocationMode").is_empty() {
            request["allocationMode"] = "ExactCount".into();
        }
        if request["allocationMode"] == "ExactCount" && int_at(request, "count") == 0 {
            request["count"] = 1.into();
        }
    };
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in each_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| e.is_object()) {
            one(exactly);
        }
        each_mut(request, "firstAvailable").for_each(one);
    }
}

/// What is asked for, anywhere a claim's `devices` stand.
fn devices(mut devices: At<'_, '_>) {
    let names = request_names(devices.value);
    let mut limit = |key: &str, most: usize| {
        let count = devices.list(key).len();
        if count > most {
            devices.under(key).too_many(count, most);
        }
    };
    limit("requests", MOST_REQUESTS);
    limit("constraints", MOST_CONSTRAINTS);
    limit("config", MOST_CONFIGS);
    let mut seen: Vec<&str> = Vec::new();
    devices.each("requests", |mut request| {
        let name = request.text("name");
        request.need_fit("name", text::dns1123_label);
        if seen.contains(&name) {
            request.duplicate();
        }
        seen.push(name);
        let alternatives = request.list("firstAvailable").len();
        let one = "exactly one of `exactly` or `firstAvailable` is required";
        match (request.has("exactly"), alternatives) {
            (false, 0) => request.required(one),
            (true, 0) => exact(&mut request.under("exactly")),
            (true, _) => {
                let cause = Cause::invalid(request.path(), "null", &format!("{one}, but multiple fields are set"));
                request.push(cause);
            }
            (false, _) => {
                if alternatives > MOST_ALTERNATIVES {
                    request
                        .under("firstAvailable")
                        .too_many(alternatives, MOST_ALTERNATIVES);
                }
                let mut seen: Vec<&str> = Vec::new();
                request.each("firstAvailable", |mut sub| {
                    let name = sub.text("name");
                    sub.need_fit("name", text::dns1123_label);
                    if seen.contains(&name) {
                        sub.duplicate();
                    }
                    seen.push(name);
                    exact(&mut sub);
                });
            }
        }
    });
    devices.each("constraints", |mut constraint| {
        references(&mut constraint, &names);
        match (constraint.has("matchAttribute"), constraint.has("distinctAttribute")) {
            (true, _) => constraint.under("matchAttribute").fits(full_name),
            (_, true) => constraint.under("distinctAttribute").fits(full_name),
            _ => constraint.required(
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            ),
        }
    });
    devices.each("config", |mut config| {
        references(&mut config, &names);
        configuration(&mut config);
    });
}

/// Names of requests, and of their alternatives: `gpu`, `gpu/big`.
fn request_names(devices: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for request in list_at(devices, "requests") {
        let name = text_at(request, "name");
        names.push(name.to_owned());
        for sub in list_at(request, "firstAvailable") {
            names.push(format!("{name}/{}", text_at(sub, "name")));
        }
    }
    names
}

fn references(of: &mut At<'_, '_>, names: &[String]) {
    let mut seen: Vec<&Value> = Vec::new();
    of.each("requests", |mut name| {
        let known = names.iter().any(|n| name.value == n.as_str());
        if !known {
            name.invalid(
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            );
        }
        if seen.contains(&name.value) {
            name.duplicate();
        }
        seen.push(name.value);
    });
}

fn exact(request: &mut At<'_, '_>) {
    request.need_fit("deviceClassName", text::dns1123_subdomain);
    selectors(request);
    let count = request.int("count").unwrap_or(0);
    let says = |what: &str| Cause::invalid(request.path_of("count"), count, what);
    match request.text("allocationMode") {
        "All" if count != 0 => {
            let cause = says("must not be specified when allocationMode is 'All'");
            request.push(cause);
        }
        "ExactCount" if count <= 0 => {
            let cause = says("must be greater than zero");
            request.push(cause);
        }
        "All" | "ExactCount" => {}
        _ => request.under("allocationMode").not_supported(&["All", "ExactCount"]),
    }
    let tolerations = request.list("tolerations").len();
    if tolerations > MOST_TOLERATIONS {
        request.under("tolerations").too_many(tolerations, MOST_TOLERATIONS);
    }
    request.each("tolerations", |mut toleration| {
        toleration.may_fit("key", text::qualified_name);
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        match operator {
            "Exists" if !toleration.text("value").is_empty() => {
                toleration.under("value").invalid("must be empty for operator `Exists`")
            }
            "Exists" => {}
            "Equal" => toleration.under("value").fits(text::label_value),
            _ => toleration.under("operator").not_supported(&["Equal", "Exists"]),
        }
        if key.is_empty() && operator == "Equal" {
            toleration.under("key").required("");
        }
        toleration.may_be_one_of("effect", &["NoExecute", "NoSchedule", "None"]);
    });
    request.entries("capacity.requests", |_, mut amount| amount.must_be_quantity());
}

/// Expressions that a device must satisfy.
pub(crate) fn selectors(of: &mut At<'_, '_>) {
    let count = of.list("selectors").len();
    if count > MOST_SELECTORS {
        of.under("selectors").too_many(count, MOST_SELECTORS);
    }
    of.each("selectors", |mut selector| {
        if !selector.has("cel") {
            return selector.under("cel").required("");
        }
        let expression = selector.text("cel.expression");
        if expression.trim().is_empty() {
            selector.under("cel.expression").required("");
        } else if expression.len() > LONGEST_EXPRESSION {
            selector.under("cel.expression").too_long(LONGEST_EXPRESSION);
        }
    });
}

/// Words for a driver that the cluster does not read.
pub(crate) fn configuration(config: &mut At<'_, '_>) {
    if !config.has("opaque") {
        return config.under("opaque").required("");
    }
    let mut opaque = config.under("opaque");
    opaque.with("driver", driver_name);
    match opaque.value.get("parameters") {
        None | Some(Value::Null) => opaque.under("parameters").required(""),
        Some(Value::Object(_)) => {
            if opaque.value["parameters"].to_string().len() > LONGEST_EXPRESSION {
                opaque.under("parameters").too_long(LONGEST_EXPRESSION);
            }
        }
        Some(_) => opaque.under("parameters").invalid("must be a valid JSON object"),
    }
}

/// `domain/name`, the name an identifier of C.
pub(crate) fn full_name(name: &str) -> Vec<String> {
    match name.split_once('/') {
        None => vec!["a fully qualified name must be a domain and a name separated by a slash".into()],
        Some((domain, id)) => {
            let mut complaints = text::dns1123_subdomain(domain);
            complaints.extend(identifier(id));
            complaints
        }
    }
}

/// A name of an attribute or capacity: an identifier, with or without the domain it belongs to.
pub(crate) fn attribute_name(name: &str) -> Vec<String> {
    match name.contains('/') {
        true => full_name(name),
        false => identifier(name),
    }
}

fn identifier(id: &str) -> Vec<String> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = !id.is_empty() && !id.starts_with(|c: char| c.is_ascii_digit()) && id.bytes().all(letters);
    if fits && id.len() <= 32 {
        return Vec::new();
    }
    vec!["a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')".into()]
}

fn validate_status(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut status = At::new(&new["status"], "status", wrong);
    let consumers = status.list("reservedFor").len();
    if consumers > MOST_CONSUMERS {
        status.under("reservedFor").too_many(consumers, MOST_CONSUMERS);
    }
    let mut seen: Vec<&str> = Vec::new();
    status.each("reservedFor", |mut consumer| {
        for key in ["resource", "name", "uid"] {
            consumer.need(key, "");
        }
        if seen.contains(&consumer.text("uid")) {
            consumer.duplicate();
        }
        seen.push(consumer.text("uid"));
    });
    if consumers > 0 && !status.has("allocation") {
        status
            .under("reservedFor")
            .forbidden("may not be specified when `allocated` is not set");
    }
    let before = old.map(|o| &o["status"]).unwrap_or(&Value::Null);
    if status.has("allocation") && !before["allocation"].is_null() {
        return status.immutable("allocation", before);
    }
    let names = request_names(&new["spec"]["devices"]);
    status.each("allocation.devices.results", |mut result| {
        let known = names.iter().any(|n| result.text("request") == n);
        if !known {
            result.under("request").invalid(
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            );
        }
        result.with("driver", driver_name);
        result.need("pool", "");
        result.need_fit("device", text::dns1123_label);
    });
    status.each("allocation.devices.config", |mut config| {
        config.one_of("source", &["FromClaim", "FromClass"]);
        configuration(&mut config);
    });
}
