//! The pod spec: what is refused, for pods and for every template of pods, with the field that is wrong.
//!
//! Source: "Pod" and "Container" of the Kubernetes API reference, field by field.

use model::{Cause, CauseReason, Quantity, text};
use serde_json::Value;

use crate::names::{validate_annotations, validate_labels};
use crate::resources::pod_spec;
use crate::table::{at, list_at, plain, text_at};

/// `spec.template` of a workload: its metadata and its spec.
pub(crate) fn validate_template(template: &Value, field: &str, restart: &[&str], wrong: &mut Vec<Cause>) {
    validate_labels(at(template, "metadata.labels"), &format!("{field}.labels"), wrong);
    validate_annotations(
        at(template, "metadata.annotations"),
        &format!("{field}.annotations"),
        wrong,
    );
    validate_spec(&template["spec"], &format!("{field}.spec"), wrong);
    let policy = text_at(template, "spec.restartPolicy");
    if !restart.contains(&policy) && matches!(policy, "Always" | "OnFailure" | "Never") {
        wrong.push(Cause::not_supported(
            format!("{field}.spec.restartPolicy"),
            format!("{policy:?}"),
            restart,
        ));
    }
}

/// Everything wrong with a pod spec at `field`.
pub(crate) fn validate_spec(spec: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let volumes = validate_volumes(spec, field, wrong);
    if list_at(spec, "containers").is_empty() {
        wrong.push(Cause::required(format!("{field}.containers"), ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for list in pod_spec::CONTAINERS {
        for (i, container) in list_at(spec, list).iter().enumerate() {
            let at = format!("{field}.{list}[{i}]");
            let name = text_at(container, "name");
            if names.contains(&name) && !name.is_empty() {
                wrong.push(Cause::duplicate(format!("{at}.name"), format!("{name:?}")));
            }
            names.push(name);
            validate_container(container, &at, &volumes, wrong);
        }
    }
    one_of(spec, field, "restartPolicy", &["Always", "OnFailure", "Never"], wrong);
    one_of(
        spec,
        field,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        wrong,
    );
    for key in ["terminationGracePeriodSeconds", "activeDeadlineSeconds"] {
        let least = i64::from(key == "activeDeadlineSeconds");
        if let Some(value) = spec[key].as_i64().filter(|v| *v < least) {
            let says = match least {
                0 => "must be greater than or equal to 0",
                _ => "must be between 1 and 2147483647, inclusive",
            };
            wrong.push(Cause::invalid(format!("{field}.{key}"), value, says));
        }
    }
    validate_labels(spec.get("nodeSelector"), &format!("{field}.nodeSelector"), wrong);
    let account = text_at(spec, "serviceAccountName");
    for complaint in text::dns1123_subdomain(account)
        .into_iter()
        .filter(|_| !account.is_empty())
    {
        wrong.push(Cause::invalid(
            format!("{field}.serviceAccountName"),
            format!("{account:?}"),
            &complaint,
        ));
    }
    let hostname = text_at(spec, "hostname");
    for complaint in text::dns1123_label(hostname)
        .into_iter()
        .filter(|_| !hostname.is_empty())
    {
        wrong.push(Cause::invalid(
            format!("{field}.hostname"),
            format!("{hostname:?}"),
            &complaint,
        ));
    }
    validate_tolerations(spec, field, wrong);
    validate_spread(spec, field, wrong);
}

fn one_of(object: &Value, field: &str, key: &str, allowed: &[&str], wrong: &mut Vec<Cause>) {
    let value = text_at(object, key);
    let at = format!("{field}.{key}");
    if value.is_empty() {
        wrong.push(Cause::required(at, ""));
    } else if !allowed.contains(&value) {
        let mut sorted = allowed.to_vec();
        sorted.sort_unstable();
        wrong.push(Cause::not_supported(at, format!("{value:?}"), &sorted));
    }
}

fn not_found(field: String, name: &str) -> Cause {
    Cause {
        reason: CauseReason::NotFound,
        field,
        message: format!("Not found: {name:?}"),
    }
}

fn validate_volumes<'a>(spec: &'a Value, field: &str, wrong: &mut Vec<Cause>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (i, volume) in list_at(spec, "volumes").iter().enumerate() {
        let name = text_at(volume, "name");
        let at = format!("{field}.volumes[{i}]");
        if name.is_empty() {
            wrong.push(Cause::required(format!("{at}.name"), ""));
        } else {
            for complaint in text::dns1123_label(name) {
                wrong.push(Cause::invalid(format!("{at}.name"), format!("{name:?}"), &complaint));
            }
        }
        if names.contains(&name) {
            wrong.push(Cause::duplicate(format!("{at}.name"), format!("{name:?}")));
        }
        names.push(name);
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, _)| k)
            .filter(|k| *k != "name")
            .collect();
        for more in sources.iter().skip(1) {
            wrong.push(Cause::forbidden(
                format!("{at}.{more}"),
                "may not specify more than 1 volume type",
            ));
        }
        for (source, key) in [
            ("configMap", "name"),
            ("persistentVolumeClaim", "claimName"),
            ("secret", "secretName"),
            ("hostPath", "path"),
        ] {
            if volume.get(source).is_some_and(|s| text_at(s, key).is_empty()) {
                wrong.push(Cause::required(format!("{at}.{source}.{key}"), ""));
            }
        }
    }
    names
}

