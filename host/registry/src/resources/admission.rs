//! What webhooks and admission policies have in common: which requests they are for.

use model::text;
use serde_json::{Value, json};

use crate::names::path_segment;
use crate::resources::check::At;
use crate::resources::common::{default, each_mut};

const MOST_CONDITIONS: usize = 64;

pub(crate) fn default_rule(rule: &mut Value) {
    default(rule, "scope", "*");
}

/// `matchConstraints` and `matchResources`: everything, unless narrowed.
pub(crate) fn default_match(resources: &mut Value) {
    default(resources, "matchPolicy", "Equivalent");
    default(resources, "namespaceSelector", json!({}));
    default(resources, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        each_mut(resources, rules).for_each(default_rule);
    }
}

pub(crate) fn rule_with_operations(rule: &mut At<'_, '_>, operations: &[&str]) {
    if rule.list("operations").is_empty() {
        rule.under("operations").required("");
    }
    alone(rule, "operations", "operations");
    rule.each("operations", |mut operation| {
        if !operations.contains(&operation.value.as_str().unwrap_or_default()) {
            operation.not_supported(operations);
        }
    });
    for (key, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        if rule.list(key).is_empty() {
            rule.under(key).required("");
        }
        alone(rule, key, what);
    }
    rule.each("apiVersions", |mut version| {
        if version.value == "" {
            version.required("");
        }
    });
    resources(rule);
    rule.may_be_one_of("scope", &["*", "Cluster", "Namespaced"]);
}

fn alone(rule: &mut At<'_, '_>, key: &str, what: &str) {
    let list = rule.list(key);
    if list.len() > 1 && list.iter().any(|v| v == "*") {
        let says = format!("if '*' is present, must not specify other {what}");
        rule.under(key).invalid(&says);
    }
}

