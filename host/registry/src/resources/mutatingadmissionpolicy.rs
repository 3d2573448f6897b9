//! MutatingAdmissionPolicy and its binding: expressions that change writes on their way, and where.

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::admission::{match_resources, param_ref, policy};
use crate::resources::check::At;
use crate::resources::validatingadmissionpolicy::{
    binding_columns, default_binding, default_policy, param_kind_column,
};
use crate::table::{Column, list_at};

const GROUP: &str = "admissionregistration.k8s.io";

/// What is deleted is not changed first.
const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

pub(crate) fn resource() -> Resource {
    Resource::cluster(GROUP, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
        .categories(&["api-extensions"])
        .columns(vec![
            Column::counted("Mutations", |o, _| list_at(o, "spec.mutations").len().into())
                .about("Mutation indicates the number of mutations rules defined in this configuration"),
            param_kind_column(),
            Column::age(),
        ])
        .prepare(|new, _| default_policy(new))
        .conditional_updates()
        .validate(validate)
}

pub(crate) fn binding() -> Resource {
    Resource::cluster(
        GROUP,
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
    )
    .categories(&["api-extensions"])
    .columns(binding_columns())
    .prepare(|new, _| default_binding(new))
    .conditional_updates()
    .validate(|new, _, wrong| {
        let mut spec = At::new(&new["spec"], "spec", wrong);
        spec.need_fit("policyName", text::dns1123_subdomain);
        param_ref(spec.under("paramRef"));
        match_resources(spec.under("matchResources"), &OPERATIONS);
    })
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    policy(&mut spec, &OPERATIONS);
    if spec.list("mutations").is_empty() {
        spec.under("mutations")
            .required("mutations must contain at least one item");
    }
    spec.each("mutations", |mut mutation| {
        let (member, other) = match mutation.text("patchType") {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
            "JSONPatch" => ("jsonPatch", "applyConfiguration"),
            _ => return mutation.one_of("patchType", &["ApplyConfiguration", "JSONPatch"]),
        };
        let kind = mutation.text("patchType");
        if !mutation.has(member) {
            mutation
                .under(member)
                .required(&format!("must be specified when patchType is {kind}"));
        } else if mutation.under(member).text("expression").trim().is_empty() {
            let field = format!("{member}.expression");
            mutation.under(&field).required("expression is not specified");
        }
        if mutation.has(other) {
            let says = format!("must not be specified when patchType is {kind}");
            let cause = Cause::invalid(mutation.path_of(other), format!("\"{{{other}}}\""), &says);
            mutation.push(cause);
        }
    });
    spec.one_of("reinvocationPolicy", &["IfNeeded", "Never"]);
}
