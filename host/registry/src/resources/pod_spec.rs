//! The pod spec: what is filled in, for pods and for every template of pods.
//!
//! Source: "Pod" and "Container" of the Kubernetes API reference, field by field.

use model::Quantity;
use serde_json::{Value, json};

use crate::resources::common::{child, default};
use crate::table::{at, list_at, plain, text_at};

/// The three lists of containers, in the order they are shown.
pub(crate) const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

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
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
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
    if let Some(image) = container.get("image").and_then(Value::as_str).filter(|i| !i.is_empty()) {
        let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
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
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(limits) = at(container, "resources.limits").and_then(Value::as_object).cloned() else {
                continue;
            };
            let requests = child(child(container, "resources"), "requests");
            for (name, limit) in limits {
                default(requests, &name, limit);
            }
        }
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
            (&spec["restartPolicy"], &spec["terminationGracePeriodSeconds"]),
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
}
