//! Roles and bindings (`rbac.authorization.k8s.io/v1`). Only their shape is judged here: that nobody grants more than they
//! have is not checked yet, so the right to write roles is the right to everything.

use model::{Cause, text};
use serde_json::Value;

use crate::names::{NameRule, path_segment};
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::default;
use crate::table::{Column, list_at, text_at};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn role() -> Resource {
    a_role(Resource::namespaced(GROUP, "v1", "Role", "roles"))
}

pub(crate) fn cluster_role() -> Resource {
    a_role(Resource::cluster(GROUP, "v1", "ClusterRole", "clusterroles"))
}

pub(crate) fn role_binding() -> Resource {
    a_binding(Resource::namespaced(GROUP, "v1", "RoleBinding", "rolebindings"))
}

pub(crate) fn cluster_role_binding() -> Resource {
    a_binding(Resource::cluster(
        GROUP,
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
    ))
}

fn a_role(resource: Resource) -> Resource {
    resource
        .names(NameRule::PathSegment)
        .no_generation()
        .columns(vec![
            Column::text_or("Created At", "metadata.creationTimestamp", "").date(),
        ])
        .create_on_update()
        .validate(validate_role)
}

fn a_binding(resource: Resource) -> Resource {
    resource
        .names(NameRule::PathSegment)
        .no_generation()
        .columns(vec![
            Column::computed("Role", |o, _| {
                format!("{}/{}", text_at(o, "roleRef.kind"), text_at(o, "roleRef.name")).into()
            }),
            Column::age(),
            Column::computed("Users", |o, _| subjects_of(o, "User").into()).wide(),
            Column::computed("Groups", |o, _| subjects_of(o, "Group").into()).wide(),
            Column::computed("ServiceAccounts", |o, _| subjects_of(o, "ServiceAccount").into()).wide(),
        ])
        .prepare(|new, _| {
            default(&mut new["roleRef"], "apiGroup", GROUP);
            if let Some(role) = new.get_mut("roleRef").filter(|r| r.is_object()) {
                default(role, "apiGroup", GROUP);
            }
            for subject in new
                .get_mut("subjects")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if matches!(text_at(subject, "kind"), "User" | "Group") {
                    default(subject, "apiGroup", GROUP);
                }
            }
        })
        .create_on_update()
        .validate(validate_binding)
}

fn subjects_of(binding: &Value, kind: &str) -> String {
    let of = list_at(binding, "subjects").iter().filter(|s| s["kind"] == kind);
    let name = |s: &Value| match text_at(s, "namespace") {
        "" => text_at(s, "name").to_owned(),
        namespace => format!("{namespace}/{}", text_at(s, "name")),
    };
    of.map(name).collect::<Vec<_>>().join(", ")
}

fn validate_role(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let aggregation = &new["aggregationRule"];
    if aggregation.is_object() && list_at(aggregation, "clusterRoleSelectors").is_empty() {
        let says = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        wrong.push(Cause::required("aggregationRule.clusterRoleSelectors", says));
    }
    At::new(new, "", wrong).each("aggregationRule.clusterRoleSelectors", |mut selector| {
        selector.selector("")
    });
    let namespaced = new["kind"] == "Role";
    for (i, rule) in list_at(new, "rules").iter().enumerate() {
        let field = |key: &str| format!("rules[{i}].{key}");
        let (urls, groups, resources) = (
            list_at(rule, "nonResourceURLs"),
            list_at(rule, "apiGroups"),
            list_at(rule, "resources"),
        );
        if list_at(rule, "verbs").is_empty() {
            wrong.push(Cause::required(field("verbs"), "verbs must contain at least one value"));
        }
        if !urls.is_empty() {
            if namespaced {
                let says = "namespaced rules cannot apply to non-resource URLs";
                wrong.push(Cause::invalid(field("nonResourceURLs"), &rule["nonResourceURLs"], says));
            }
            if !groups.is_empty() || !resources.is_empty() || !list_at(rule, "resourceNames").is_empty() {
                let says = "rules cannot apply to both regular resources and non-resource URLs";
                wrong.push(Cause::invalid(field("nonResourceURLs"), &rule["nonResourceURLs"], says));
            }
            continue;
        }
        if groups.is_empty() {
            wrong.push(Cause::required(
                field("apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if resources.is_empty() {
            wrong.push(Cause::required(
                field("resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
}

fn validate_binding(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let role = &new["roleRef"];
    if text_at(role, "apiGroup") != GROUP {
        wrong.push(Cause::not_supported("roleRef.apiGroup", &role["apiGroup"], &[GROUP]));
    }
    let kinds: &[&str] = if new["kind"] == "RoleBinding" {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&text_at(role, "kind")) {
        wrong.push(Cause::not_supported("roleRef.kind", &role["kind"], kinds));
    }
    let name = text_at(role, "name");
    if name.is_empty() {
        wrong.push(Cause::required("roleRef.name", ""));
    }
    for complaint in path_segment(name) {
        wrong.push(Cause::invalid("roleRef.name", &role["name"], &complaint));
    }
    if old.is_some_and(|old| old["roleRef"] != *role) {
        wrong.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
    }
    for (i, subject) in list_at(new, "subjects").iter().enumerate() {
        let field = |key: &str| format!("subjects[{i}].{key}");
        let name = text_at(subject, "name");
        if name.is_empty() {
            wrong.push(Cause::required(field("name"), ""));
        }
        match text_at(subject, "kind") {
            "ServiceAccount" => {
                for complaint in text::dns1123_subdomain(name).into_iter().filter(|_| !name.is_empty()) {
                    wrong.push(Cause::invalid(field("name"), &subject["name"], &complaint));
                }
                if !text_at(subject, "apiGroup").is_empty() {
                    wrong.push(Cause::not_supported(field("apiGroup"), &subject["apiGroup"], &[""]));
                }
                // In a binding of a namespace, an account without one is of that namespace.
                if text_at(subject, "namespace").is_empty() && new["kind"] != "RoleBinding" {
                    wrong.push(Cause::required(field("namespace"), ""));
                }
            }
            "User" | "Group" => {
                if text_at(subject, "apiGroup") != GROUP {
                    wrong.push(Cause::not_supported(field("apiGroup"), &subject["apiGroup"], &[GROUP]));
                }
            }
            _ => wrong.push(Cause::not_supported(
                field("kind"),
                &subject["kind"],
                &["ServiceAccount", "User", "Group"],
            )),
        }
    }
}
