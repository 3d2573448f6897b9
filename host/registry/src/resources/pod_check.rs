//! The pod spec: what is refused, for pods and for every template of pods, with the field that is wrong.
//!
//! Source: "Pod" and "Container" of the Kubernetes API reference, field by field.

use model::{Cause, CauseReason, Quantity, text};
use serde_json::Value;

use crate::names::{validate_annotations, validate_labels};
use crate::resources::check::At;
use crate::resources::{pod_affinity, pod_security, pod_volumes};
use crate::table::{at, plain, text_at};

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
    let mut spec = At::new(spec, field, wrong);
    let volumes = pod_volumes::validate(&mut spec);
    let claims: Vec<&str> = spec.list("resourceClaims").iter().map(|c| text_at(c, "name")).collect();
    resource_claims(&mut spec);
    if spec.list("containers").is_empty() {
        spec.under("containers").required("");
    }
    let around = Around {
        volumes: &volumes,
        claims: &claims,
        host_network: spec.value["hostNetwork"] == true,
        grace: spec.int("terminationGracePeriodSeconds").unwrap_or(0),
    };
    let mut names: Vec<&str> = Vec::new();
    let mut host_ports: Vec<(String, String, i64)> = Vec::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        // Those of the lists before: what an ephemeral container may look at.
        let lasting = names.clone();
        spec.each(list, |mut container| {
            let name = container.text("name");
            if names.contains(&name) && !name.is_empty() {
                container.under("name").duplicate();
            }
            names.push(name);
            validate_container(&mut container, &around);
            match list {
                "ephemeralContainers" => ephemeral(&mut container, &lasting),
                _ => probes(&mut container, list, around.grace),
            }
            if list == "containers" {
                conflicts(&mut container, &mut host_ports);
            }
        });
    }
    spec.one_of("restartPolicy", &["Always", "OnFailure", "Never"]);
    spec.one_of(
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    pod_security::validate_pod(&mut spec);
    pod_affinity::validate(&mut spec);
    pod_security::validate_names(&mut spec);
    pod_security::validate_gates(&mut spec);
    spec.may_fit("serviceAccountName", text::dns1123_subdomain);
    spec.may_fit("nodeName", text::dns1123_subdomain);
    spec.at_least("terminationGracePeriodSeconds", 0);
    spec.in_range("activeDeadlineSeconds", 1..=i64::from(i32::MAX));
    spec.may_fit("hostname", text::dns1123_label);
    spec.may_fit("subdomain", text::dns1123_label);
    spec.may_fit("priorityClassName", text::dns1123_subdomain);
    spec.may_fit("runtimeClassName", text::dns1123_subdomain);
    spec.may_be_one_of("preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    spec.entries("overhead", |name, mut amount| {
        resource_name(name, &mut amount);
        amount.quantity_not_negative();
    });
    if spec.has("os") {
        spec.one_of("os.name", &["linux", "windows"]);
    }
    if spec.has("resources") {
        requirements(spec.under("resources"), &claims);
    }
}

/// What of the pod its containers may refer to.
struct Around<'a> {
    volumes: &'a [&'a str],
    claims: &'a [&'a str],
    host_network: bool,
    grace: i64,
}

