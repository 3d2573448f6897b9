//! Ingress: HTTP hosts and paths led to Services.

use std::net::IpAddr;

use model::{Cause, text};
use serde_json::{Value, json};

use crate::names::path_segment;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::pod_check::port_name;
use crate::table::{Column, list_at, text_at};

/// The annotation that named the class before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";

pub(crate) fn resource() -> Resource {
    Resource::namespaced("networking.k8s.io", "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .stored_under("/registry/ingress/")
        .columns(vec![
            Column::text("Class", "spec.ingressClassName").about("The IngressClass that serves it."),
            Column::computed("Hosts", |o, _| hosts(o).into()).about("Hosts that requests are matched against."),
            Column::computed("Address", |o, _| addresses(o).into()).about("Where the load balancer listens."),
            Column::computed("Ports", |o, _| {
                if list_at(o, "spec.tls").is_empty() {
                    "80"
                } else {
                    "80, 443"
                }
                .into()
            })
            .about("Ports that are open."),
            Column::age(),
        ])
        .prepare(|new, old| {
            if old.is_none() {
                new["status"] = json!({"loadBalancer": {}});
            }
        })
        .validate(validate)
        .status_checked(validate_status)
}

fn hosts(ingress: &Value) -> String {
    let all = list_at(ingress, "spec.rules").iter().map(|rule| text_at(rule, "host"));
    match all.filter(|host| !host.is_empty()).collect::<Vec<_>>() {
        none if none.is_empty() => "*".into(),
        hosts => super::common::some(&hosts, 3),
    }
}

pub(crate) fn addresses(object: &Value) -> String {
    let all = list_at(object, "status.loadBalancer.ingress").iter();
    let one = |i: &Value| match text_at(i, "ip") {
        "" => text_at(i, "hostname").to_owned(),
        ip => ip.to_owned(),
    };
    all.map(one).filter(|a| !a.is_empty()).collect::<Vec<_>>().join(",")
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        let says = "either `defaultBackend` or `rules` must be specified";
        let cause = Cause::invalid("spec", "null", says);
        spec.push(cause);
    }
    if spec.has("defaultBackend") {
        backend(spec.under("defaultBackend"));
    }
    spec.each("rules", rule);
    spec.each("tls", |mut tls| {
        tls.each("hosts", host);
        tls.may_fit("secretName", text::dns1123_subdomain);
    });
    if spec.has("ingressClassName") {
        spec.under("ingressClassName").fits(text::dns1123_subdomain);
    }
    let class = new["metadata"]["annotations"][CLASS].as_str();
    let field = spec.value["ingressClassName"].as_str();
    if old.is_none()
        && let (Some(class), Some(field)) = (class, field)
        && class != field
    {
        let says = "must match `ingressClassName` when both are specified";
        wrong.push(Cause::invalid(
            format!("annotations.{CLASS}"),
            format!("{class:?}"),
            says,
        ));
    }
}

fn host(mut host: At<'_, '_>) {
    let name = host.value.as_str().unwrap_or_default();
    if name.contains('*') {
        host.fits(wildcard);
    } else {
        host.fits(text::dns1123_subdomain);
    }
}

/// `*.example.com`.
fn wildcard(host: &str) -> Vec<String> {
    let fits = host
        .strip_prefix("*.")
        .is_some_and(|rest| text::dns1123_subdomain(rest).is_empty());
    if fits {
        return Vec::new();
    }
    vec!["a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into()]
}

fn rule(mut rule: At<'_, '_>) {
    let name = rule.text("host");
    if !name.is_empty() {
        if name.parse::<IpAddr>().is_ok() {
            rule.under("host").invalid("must be a DNS name, not an IP address");
        }
        host(rule.under("host"));
    }
    if !rule.has("http") {
        return;
    }
    if rule.list("http.paths").is_empty() {
        rule.under("http.paths").required("");
    }
    rule.each("http.paths", path);
}

fn path(mut path: At<'_, '_>) {
    let text = path.text("path");
    let relative = !text.starts_with('/');
    match path.text("pathType") {
        "" => return path.under("pathType").required("pathType must be specified"),
        "Exact" | "Prefix" => {
            if relative {
                let cause = Cause::invalid(path.path_of("path"), format!("{text:?}"), "must be an absolute path");
                path.push(cause);
            }
            for inside in ["//", "/./", "/../", "%2f", "%2F"]
                .iter()
                .filter(|i| text.contains(**i))
            {
                path.under("path").invalid(&format!("must not contain '{inside}'"));
            }
            for end in ["/..", "/."].iter().filter(|e| text.ends_with(**e)) {
                path.under("path").invalid(&format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" if !text.is_empty() && relative => {
            path.under("path").invalid("must be an absolute path")
        }
        "ImplementationSpecific" => {}
        _ => path
            .under("pathType")
            .not_supported(&["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(path.under("backend"));
}

fn backend(mut backend: At<'_, '_>) {
    let says = |backend: &mut At<'_, '_>, what: &str| {
        let cause = Cause::invalid(backend.path(), "\"\"", what);
        backend.push(cause);
    };
    match (backend.has("resource"), backend.has("service")) {
        (true, true) => says(&mut backend, "cannot set both resource and service backends"),
        (true, false) => {
            let mut resource = backend.under("resource");
            if resource.has("apiGroup") {
                resource.under("apiGroup").fits(text::dns1123_subdomain);
            }
            resource.need_fit("kind", path_segment);
            resource.need_fit("name", path_segment);
        }
        (false, true) => {
            backend.need_fit("service.name", text::dns1123_label);
            let name = backend.text("service.port.name");
            match (name, backend.int("service.port.number").unwrap_or(0)) {
                ("", 0) => backend.required("port name or number is required"),
                ("", _) => backend.port("service.port.number"),
                (_, 0) => backend.under("service.port.name").fits(port_name),
                _ => says(&mut backend, "cannot set both port name & port number"),
            }
        }
        (false, false) => says(&mut backend, "resource or service backend is required"),
    }
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    At::new(new, "", wrong).each("status.loadBalancer.ingress", |mut ingress| {
        if !ingress.text("ip").is_empty() && ingress.text("ip").parse::<IpAddr>().is_err() {
            ingress.under("ip").invalid(super::common::NOT_IP);
        }
        if !ingress.text("hostname").is_empty() {
            let mut hostname = ingress.under("hostname");
            hostname.fits(text::dns1123_subdomain);
            if hostname.value.as_str().is_some_and(|h| h.parse::<IpAddr>().is_ok()) {
                hostname.invalid("must be a DNS name, not an IP address");
            }
        }
    });
}