fn validate_container(container: &Value, field: &str, volumes: &[&str], wrong: &mut Vec<Cause>) {
    let name = text_at(container, "name");
    if name.is_empty() {
        wrong.push(Cause::required(format!("{field}.name"), ""));
    } else {
        for complaint in text::dns1123_label(name) {
            wrong.push(Cause::invalid(format!("{field}.name"), format!("{name:?}"), &complaint));
        }
    }
    let image = text_at(container, "image");
    if image.is_empty() {
        wrong.push(Cause::required(format!("{field}.image"), ""));
    } else if image.trim() != image {
        wrong.push(Cause::invalid(
            format!("{field}.image"),
            format!("{image:?}"),
            "must not have leading or trailing whitespace",
        ));
    }
    if !image.is_empty() {
        one_of(
            container,
            field,
            "imagePullPolicy",
            &["Always", "IfNotPresent", "Never"],
            wrong,
        );
    }
    let mut ports: Vec<&str> = Vec::new();
    for (i, port) in list_at(container, "ports").iter().enumerate() {
        let at = format!("{field}.ports[{i}]");
        match port["containerPort"].as_i64() {
            None | Some(0) => wrong.push(Cause::required(format!("{at}.containerPort"), "")),
            Some(number) => port_number(number, format!("{at}.containerPort"), wrong),
        }
        if let Some(number) = port["hostPort"].as_i64().filter(|n| *n != 0) {
            port_number(number, format!("{at}.hostPort"), wrong);
        }
        one_of(port, &at, "protocol", &["SCTP", "TCP", "UDP"], wrong);
        let name = text_at(port, "name");
        if !name.is_empty() {
            for complaint in port_name(name) {
                wrong.push(Cause::invalid(format!("{at}.name"), format!("{name:?}"), &complaint));
            }
            if ports.contains(&name) {
                wrong.push(Cause::duplicate(format!("{at}.name"), format!("{name:?}")));
            }
            ports.push(name);
        }
    }
    for (i, env) in list_at(container, "env").iter().enumerate() {
        let at = format!("{field}.env[{i}]");
        let name = text_at(env, "name");
        if name.is_empty() {
            wrong.push(Cause::required(format!("{at}.name"), ""));
        } else if name.contains('=') || !name.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            let says =
                "a valid environment variable name must consist only of printable ASCII characters other than '='";
            wrong.push(Cause::invalid(format!("{at}.name"), format!("{name:?}"), says));
        }
        if env.get("valueFrom").is_some_and(|v| !v.is_null()) && !text_at(env, "value").is_empty() {
            wrong.push(Cause::invalid(
                format!("{at}.valueFrom"),
                "\"\"",
                "may not be specified when `value` is not empty",
            ));
        }
    }
    let mut paths: Vec<&str> = Vec::new();
    for (i, mount) in list_at(container, "volumeMounts").iter().enumerate() {
        let at = format!("{field}.volumeMounts[{i}]");
        let (name, path) = (text_at(mount, "name"), text_at(mount, "mountPath"));
        match name {
            "" => wrong.push(Cause::required(format!("{at}.name"), "")),
            name if !volumes.contains(&name) => wrong.push(not_found(format!("{at}.name"), name)),
            _ => {}
        }
        match path {
            "" => wrong.push(Cause::required(format!("{at}.mountPath"), "")),
            path if paths.contains(&path) => {
                wrong.push(Cause::invalid(
                    format!("{at}.mountPath"),
                    format!("{path:?}"),
                    "must be unique",
                ));
            }
            path => paths.push(path),
        }
    }
    validate_resources(container, field, wrong);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe_value) = container.get(probe).filter(|p| p.is_object()) {
            validate_probe(
                probe_value,
                &format!("{field}.{probe}"),
                probe != "readinessProbe",
                wrong,
            );
        }
    }
}

fn port_number(number: i64, field: String, wrong: &mut Vec<Cause>) {
    if !(1..=65535).contains(&number) {
        wrong.push(Cause::invalid(field, number, "must be between 1 and 65535, inclusive"));
    }
}