/// No resource may be named twice: by itself and by a wildcard that covers it.
fn resources(rule: &mut At<'_, '_>) {
    let all = rule.list("resources");
    if all.is_empty() {
        return rule.under("resources").required("");
    }
    let named = |name: &str| all.iter().any(|r| r == name);
    let (mut whole, mut every_sub): (Vec<&str>, Vec<&str>) = Default::default();
    let mut plain = false;
    rule.each("resources", |mut resource| {
        let text = resource.value.as_str().unwrap_or_default();
        match text {
            "" => return resource.required(""),
            // What stands last decides: so upstream does, and objects that it took are taken here.
            "*" => {
                plain = false;
                return;
            }
            "*/*" => return,
            _ => {}
        }
        let Some((of, sub)) = text.split_once('/') else {
            plain = true;
            return;
        };
        if whole.contains(&of) {
            resource.invalid(&format!("if '{of}/*' is present, must not specify {text}"));
        }
        if every_sub.contains(&sub) {
            resource.invalid(&format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            whole.push(of);
        }
        if of == "*" {
            every_sub.push(sub);
        }
    });
    if all.len() > 1 && named("*/*") {
        rule.under("resources")
            .invalid("if '*/*' is present, must not specify other resources");
    }
    if named("*") && plain {
        rule.under("resources")
            .invalid("if '*' is present, must not specify other resources without subresources");
    }
}

/// `matchConditions`: each with a name and an expression.
pub(crate) fn match_conditions(of: &mut At<'_, '_>) {
    let count = of.list("matchConditions").len();
    if count > MOST_CONDITIONS {
        of.under("matchConditions").too_many(count, MOST_CONDITIONS);
    }
    let mut names: Vec<&str> = Vec::new();
    of.each("matchConditions", |mut condition| {
        if condition.text("expression").trim().is_empty() {
            condition.under("expression").required("");
        }
        let name = condition.text("name");
        if condition.need("name", "") {
            condition.under("name").fits(text::qualified_name);
            if names.contains(&name) {
                condition.under("name").duplicate();
            }
        }
        names.push(name);
    });
}

/// `matchConstraints` and `matchResources`.
pub(crate) fn match_resources(mut of: At<'_, '_>, operations: &[&str]) {
    if of.value.is_null() {
        return;
    }
    of.one_of("matchPolicy", &["Equivalent", "Exact"]);
    of.selector("namespaceSelector");
    of.selector("objectSelector");
    for rules in ["resourceRules", "excludeResourceRules"] {
        of.each(rules, |mut rule| {
            let mut names: Vec<&Value> = Vec::new();
            rule.each("resourceNames", |mut name| {
                name.fits(path_segment);
                if names.contains(&name.value) {
                    name.duplicate();
                }
                names.push(name.value);
            });
            rule_with_operations(&mut rule, operations);
        });
    }
}

/// `paramKind`: the kind of objects that carry parameters.
pub(crate) fn param_kind(mut kind: At<'_, '_>) {
    if kind.need("apiVersion", "") {
        let text = kind.text("apiVersion");
        if text.matches('/').count() > 1 {
            let says = format!("unexpected GroupVersion string: {text}");
            kind.under("apiVersion").invalid(&says);
        }
        let (group, version) = text
            .split_once('/')
            .filter(|(_, v)| !v.contains('/'))
            .unwrap_or(("", "v1"));
        let version = if text.contains('/') { version } else { text };
        let mut says = Vec::new();
        if !group.is_empty() {
            says.push((group, text::dns1123_subdomain(group)));
        }
        says.push((version, text::dns1035_label(version)));
        for (part, complaints) in says.into_iter().filter(|(_, c)| !c.is_empty()) {
            let cause = model::Cause::invalid(kind.path_of("apiVersion"), format!("{part:?}"), &complaints.join(","));
            kind.push(cause);
        }
    }
    if kind.need("kind", "") {
        let complaints = text::dns1035_label(&kind.text("kind").to_lowercase());
        if !complaints.is_empty() {
            let says = format!(
                "may have mixed case, but should otherwise match: {}",
                complaints.join(",")
            );
            kind.under("kind").invalid(&says);
        }
    }
}

/// `paramRef`: which of them.
pub(crate) fn param_ref(mut of: At<'_, '_>) {
    if of.value.is_null() {
        return;
    }
    of.may_fit("name", path_segment);
    match (of.text("name").is_empty(), of.has("selector")) {
        (false, true) => {
            of.under("name").forbidden("name and selector are mutually exclusive");
            of.selector("selector");
            of.under("selector")
                .forbidden("name and selector are mutually exclusive");
        }
        (true, true) => of.selector("selector"),
        (true, false) => of.required("one of name or selector must be specified"),
        (false, false) => {}
    }
    of.one_of("parameterNotFoundAction", &["Allow", "Deny"]);
}

/// Variables of a policy: named, each with an expression.
pub(crate) fn variables(spec: &mut At<'_, '_>) {
    spec.each("variables", |mut variable| {
        let name = variable.text("name");
        if name.trim().is_empty() {
            variable.under("name").required("name is not specified");
        } else if !is_identifier(name) {
            variable.under("name").invalid("must be a valid CEL identifier");
        }
        if variable.text("expression").trim().is_empty() {
            variable.under("expression").required("expression is not specified");
        }
    });
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What a policy matches, with which parameters.
pub(crate) fn policy(spec: &mut At<'_, '_>, operations: &[&str]) {
    spec.one_of("failurePolicy", &["Fail", "Ignore"]);
    if spec.has("paramKind") {
        param_kind(spec.under("paramKind"));
    }
    if !spec.has("matchConstraints") {
        spec.under("matchConstraints").required("");
    } else {
        match_resources(spec.under("matchConstraints"), operations);
        if spec.list("matchConstraints.resourceRules").is_empty() {
            spec.under("matchConstraints.resourceRules").required("");
        }
    }
    match_conditions(spec);
    variables(spec);
}