fn resource_claims(spec: &mut At<'_, '_>) {
    let mut seen: Vec<&str> = Vec::new();
    spec.each("resourceClaims", |mut claim| {
        let name = claim.text("name");
        claim.need_fit("name", text::dns1123_label);
        if seen.contains(&name) {
            claim.under("name").duplicate();
        }
        seen.push(name);
        let one = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
        match (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName")) {
            (true, true) => {
                claim.invalid("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
            }
            (false, false) => claim.invalid(one),
            _ => {}
        }
        claim.may_fit("resourceClaimName", text::dns1123_subdomain);
        claim.may_fit("resourceClaimTemplateName", text::dns1123_subdomain);
    });
}

fn validate_container(container: &mut At<'_, '_>, around: &Around<'_>) {
    container.need_fit("name", text::dns1123_label);
    let image = container.text("image");
    if container.need("image", "") && image.trim() != image {
        container
            .under("image")
            .invalid("must not have leading or trailing whitespace");
    }
    container.one_of("terminationMessagePolicy", &["FallbackToLogsOnError", "File"]);
    ports(container, around.host_network);
    container.each("env", env);
    container.each("envFrom", |mut from| {
        from.may_fit("prefix", env_name);
        match (from.has("configMapRef"), from.has("secretRef")) {
            (false, false) => {
                let says = "must specify one of: `configMapRef` or `secretRef`";
                let cause = Cause::invalid(from.path(), "\"\"", says);
                from.push(cause);
            }
            (true, true) => {
                let says = "may not have more than one field specified at a time";
                let cause = Cause::invalid(from.path(), "\"\"", says);
                from.push(cause);
            }
            (true, false) => from.must("configMapRef.name"),
            (false, true) => from.must("secretRef.name"),
        }
    });
    mounts(container, around.volumes);
    if !image.is_empty() {
        container.one_of("imagePullPolicy", &["Always", "IfNotPresent", "Never"]);
    }
    requirements(container.under("resources"), around.claims);
    let mut seen: Vec<&str> = Vec::new();
    container.each("resizePolicy", |mut policy| {
        let resource = policy.text("resourceName");
        policy.one_of("resourceName", &["cpu", "memory"]);
        policy.one_of("restartPolicy", &["NotRequired", "RestartContainer"]);
        if seen.contains(&resource) {
            policy.under("resourceName").duplicate();
        }
        seen.push(resource);
    });
    if container.has("securityContext") {
        pod_security::validate_container(container.under("securityContext"));
    }
}

fn ports(container: &mut At<'_, '_>, host_network: bool) {
    let mut names: Vec<&str> = Vec::new();
    container.each("ports", |mut port| {
        let name = port.text("name");
        if !name.is_empty() {
            let complaints = port_name(name);
            let fits = complaints.is_empty();
            port.under("name").fits(|_| complaints);
            if fits && names.contains(&name) {
                port.under("name").duplicate();
            }
            names.push(name);
        }
        match port.int("containerPort").unwrap_or(0) {
            0 => port.under("containerPort").required(""),
            _ => port.port("containerPort"),
        }
        let on_host = port.int("hostPort").unwrap_or(0);
        if on_host != 0 {
            port.port("hostPort");
        }
        if host_network && on_host != port.int("containerPort").unwrap_or(0) {
            let says = "must match `containerPort` when `hostNetwork` is true";
            port.under("hostPort").invalid(says);
        }
        port.one_of("protocol", &["SCTP", "TCP", "UDP"]);
        if !port.text("hostIP").is_empty() && port.text("hostIP").parse::<std::net::IpAddr>().is_err() {
            port.under("hostIP").invalid(super::common::NOT_IP);
        }
    });
}

/// No two containers of a pod take the same port of the node.
fn conflicts(container: &mut At<'_, '_>, taken: &mut Vec<(String, String, i64)>) {
    container.each("ports", |mut port| {
        let number = port.int("hostPort").unwrap_or(0);
        if number == 0 {
            return;
        }
        let (protocol, ip) = (port.text("protocol"), port.text("hostIP"));
        let this = (protocol.to_owned(), ip.to_owned(), number);
        if taken.contains(&this) {
            let shown = format!("\"{protocol}/{ip}/{number}\"");
            let cause = Cause::duplicate(port.path_of("hostPort"), shown);
            port.push(cause);
        }
        taken.push(this);
    });
}

fn env_name(name: &str) -> Vec<String> {
    if name.contains('=') || !name.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        ];
    }
    Vec::new()
}

fn env(mut env: At<'_, '_>) {
    env.need_fit("name", env_name);
    if !env.has("valueFrom") {
        return;
    }
    let value = !env.text("value").is_empty();
    let mut from = env.under("valueFrom");
    let mut count = 0;
    for kind in [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ] {
        if !from.has(kind) {
            continue;
        }
        count += 1;
        let of = from.under(kind);
        match kind {
            "fieldRef" => pod_volumes::field_ref(of, &pod_volumes::ENV_FIELDS),
            "resourceFieldRef" => pod_volumes::resource_ref(of, false),
            "configMapKeyRef" | "secretKeyRef" => pod_volumes::key_ref(of),
            _ => {}
        }
    }
    let says = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    let cause = Cause::invalid(from.path(), "\"\"", says);
    from.push(cause);
}