/// An IANA service name: RFC 6335, section 5.1.
pub(crate) fn port_name(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > 15 {
        wrong.push("must be no more than 15 characters".into());
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if name.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

fn validate_resources(container: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let quantity = |value: &Value| Quantity::parse(&plain(value)).ok();
    for part in ["limits", "requests"] {
        for (name, value) in at(container, &format!("resources.{part}"))
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let at = format!("{field}.resources.{part}[{name}]");
            match quantity(value) {
                Some(amount) if amount < Quantity::default() => {
                    wrong.push(Cause::invalid(at, value, "must be greater than or equal to 0"));
                }
                Some(_) => {}
                None => wrong.push(Cause::invalid(at, value, "must be a quantity")),
            }
        }
    }
    let requests = at(container, "resources.requests").and_then(Value::as_object);
    for (name, request) in requests.into_iter().flatten() {
        let limit = at(container, "resources.limits")
            .and_then(|l| l.get(name))
            .and_then(quantity);
        if let (Some(asked), Some(limit)) = (quantity(request), limit)
            && asked > limit
        {
            let says = format!("must be less than or equal to {name} limit of {limit}");
            wrong.push(Cause::invalid(format!("{field}.resources.requests"), request, &says));
        }
    }
}

fn validate_probe(probe: &Value, field: &str, once: bool, wrong: &mut Vec<Cause>) {
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
    match handlers
        .iter()
        .filter(|h| probe.get(**h).is_some_and(|v| !v.is_null()))
        .count()
    {
        0 => wrong.push(Cause::required(field, "must specify a handler type")),
        1 => {}
        _ => wrong.push(Cause::forbidden(field, "may not specify more than 1 handler type")),
    }
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(value) = probe[key].as_i64().filter(|v| *v < 0) {
            wrong.push(Cause::invalid(
                format!("{field}.{key}"),
                value,
                "must be greater than or equal to 0",
            ));
        }
    }
    if once && probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        wrong.push(Cause::invalid(
            format!("{field}.successThreshold"),
            &probe["successThreshold"],
            "must be 1",
        ));
    }
}

fn validate_tolerations(spec: &Value, field: &str, wrong: &mut Vec<Cause>) {
    for (i, toleration) in list_at(spec, "tolerations").iter().enumerate() {
        let at = format!("{field}.tolerations[{i}]");
        let (key, operator, value) = (
            text_at(toleration, "key"),
            text_at(toleration, "operator"),
            text_at(toleration, "value"),
        );
        if key.is_empty() && operator != "Exists" {
            let says = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            wrong.push(Cause::invalid(format!("{at}.operator"), format!("{operator:?}"), says));
        }
        if operator == "Exists" && !value.is_empty() {
            let says = "value must be empty when `operator` is 'Exists'";
            wrong.push(Cause::invalid(format!("{at}.operator"), format!("{value:?}"), says));
        }
        if !matches!(operator, "" | "Equal" | "Exists" | "Lt" | "Gt") {
            wrong.push(Cause::not_supported(
                format!("{at}.operator"),
                format!("{operator:?}"),
                &["Equal", "Exists"],
            ));
        }
        let effect = text_at(toleration, "effect");
        if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let allowed = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
            wrong.push(Cause::not_supported(
                format!("{at}.effect"),
                format!("{effect:?}"),
                &allowed,
            ));
        }
    }
}

fn validate_spread(spec: &Value, field: &str, wrong: &mut Vec<Cause>) {
    for (i, spread) in list_at(spec, "topologySpreadConstraints").iter().enumerate() {
        let at = format!("{field}.topologySpreadConstraints[{i}]");
        if spread["maxSkew"].as_i64().unwrap_or_default() <= 0 {
            wrong.push(Cause::invalid(
                format!("{at}.maxSkew"),
                &spread["maxSkew"],
                "must be greater than 0",
            ));
        }
        if text_at(spread, "topologyKey").is_empty() {
            wrong.push(Cause::required(format!("{at}.topologyKey"), "can not be empty"));
        }
        one_of(
            spread,
            &at,
            "whenUnsatisfiable",
            &["DoNotSchedule", "ScheduleAnyway"],
            wrong,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::pod_spec::default_spec;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let mut spec = json!({"containers": [{"name": "A", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/a"}]}, {"name": "b"}]});
        default_spec(&mut spec);
        let mut wrong = Vec::new();
        validate_spec(&spec, "spec", &mut wrong);
        let fields: Vec<&str> = wrong.iter().map(|c| c.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.containers[0].name",
                "spec.containers[0].volumeMounts[0].name",
                "spec.containers[1].image"
            ]
        );
    }
}
