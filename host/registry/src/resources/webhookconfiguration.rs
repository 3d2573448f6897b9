//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration: servers that are asked before a write is done.

use model::{Cause, text};
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::admission::{default_rule, match_conditions, rule_with_operations};
use crate::resources::check::At;
use crate::resources::common::{default, each_mut};
use crate::table::{Column, list_at};

const GROUP: &str = "admissionregistration.k8s.io";

/// AdmissionReview versions that are sent.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

pub(crate) fn mutating() -> Resource {
    of("MutatingWebhookConfiguration", "mutatingwebhookconfigurations").prepare(|new, _| {
        for hook in each_mut(new, "webhooks") {
            fill_in(hook);
            default(hook, "reinvocationPolicy", "Never");
        }
    })
}

pub(crate) fn validating() -> Resource {
    of("ValidatingWebhookConfiguration", "validatingwebhookconfigurations").prepare(|new, _| {
        each_mut(new, "webhooks").for_each(fill_in);
    })
}

fn of(kind: &str, plural: &str) -> Resource {
    Resource::cluster(GROUP, "v1", kind, plural)
        .categories(&["api-extensions"])
        .columns(vec![
            Column::counted("Webhooks", |o, _| list_at(o, "webhooks").len().into())
                .about("Webhooks indicates the number of webhooks registered in this configuration"),
            Column::age(),
        ])
        .conditional_updates()
        .validate(validate)
}

fn fill_in(hook: &mut Value) {
    default(hook, "failurePolicy", "Fail");
    default(hook, "matchPolicy", "Equivalent");
    default(hook, "namespaceSelector", json!({}));
    default(hook, "objectSelector", json!({}));
    default(hook, "timeoutSeconds", 10);
    each_mut(hook, "rules").for_each(default_rule);
    if let Some(service) = hook.pointer_mut("/clientConfig/service").filter(|s| s.is_object()) {
        default(service, "port", 443);
    }
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut names: Vec<&str> = Vec::new();
    At::new(new, "", wrong).each("webhooks", |mut hook| {
        let name = hook.text("name");
        webhook(&mut hook);
        if !name.is_empty() && names.contains(&name) {
            hook.under("name").duplicate();
        }
        names.push(name);
    });
}

fn webhook(hook: &mut At<'_, '_>) {
    hook.with("name", qualified);
    hook.each("rules", |mut rule| {
        rule_with_operations(&mut rule, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"])
    });
    hook.may_be_one_of("failurePolicy", &["Fail", "Ignore"]);
    hook.may_be_one_of("matchPolicy", &["Equivalent", "Exact"]);
    let harmless = ["None", "NoneOnDryRun"];
    if hook.text("sideEffects").is_empty() {
        hook.under("sideEffects")
            .required(&format!("must specify one of {}", harmless.join(", ")));
    } else {
        hook.may_be_one_of("sideEffects", &harmless);
    }
    if hook.int("timeoutSeconds").is_some_and(|s| !(1..=30).contains(&s)) {
        hook.under("timeoutSeconds")
            .invalid("the timeout value must be between 1 and 30 seconds");
    }
    hook.selector("namespaceSelector");
    hook.selector("objectSelector");
    hook.may_be_one_of("reinvocationPolicy", &["IfNeeded", "Never"]);
    client(hook.under("clientConfig"));
    let versions = hook.list("admissionReviewVersions");
    if versions.is_empty() {
        hook.under("admissionReviewVersions")
            .required(&format!("must specify one of {}", REVIEWS.join(", ")));
    } else if !versions
        .iter()
        .any(|v| REVIEWS.contains(&v.as_str().unwrap_or_default()))
    {
        let says = format!("must include at least one of {}", REVIEWS.join(", "));
        hook.under("admissionReviewVersions").invalid(&says);
    }
    let mut seen: Vec<&Value> = Vec::new();
    hook.each("admissionReviewVersions", |mut version| {
        if seen.contains(&version.value) {
            version.invalid("duplicate version");
        }
        seen.push(version.value);
        version.fits(text::dns1035_label);
    });
    match_conditions(hook);
}

/// A name of at least three parts: `policy.example.com`.
fn qualified(name: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let whole = name.as_str().unwrap_or_default();
    if whole.is_empty() {
        return wrong.push(Cause::required(field, ""));
    }
    let complaints = text::dns1123_subdomain(whole);
    if !complaints.is_empty() {
        return wrong.push(Cause::invalid(field, name, &complaints.join(",")));
    }
    if whole.split('.').count() < 3 {
        wrong.push(Cause::invalid(
            field,
            name,
            "should be a domain with at least three segments separated by dots",
        ));
    }
}

/// Where a webhook is reached; CRD conversions have the same.
pub(crate) fn client(mut config: At<'_, '_>) {
    let one = "exactly one of url or service is required";
    match (config.has("url"), config.has("service")) {
        (true, true) | (false, false) => config.required(one),
        (true, false) => url(config.under("url")),
        (false, true) => {
            let mut service = config.under("service");
            service.must("name");
            service.must("namespace");
            if service.has("port") && !(1..=65535).contains(&service.int("port").unwrap_or(0)) {
                let says = "port is not valid: must be between 1 and 65535, inclusive";
                service.under("port").invalid(says);
            }
            let path = service.text("path");
            if !path.is_empty() && path != "/" {
                if !path.starts_with('/') {
                    service.under("path").invalid("must start with a '/'");
                }
                let steps = path[1..].strip_suffix('/').unwrap_or(&path[1..]);
                for (i, step) in steps.split('/').enumerate() {
                    if step.is_empty() {
                        service.under("path").invalid(&format!("segment[{i}] may not be empty"));
                    }
                }
            }
        }
    }
}

fn url(mut url: At<'_, '_>) {
    let form = "; desired format: https://host[/path]";
    let text = url.value.as_str().unwrap_or_default();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        url.invalid(&format!("'https' is the only allowed URL scheme{form}"));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        url.invalid(&format!("host must be specified{form}"));
    }
    if host.contains('@') {
        url.invalid("user information is not permitted in the URL");
    }
    if rest.contains('#') {
        url.invalid("fragments are not permitted in the URL");
    }
    if rest.contains('?') {
        url.invalid("query parameters are not permitted in the URL");
    }
}
