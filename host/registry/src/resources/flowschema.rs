//! FlowSchema: which requests belong to which priority level.

use model::{Cause, text};
use serde_json::Value;

use crate::names::path_segment;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{born_with_status, child, unique_conditions};
use crate::table::{Column, at, int_at, list_at, plain, text_at};

const LAST: i64 = 10_000;

const VERBS: [&str; 10] = [
    "*",
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

pub(crate) fn resource() -> Resource {
    Resource::cluster("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas")
        .columns(vec![
            Column::text_or("PriorityLevel", "spec.priorityLevelConfiguration.name", "<none>")
                .about("Where its requests go."),
            Column::counted("MatchingPrecedence", |o, _| int_at(o, "spec.matchingPrecedence").into())
                .about("The smaller is asked first."),
            Column::text("DistinguisherMethod", "spec.distinguisherMethod.type").about("What makes a flow."),
            Column::age(),
            Column::computed("MissingPL", |o, _| {
                let found = list_at(o, "status.conditions").iter().find(|c| c["type"] == "Dangling");
                found.map_or("?".into(), |c| plain(&c["status"]).into())
            })
            .about("Whether the priority level is missing."),
        ])
        .prepare(|new, old| {
            born_with_status(new, old);
            let spec = child(new, "spec");
            if int_at(spec, "matchingPrecedence") == 0 {
                spec["matchingPrecedence"] = 1000.into();
            }
        })
        .validate(validate)
        .status_checked(|new, _, wrong| unique_conditions(new, wrong))
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    let precedence = spec.int("matchingPrecedence").unwrap_or(0);
    if precedence <= 0 {
        spec.under("matchingPrecedence").invalid("must be a positive value");
    } else if precedence > LAST {
        let says = format!("must not be greater than {LAST}");
        spec.under("matchingPrecedence").invalid(&says);
    }
    let exempt = at(new, "metadata.name").is_some_and(|name| name == "exempt");
    if precedence == 1 && !exempt {
        spec.under("matchingPrecedence")
            .invalid("only the schema named 'exempt' may have matchingPrecedence 1");
    }
    spec.may_be_one_of("distinguisherMethod.type", &["ByNamespace", "ByUser"]);
    if spec.text("priorityLevelConfiguration.name").is_empty() {
        spec.under("priorityLevelConfiguration.name")
            .required("must reference a priority level");
    } else {
        spec.under("priorityLevelConfiguration.name")
            .fits(text::dns1123_subdomain);
    }
    spec.each("rules", |mut rule| {
        if rule.list("subjects").is_empty() {
            rule.under("subjects")
                .required("subjects must contain at least one value");
        }
        rule.each("subjects", subject);
        if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
            rule.required("at least one of resourceRules and nonResourceRules has to be non-empty");
        }
        rule.each("resourceRules", |mut rule| {
            verbs(&mut rule);
            stars(
                &mut rule,
                "apiGroups",
                "resource rules must supply at least one api group",
            );
            stars(
                &mut rule,
                "resources",
                "resource rules must supply at least one resource",
            );
            if rule.list("namespaces").is_empty() && rule.value["clusterScope"] != true {
                rule.under("namespaces")
                    .required("resource rules that are not cluster scoped must supply at least one namespace");
            }
            alone(
                &mut rule,
                "namespaces",
                "if '*' is present, must not specify other namespaces",
            );
        });
        rule.each("nonResourceRules", |mut rule| {
            verbs(&mut rule);
            if rule.list("nonResourceURLs").is_empty() {
                rule.under("nonResourceURLs")
                    .required("nonResourceURLs must contain at least one value");
            }
            alone(
                &mut rule,
                "nonResourceURLs",
                "if '*' is present, must not specify other non-resource URLs",
            );
            rule.each("nonResourceURLs", |mut url| {
                let complaint = match url.value.as_str().unwrap_or_default() {
                    "/" | "*" => "",
                    "" => "must not be empty",
                    path if !path.starts_with('/') => "must start with slash",
                    path if path.contains(' ') => "must not contain white-space",
                    path if path.contains("//") => "must not contain double slash",
                    path if path.trim_end_matches("/*").contains('*') => "wildcard can only do suffix matching",
                    _ => "",
                };
                if !complaint.is_empty() {
                    url.invalid(complaint);
                }
            });
        });
    });
}

fn verbs(rule: &mut At<'_, '_>) {
    if rule.list("verbs").is_empty() {
        rule.under("verbs").required("verbs must contain at least one value");
    }
    let unknown = |verb: &Value| !VERBS.contains(&verb.as_str().unwrap_or_default());
    if rule.list("verbs").iter().any(unknown) {
        rule.under("verbs").not_supported(&VERBS[1..]);
    }
    alone(rule, "verbs", "if '*' is present, must not specify other verbs");
}

fn stars(rule: &mut At<'_, '_>, key: &str, needed: &str) {
    if rule.list(key).is_empty() {
        rule.under(key).required(needed);
    }
    let what = if key == "apiGroups" { "api groups" } else { "resources" };
    alone(rule, key, &format!("if '*' is present, must not specify other {what}"));
}

/// `*` stands alone or not at all.
fn alone(rule: &mut At<'_, '_>, key: &str, says: &str) {
    let list = rule.list(key);
    if list.len() > 1 && list.iter().any(|v| v == "*") {
        rule.under(key).invalid(says);
    }
}

fn subject(mut subject: At<'_, '_>) {
    let kinds = [
        ("User", "user"),
        ("Group", "group"),
        ("ServiceAccount", "serviceAccount"),
    ];
    let kind = subject.text("kind");
    let Some((_, member)) = kinds.iter().find(|(k, _)| *k == kind) else {
        return subject
            .under("kind")
            .not_supported(&["Group", "ServiceAccount", "User"]);
    };
    for (other, name) in kinds {
        if name != *member && subject.has(name) {
            let says = format!("{name} is forbidden when subject kind is not '{other}'");
            subject.under(name).forbidden(&says);
        }
    }
    if !subject.has(member) {
        return subject
            .under(member)
            .required(&format!("{member} is required when subject kind is '{kind}'"));
    }
    let mut of = subject.under(member);
    let name = text_at(of.value, "name");
    of.need("name", "");
    if kind == "ServiceAccount" {
        if !name.is_empty() && name != "*" {
            of.under("name").fits(text::dns1123_subdomain);
        }
        if of.need("namespace", "must specify namespace for service account") {
            of.under("namespace").fits(path_segment);
        }
    }
}