fn mounts(container: &mut At<'_, '_>, volumes: &[&str]) {
    let devices = container.list("volumeDevices");
    let privileged = container.value["securityContext"]["privileged"] == true;
    let mut paths: Vec<&str> = Vec::new();
    container.each("volumeMounts", |mut mount| {
        let (name, path) = (mount.text("name"), mount.text("mountPath"));
        mount.need("name", "");
        if !volumes.contains(&name) {
            let cause = not_found(mount.path_of("name"), name);
            mount.push(cause);
        }
        mount.need("mountPath", "");
        if paths.contains(&path) {
            mount.under("mountPath").invalid("must be unique");
        }
        paths.push(path);
        if devices.iter().any(|d| d["name"] == name) {
            mount.under("name").invalid("must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| d["devicePath"] == path) {
            mount
                .under("mountPath")
                .invalid("must not already exist as a path in volumeDevices");
        }
        let sub = !mount.text("subPath").is_empty();
        if sub {
            pod_volumes::local(mount.under("subPath"));
        }
        if !mount.text("subPathExpr").is_empty() {
            if sub {
                mount
                    .under("subPathExpr")
                    .invalid("subPathExpr and subPath are mutually exclusive");
            }
            pod_volumes::local(mount.under("subPathExpr"));
        }
        mount.may_be_one_of("mountPropagation", &["Bidirectional", "HostToContainer", "None"]);
        if mount.text("mountPropagation") == "Bidirectional" && !privileged {
            mount
                .under("mountPropagation")
                .forbidden("Bidirectional mount propagation is available only to privileged containers");
        }
    });
    container.each("volumeDevices", |mut device| {
        device.need("name", "");
        let name = device.text("name");
        if !volumes.contains(&name) {
            let cause = not_found(device.path_of("name"), name);
            device.push(cause);
        }
        if device.text("devicePath").is_empty() {
            device.under("devicePath").required("");
        }
    });
}

/// What probes and hooks a container may have depends on which list it is in.
fn probes(container: &mut At<'_, '_>, list: &str, grace: i64) {
    let sidecar = container.value["restartPolicy"] == "Always";
    let parts = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];
    if list == "initContainers" && !sidecar {
        for part in parts {
            if container.has(part) {
                container
                    .under(part)
                    .forbidden("may not be set for init containers without restartPolicy=Always");
            }
        }
        return;
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        if container.has(hook) {
            handler(&mut container.under(hook), grace);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.has(probe) {
            validate_probe(container.under(probe), probe, grace);
        }
    }
}

/// Somebody looks at the pod with it; all that would make it a part of what the pod does is refused (KEP-277).
fn ephemeral(container: &mut At<'_, '_>, lasting: &[&str]) {
    const NOT_HERE: &str = "cannot be set for an Ephemeral Container";
    let target = container.text("targetContainerName");
    if !target.is_empty() && !lasting.contains(&target) {
        container.under("targetContainerName").not_found();
    }
    let empty = |part: &str| match &container.value[part] {
        Value::Array(list) => list.is_empty(),
        // No limits and no requests are none; a probe or a hook that says nothing is one.
        Value::Object(members) => part == "resources" && members.is_empty(),
        other => other.is_null(),
    };
    let parts = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let given: Vec<&str> = parts.into_iter().filter(|part| !empty(part)).collect();
    for part in given {
        container.under(part).forbidden(NOT_HERE);
    }
    // The mount that stands for a part of a volume would stay until the pod goes.
    container.each("volumeMounts", |mut mount| {
        for part in ["subPath", "subPathExpr"] {
            if !mount.text(part).is_empty() {
                mount.under(part).forbidden(NOT_HERE);
            }
        }
    });
}

fn validate_probe(mut probe: At<'_, '_>, kind: &str, grace: i64) {
    handler(&mut probe, grace);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.at_least(key, 0);
    }
    if probe.int("terminationGracePeriodSeconds").is_some_and(|s| s <= 0) {
        probe
            .under("terminationGracePeriodSeconds")
            .invalid("must be greater than 0");
    }
    if kind == "readinessProbe" {
        if probe.has("terminationGracePeriodSeconds") {
            probe
                .under("terminationGracePeriodSeconds")
                .invalid("must not be set for readinessProbes");
        }
    } else if probe.int("successThreshold").is_some_and(|n| n != 1) {
        probe.under("successThreshold").invalid("must be 1");
    }
}

