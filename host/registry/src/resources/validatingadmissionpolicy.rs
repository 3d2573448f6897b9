//! ValidatingAdmissionPolicy and its binding: expressions that every write must satisfy, and where.

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::admission::{default_match, match_resources, param_ref, policy};
use crate::resources::check::At;
use crate::resources::common::{born_with_status, child, default};
use crate::table::{Column, list_at, text_at};

const GROUP: &str = "admissionregistration.k8s.io";

const MOST_ANNOTATIONS: usize = 20;
const LONGEST_ANNOTATION: usize = 5 * 1024;

pub(crate) const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub(crate) fn resource() -> Resource {
    Resource::cluster(GROUP, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
        .categories(&["api-extensions"])
        .columns(vec![
            Column::counted("Validations", |o, _| list_at(o, "spec.validations").len().into())
                .about("Validations indicates the number of validation rules defined in this configuration"),
            param_kind_column(),
            Column::age(),
        ])
        .prepare(|new, old| {
            born_with_status(new, old);
            default_policy(new);
        })
        .conditional_updates()
        .validate(validate)
        .status_checked(|new, _, wrong| {
            super::common::conditions(&new["status"]["conditions"], "status.conditions", wrong)
        })
}

pub(crate) fn binding() -> Resource {
    Resource::cluster(
        GROUP,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    )
    .categories(&["api-extensions"])
    .columns(binding_columns())
    .prepare(|new, _| default_binding(new))
    .conditional_updates()
    .validate(validate_binding)
}

pub(crate) fn param_kind_column() -> Column {
    Column::computed("ParamKind", |o, _| match text_at(o, "spec.paramKind.kind") {
        "" => "<unset>".into(),
        kind => format!("{}/{kind}", text_at(o, "spec.paramKind.apiVersion")).into(),
    })
    .about("ParamKind specifies the kind of resources used to parameterize this policy")
}

pub(crate) fn binding_columns() -> Vec<Column> {
    vec![
        Column::text_or("PolicyName", "spec.policyName", "")
            .about("PolicyName indicates the policy definition which the policy binding binded to"),
        Column::computed("ParamRef", |o, _| {
            let of = &o["spec"]["paramRef"];
            match (text_at(of, "namespace"), text_at(of, "name")) {
                _ if of.is_null() => "<unset>".into(),
                (_, "") => "*".into(),
                ("", name) => format!("*/{name}").into(),
                (namespace, name) => format!("{namespace}/{name}").into(),
            }
        })
        .about("ParamRef indicates the param resource which sets the configuration param"),
        Column::age(),
    ]
}

pub(crate) fn default_policy(new: &mut Value) {
    let spec = child(new, "spec");
    default(spec, "failurePolicy", "Fail");
    if let Some(constraints) = spec.get_mut("matchConstraints").filter(|c| c.is_object()) {
        default_match(constraints);
    }
}

pub(crate) fn default_binding(new: &mut Value) {
    if let Some(resources) = new.pointer_mut("/spec/matchResources").filter(|r| r.is_object()) {
        default_match(resources);
    }
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    policy(&mut spec, &OPERATIONS);
    let annotations = spec.list("auditAnnotations").len();
    if spec.list("validations").is_empty() && annotations == 0 {
        let says = "validations or auditAnnotations must contain at least one item";
        spec.under("validations").required(says);
        spec.under("auditAnnotations").required(says);
        return;
    }
    spec.each("validations", |mut rule| {
        if rule.text("expression").trim().is_empty() {
            rule.under("expression").required("expression is not specified");
        }
        for key in ["messageExpression", "message"] {
            if !rule.text(key).is_empty() && rule.text(key).trim().is_empty() {
                rule.under(key).invalid("must be non-empty if specified");
            }
        }
        if rule.text("message").trim().contains(['\n', '\r']) {
            rule.under("message").invalid("must not contain line breaks");
        }
        rule.may_be_one_of("reason", &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
    });
    if annotations > MOST_ANNOTATIONS {
        let says = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        spec.under("auditAnnotations").invalid(&says);
    }
    let mut keys: Vec<&str> = Vec::new();
    let name = text_at(new, "metadata.name");
    spec.each("auditAnnotations", |mut annotation| {
        let key = annotation.text("key");
        annotation
            .under("key")
            .fits(|key| text::qualified_name(&format!("{name}/{key}")));
        match annotation.text("valueExpression").trim().len() {
            0 => annotation
                .under("valueExpression")
                .required("valueExpression is not specified"),
            long if long > LONGEST_ANNOTATION => annotation
                .under("valueExpression")
                .required(&format!("must not exceed {LONGEST_ANNOTATION} bytes in length")),
            _ => {}
        }
        if keys.contains(&key) {
            annotation.under("key").duplicate();
        }
        keys.push(key);
    });
}

fn validate_binding(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.need_fit("policyName", text::dns1123_subdomain);
    param_ref(spec.under("paramRef"));
    match_resources(spec.under("matchResources"), &OPERATIONS);
    let actions = spec.list("validationActions");
    let mut seen: Vec<&Value> = Vec::new();
    spec.each("validationActions", |mut action| {
        let known = ["Audit", "Deny", "Warn"];
        if !known.contains(&action.value.as_str().unwrap_or_default()) {
            action.not_supported(&known);
        }
        if seen.contains(&action.value) {
            action.duplicate();
        }
        seen.push(action.value);
    });
    let has = |name: &str| actions.iter().any(|a| a == name);
    if has("Deny") && has("Warn") {
        let says = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        spec.under("validationActions").invalid(says);
    }
    if actions.is_empty() {
        spec.under("validationActions")
            .required("at least one validation action is required");
    }
}
