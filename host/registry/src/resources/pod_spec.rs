//! The pod spec: what is filled in and what is refused, for pods and for every template of pods.
//!
//! Source: "Pod" and "Container" of the Kubernetes API reference, field by field.

use model::{Cause, CauseReason, Quantity, text};
use serde_json::{Value, json};

use crate::names::{validate_annotations, validate_labels};
use crate::resources::common::{child, default};
use crate::table::{at, list_at, plain, text_at};

/// The three lists of containers, in the order they are shown.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Mode 0644, of files made from ConfigMaps and the like.
const FILE_MODE: u32 = 0o644;

/// Fills in a pod spec.
pub(crate) fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "restartPolicy", "Always");
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "securityContext", json!({}));
    // The old name of the field is kept in step with the new one.
    match (
        text_at(spec, "serviceAccountName").to_owned(),
        text_at(spec, "serviceAccount").to_owned(),
    ) {
        (new, _) if !new.is_empty() => spec["serviceAccount"] = new.into(),
        (_, old) if !old.is_empty() => spec["serviceAccountName"] = old.into(),
        _ => {}
    }
    let host_network = spec["hostNetwork"] == true;
    for list in CONTAINERS {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            default_container(container, host_network);
        }
    }
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default_volume(volume);
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    if !container.is_object() {
        return;
    }
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    if let Some(image) = container
        .get("image")
        .and_then(Value::as_str)
        .filter(|i| !i.is_empty())
    {
        let policy = if is_latest(image) {
            "Always"
        } else {
            "IfNotPresent"
        };
        default(container, "imagePullPolicy", policy);
    }
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default(port, "protocol", "TCP");
        if host_network {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            default(port, "hostPort", number);
        }
    }
    for env in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else {
            continue;
        };
        for (key, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            default(probe, key, value);
        }
        default_http(probe);
        if let Some(grpc) = probe.get_mut("grpc") {
            default(grpc, "service", "");
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            default_http(hook);
        }
    }
}

fn default_http(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        default(get, "path", "/");
        default(get, "scheme", "HTTP");
    }
}

/// No tag, or `:latest`, and no digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_volume(volume: &mut Value) {
    let Some(fields) = volume.as_object() else {
        return;
    };
    if fields.keys().all(|k| k == "name") {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(host) = volume.get_mut("hostPath") {
        default(host, "type", "");
    }
    let field_refs = |items: &mut Value| {
        for item in items.as_array_mut().into_iter().flatten() {
            if let Some(field) = item.get_mut("fieldRef") {
                default(field, "apiVersion", "v1");
            }
        }
    };
    if let Some(items) = volume.pointer_mut("/downwardAPI/items") {
        field_refs(items);
    }
    for source in volume
        .pointer_mut("/projected/sources")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(token) = source.get_mut("serviceAccountToken") {
            default(token, "expirationSeconds", 3600);
        }
        if let Some(items) = source.pointer_mut("/downwardAPI/items") {
            field_refs(items);
        }
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        default(claim, "volumeMode", "Filesystem");
    }
}

/// Requests that are not given are what the limits are; of pods only, not of templates.
pub(crate) fn requests_from_limits(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(limits) = at(container, "resources.limits")
                .and_then(Value::as_object)
                .cloned()
            else {
                continue;
            };
            let requests = child(child(container, "resources"), "requests");
            for (name, limit) in limits {
                default(requests, &name, limit);
            }
        }
    }
}

