//! ResourceQuota: how much a namespace may hold in all. The quota controller and the registry's charges keep `status`.

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::born_with_status;
use crate::table::{Column, at, plain};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .no_generation()
        .columns(vec![
            Column::computed("Request", |o, _| used(o, false).into())
                .about("What of the allowed requests and counts is used."),
            Column::computed("Limit", |o, _| used(o, true).into()).about("What of the allowed limits is used."),
            Column::age(),
        ])
        .prepare(born_with_status)
        .validate(validate)
        .status_checked(validate_status)
}

fn used(quota: &Value, limits: bool) -> String {
    let mut parts = Vec::new();
    for (name, hard) in at(quota, "status.hard")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if name.starts_with("limits.") == limits {
            let used = at(quota, "status.used").and_then(|u| u.get(name));
            parts.push(format!("{name}: {}/{}", used.map_or("0".into(), plain), plain(hard)));
        }
    }
    parts.join(", ")
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.entries("hard", |name, mut amount| hard(name, &mut amount));
    spec.each("scopes", |mut scope| {
        if !SCOPES.contains(&scope.value.as_str().unwrap_or_default()) {
            scope.invalid("unsupported scope");
        }
    });
    let has = |name: &str| {
        spec.value["scopes"]
            .as_array()
            .is_some_and(|s| s.iter().any(|s| s == name))
    };
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            let cause = Cause::invalid("spec.scopes", &spec.value["scopes"], "conflicting scopes");
            spec.push(cause);
            break;
        }
    }
    spec.each("scopeSelector.matchExpressions", |mut rule| {
        let (scope, operator) = (rule.text("scopeName"), rule.text("operator"));
        if !SCOPES.contains(&scope) {
            rule.under("scopeName").invalid("unsupported scope");
        }
        match operator {
            "In" | "NotIn" if rule.list("values").is_empty() => rule
                .under("values")
                .required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            "Exists" | "DoesNotExist" if !rule.list("values").is_empty() => {
                let says = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                rule.under("values").invalid(says);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => rule.under("operator").invalid("not a valid selector operator"),
        }
        let by_value = matches!(scope, "PriorityClass" | "VolumeAttributesClass" | "CrossNamespacePodAffinity");
        if !by_value && operator != "Exists" {
            let says = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            rule.under("operator").invalid(says);
        }
    });
    if let Some(old) = old {
        spec.immutable("scopes", &old["spec"]);
    }
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut status = At::new(&new["status"], "status", wrong);
    for map in ["hard", "used"] {
        status.entries(map, |name, mut amount| hard(name, &mut amount));
    }
}

/// What may be counted without a prefix of its own.
const STANDARD: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

fn hard(name: &str, amount: &mut At<'_, '_>) {
    let mut complaints = text::qualified_name(name);
    let prefixed = name.contains('/') || name.starts_with("requests.hugepages-") || name.starts_with("hugepages-");
    if complaints.is_empty() && !prefixed && !STANDARD.contains(&name) {
        complaints.push("must be a standard resource type or fully qualified".into());
        complaints.push("must be a standard resource for quota".into());
    }
    for complaint in complaints {
        let cause = Cause::invalid(amount.path().to_owned(), format!("{name:?}"), &complaint);
        amount.push(cause);
    }
    amount.quantity_not_negative();
}