/// Exactly one thing to do.
fn handler(of: &mut At<'_, '_>, grace: i64) {
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
    let given: Vec<&str> = kinds.into_iter().filter(|k| of.has(k)).collect();
    for more in given.iter().skip(1) {
        of.under(more).forbidden("may not specify more than 1 handler type");
    }
    let Some(kind) = given.first() else {
        return of.required("must specify a handler type");
    };
    let mut action = of.under(kind);
    match *kind {
        "exec" if action.list("command").is_empty() => action.under("command").required(""),
        "httpGet" => {
            action.need("path", "");
            number_or_name(&mut action, "port");
            if !matches!(action.text("scheme"), "HTTP" | "HTTPS") {
                action.under("scheme").not_supported(&["HTTP", "HTTPS"]);
            }
            let field = action.path_of("httpHeaders");
            action.each("httpHeaders", |mut header| {
                let name = header.text("name");
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                    let says = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                    header.push(Cause::invalid(field.clone(), format!("{name:?}"), says));
                }
            });
        }
        "tcpSocket" => number_or_name(&mut action, "port"),
        "grpc" => action.port("port"),
        "sleep" => {
            let seconds = action.int("seconds").unwrap_or(0);
            if seconds < 0 || seconds > grace {
                let says = format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({grace}). Enable AllowPodLifecycleSleepActionZeroValue feature gate for zero sleep."
                );
                action.invalid(&says);
            }
        }
        _ => {}
    }
}

fn number_or_name(action: &mut At<'_, '_>, key: &str) {
    match action.value.get(key) {
        Some(Value::String(name)) => {
            let complaints = port_name(name);
            action.under(key).fits(|_| complaints);
        }
        _ => action.port(key),
    }
}

fn not_found(field: String, name: &str) -> Cause {
    Cause {
        reason: CauseReason::NotFound,
        field,
        message: format!("Not found: {name:?}"),
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

/// Resources that a container may ask for without a domain.
fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn resource_name(name: &str, amount: &mut At<'_, '_>) {
    let mut complaints = text::qualified_name(name);
    if complaints.is_empty() && !name.contains('/') && !is_standard(name) {
        complaints.push("must be a standard resource type or fully qualified".into());
        complaints.push("must be a standard resource for containers".into());
    }
    for complaint in complaints {
        let cause = Cause::invalid(amount.path(), format!("{name:?}"), &complaint);
        amount.push(cause);
    }
}

/// Requests and limits: each an amount, and no request above its limit.
fn requirements(mut resources: At<'_, '_>, claims: &[&str]) {
    let amount = |value: &Value| Quantity::parse(&plain(value)).ok();
    for part in ["limits", "requests"] {
        resources.entries(part, |name, mut value| {
            resource_name(name, &mut value);
            value.quantity_not_negative();
            let whole = name.contains('/') && amount(value.value).is_some_and(|q| q.milli() % 1000 != 0);
            if whole {
                value.invalid("must be an integer");
            }
        });
    }
    let limits = resources.value["limits"].as_object();
    let mut found = Vec::new();
    for (name, request) in resources.value["requests"].as_object().into_iter().flatten() {
        let limit = limits.and_then(|l| l.get(name));
        // What cannot be shared cannot be overcommitted either.
        let fixed = name.contains('/') || name.starts_with("hugepages-");
        let field = resources.path_of("requests");
        match (amount(request), limit.and_then(amount), limit) {
            (Some(asked), Some(most), Some(limit)) if fixed && asked != most => {
                let says = format!("must be equal to {name} limit of {}", plain(limit));
                found.push(Cause::invalid(field, format!("{:?}", plain(request)), &says));
            }
            (Some(asked), Some(most), Some(limit)) if asked > most => {
                let says = format!("must be less than or equal to {name} limit of {}", plain(limit));
                found.push(Cause::invalid(field, format!("{:?}", plain(request)), &says));
            }
            (Some(_), None, None) if fixed => {
                let says = "Limit must be set for non overcommitable resources";
                found.push(Cause::required(resources.path_of("limits"), says));
            }
            _ => {}
        }
    }
    found.into_iter().for_each(|cause| resources.push(cause));
    let names = |part: &str| {
        let map = resources.value[part].as_object();
        map.into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    let all = [names("limits"), names("requests")].concat();
    let (huge, usual) = (
        all.iter().any(|n| n.starts_with("hugepages-")),
        all.iter().any(|n| n == "cpu" || n == "memory"),
    );
    if huge && !usual {
        resources.forbidden("HugePages require cpu or memory");
    }
    let mut seen: Vec<&str> = Vec::new();
    resources.each("claims", |mut claim| {
        let name = claim.text("name");
        if claim.need("name", "") && !claims.contains(&name) {
            claim.under("name").not_found();
        }
        if seen.contains(&name) {
            claim.under("name").duplicate();
        }
        seen.push(name);
    });
}

/// `tolerations` below `of`.
pub(crate) fn validate_tolerations(of: &Value, field: &str, wrong: &mut Vec<Cause>) {
    At::new(of, field, wrong).each("tolerations", pod_affinity::toleration);
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