/// `spec.template` of a workload: its metadata and its spec.
pub(crate) fn validate_template(
    template: &Value,
    field: &str,
    restart: &[&str],
    wrong: &mut Vec<Cause>,
) {
    validate_labels(
        at(template, "metadata.labels"),
        &format!("{field}.labels"),
        wrong,
    );
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
    for list in CONTAINERS {
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
    one_of(
        spec,
        field,
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
        wrong,
    );
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
    validate_labels(
        spec.get("nodeSelector"),
        &format!("{field}.nodeSelector"),
        wrong,
    );
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
                wrong.push(Cause::invalid(
                    format!("{at}.name"),
                    format!("{name:?}"),
                    &complaint,
                ));
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
            if volume
                .get(source)
                .is_some_and(|s| text_at(s, key).is_empty())
            {
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
            wrong.push(Cause::invalid(
                format!("{field}.name"),
                format!("{name:?}"),
                &complaint,
            ));
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
                wrong.push(Cause::invalid(
                    format!("{at}.name"),
                    format!("{name:?}"),
                    &complaint,
                ));
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
            let says = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            wrong.push(Cause::invalid(
                format!("{at}.name"),
                format!("{name:?}"),
                says,
            ));
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
        wrong.push(Cause::invalid(
            field,
            number,
            "must be between 1 and 65535, inclusive",
        ));
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
                    wrong.push(Cause::invalid(
                        at,
                        value,
                        "must be greater than or equal to 0",
                    ));
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
        if let (Some(asked), Some(limit)) = (quantity(request), limit) {
            if asked > limit {
                let says = format!("must be less than or equal to {name} limit of {limit}");
                wrong.push(Cause::invalid(
                    format!("{field}.resources.requests"),
                    request,
                    &says,
                ));
            }
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
        _ => wrong.push(Cause::forbidden(
            field,
            "may not specify more than 1 handler type",
        )),
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
            wrong.push(Cause::invalid(
                format!("{at}.operator"),
                format!("{operator:?}"),
                says,
            ));
        }
        if operator == "Exists" && !value.is_empty() {
            let says = "value must be empty when `operator` is 'Exists'";
            wrong.push(Cause::invalid(
                format!("{at}.operator"),
                format!("{value:?}"),
                says,
            ));
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
    for (i, spread) in list_at(spec, "topologySpreadConstraints")
        .iter()
        .enumerate()
    {
        let at = format!("{field}.topologySpreadConstraints[{i}]");
        if spread["maxSkew"].as_i64().unwrap_or_default() <= 0 {
            wrong.push(Cause::invalid(
                format!("{at}.maxSkew"),
                &spread["maxSkew"],
                "must be greater than 0",
            ));
        }
        if text_at(spread, "topologyKey").is_empty() {
            wrong.push(Cause::required(
                format!("{at}.topologyKey"),
                "can not be empty",
            ));
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

/// `Guaranteed`, `Burstable` or `BestEffort`, from what the containers ask for.
pub(crate) fn qos(spec: &Value) -> &'static str {
    let containers = || {
        list_at(spec, "containers")
            .iter()
            .chain(list_at(spec, "initContainers"))
    };
    let amount = |container: &Value, part: &str, name: &str| {
        let value = container.get("resources")?.get(part)?.get(name)?;
        Quantity::parse(&plain(value)).ok().filter(|q| !q.is_zero())
    };
    let asks = |container: &Value| {
        ["cpu", "memory"].iter().any(|n| {
            amount(container, "requests", n)
                .or(amount(container, "limits", n))
                .is_some()
        })
    };
    if !containers().any(asks) {
        return "BestEffort";
    }
    let fixed = |container: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some() && amount(container, "requests", name).or(limit) == limit
        })
    };
    if containers().all(fixed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_container_is_filled_in_as_the_reference_says() {
        let mut spec = json!({"containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}]});
        default_spec(&mut spec);
        let container = &spec["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(
            container["readinessProbe"]["httpGet"],
            json!({"port": 80, "path": "/", "scheme": "HTTP"})
        );
        assert_eq!(container["readinessProbe"]["failureThreshold"], 3);
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(
            (
                &spec["restartPolicy"],
                &spec["terminationGracePeriodSeconds"]
            ),
            (&json!("Always"), &json!(30))
        );
        for (image, latest) in [
            ("a", true),
            ("a:latest", true),
            ("r:5000/a", true),
            ("a:1", false),
            ("a@sha256:0", false),
            ("r:5000/a:1", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn quality_of_service_follows_the_resources() {
        let pod = |resources: Value| json!({"containers": [{"resources": resources}]});
        assert_eq!(qos(&pod(json!({}))), "BestEffort");
        assert_eq!(qos(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(
            qos(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))),
            "Guaranteed"
        );
        assert_eq!(
            qos(&pod(
                json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Gi"}})
            )),
            "Burstable"
        );
    }

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
