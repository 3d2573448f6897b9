//! Pod: containers that live and die together on one node.
//!
//! `spec` is the user's and hardly changes after creation; `spec.nodeName` comes through `binding`; `status` is the
//! kubelet's. Deletion is graceful: the pod is marked, the kubelet stops it and deletes it with grace 0.

use jiff::Timestamp;
use model::{Cause, Gvk, Verb, text};
use serde_json::{Value, json};

use crate::meta;
use crate::resource::{Deletion, Door, Resource};
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::resources::{binding, eviction, pod_check, pod_spec};
use crate::table::{Column, at, int_at, list_at, since, text_at};

pub(crate) fn resource() -> Resource {
    let connect = &[Verb::Create, Verb::Get];
    let options = |kind| Some(Gvk::new("", "v1", kind));
    Resource::namespaced("", "v1", "Pod", "pods")
        .short(&["po"])
        .categories(&["all"])
        .columns(vec![
            Column::computed("Ready", |pod, _| ready(pod).into())
                .about("The aggregate readiness state of this pod for accepting traffic."),
            Column::computed("Status", |pod, _| state(pod).into()).about("The aggregate status of the containers in this pod."),
            Column::computed("Restarts", |pod, now| restarts(pod, now).into())
                .about("The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
            Column::age(),
            Column::text("IP", "status.podIP").wide().about("IP address allocated to the pod."),
            Column::text("Node", "spec.nodeName").wide().about("Name of the node the pod is scheduled onto."),
            Column::text("Nominated Node", "status.nominatedNodeName").wide().about("Node on which the pod may run once preempted pods are gone."),
            Column::computed("Readiness Gates", |pod, _| gates(pod).into()).wide().about("Conditions that count toward readiness."),
        ])
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ])
        .selectable_or("spec.hostNetwork", "false")
        .deletion(Deletion::Graceful(grace))
        .prepare(prepare)
        .validate(validate)
        .status_checked(validate_status)
        .act("binding", Gvk::new("", "v1", "Binding"), binding::bind)
        .act("eviction", Gvk::new("policy", "v1", "Eviction"), eviction::evict)
        .door("ephemeralcontainers", None, &[Verb::Get, Verb::Patch, Verb::Update], Door::Part(only_ephemeral, validate_ephemeral))
        .door("resize", None, &[Verb::Get, Verb::Patch, Verb::Update], Door::Part(only_resources, validate_resize))
        .stream("log", None, &[Verb::Get])
        .stream("exec", options("PodExecOptions"), connect)
        .stream("attach", options("PodAttachOptions"), connect)
        .stream("portforward", options("PodPortForwardOptions"), connect)
        .stream("proxy", options("PodProxyOptions"), &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update])
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    let Some(spec) = new.get_mut("spec") else {
        return;
    };
    pod_spec::default_spec(spec);
    pod_spec::requests_from_limits(spec);
    default(spec, "enableServiceLinks", true);
    if old.is_none() {
        let qos = pod_spec::qos(spec);
        new["status"] = json!({"phase": "Pending", "qosClass": qos});
        if !list_at(new, "spec.schedulingGates").is_empty() {
            new["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "lastProbeTime": null,
                "lastTransitionTime": null, "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
        }
    }
}

/// The pod's own grace unless the caller has a wish; none for a pod that runs nowhere or has come to its end.
fn grace(pod: &Value, wish: Option<u64>) -> u64 {
    let phase = text_at(pod, "status.phase");
    if text_at(pod, "spec.nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    wish.unwrap_or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30))
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    match old {
        None => {
            pod_check::validate_spec(&new["spec"], "spec", wrong);
            if !list_at(new, "spec.ephemeralContainers").is_empty() {
                wrong.push(Cause::forbidden("spec.ephemeralContainers", "cannot be set on create"));
            }
        }
        Some(old) => validate_change(new, old, wrong),
    }
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let not_negative = |at: &mut At<'_, '_>| {
        if at.int("observedGeneration").is_some_and(|n| n < 0) {
            at.under("observedGeneration").invalid("must be a non-negative integer");
        }
    };
    let mut status = At::new(&new["status"], "status", wrong);
    status.each("conditions", |mut condition| {
        not_negative(&mut condition);
        condition.under("type").fits(text::qualified_name);
    });
    not_negative(&mut status);
}

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A pod is what it was made as, but for a few fields.
fn validate_change(new: &Value, old: &Value, wrong: &mut Vec<Cause>) {
    if new.get("spec") == old.get("spec") {
        return;
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in list_at(new, &format!("spec.{list}")).iter().enumerate() {
            if text_at(container, "image").is_empty() {
                wrong.push(Cause::required(format!("spec.{list}[{i}].image"), ""));
            }
        }
    }
    let (deadline, before) = (
        new["spec"]["activeDeadlineSeconds"].as_i64(),
        old["spec"]["activeDeadlineSeconds"].as_i64(),
    );
    if let Some(before) = before {
        let field = "spec.activeDeadlineSeconds";
        match deadline {
            None => wrong.push(Cause::invalid(
                field,
                "null",
                "must not update from a positive integer to nil value",
            )),
            Some(after) if after > before => {
                wrong.push(Cause::invalid(
                    field,
                    after,
                    "must be less than or equal to previous value",
                ));
            }
            Some(_) => {}
        }
    }
    let tolerations = list_at(new, "spec.tolerations");
    for toleration in list_at(old, "spec.tolerations") {
        let same = |t: &&Value| {
            ["key", "operator", "value", "effect"]
                .iter()
                .all(|k| t.get(*k) == toleration.get(*k))
        };
        if !tolerations.iter().any(|t| same(&t)) {
            let says = "existing toleration can not be modified except its tolerationSeconds";
            wrong.push(Cause::forbidden("spec.tolerations", says));
        }
    }
    let gates = list_at(old, "spec.schedulingGates");
    for (i, gate) in list_at(new, "spec.schedulingGates").iter().enumerate() {
        if !gates.contains(gate) {
            let says = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                text_at(gate, "name")
            );
            wrong.push(Cause::forbidden(format!("spec.schedulingGates[{i}].name"), &says));
        }
    }
    // Put everything back that may change; what still differs may not.
    let mut rest = new["spec"].clone();
    let was = &old["spec"];
    for list in ["containers", "initContainers"] {
        let before = list_at(was, list);
        for (i, container) in rest
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .enumerate()
        {
            if let Some(image) = before.get(i).and_then(|c| c.get("image")) {
                container["image"] = image.clone();
            }
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        meta::put(&mut rest, key, was.get(key).cloned());
    }
    if was["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0)
        && rest["terminationGracePeriodSeconds"] == 1
    {
        rest["terminationGracePeriodSeconds"] = was["terminationGracePeriodSeconds"].clone();
    }
    // A pod held by a gate may still narrow where it can go.
    if !gates.is_empty() {
        for key in ["nodeSelector", "affinity"] {
            meta::put(&mut rest, key, was.get(key).cloned());
        }
    }
    if rest != *was {
        wrong.push(Cause::forbidden("spec", MAY_CHANGE));
    }
}

fn only_ephemeral(new: &mut Value, old: &Value) {
    let mut containers = new.pointer_mut("/spec/ephemeralContainers").map(Value::take);
    keep_rest(new, old);
    if let Some(list) = containers.as_mut().and_then(Value::as_array_mut) {
        let mut spec = json!({"ephemeralContainers": list.clone()});
        pod_spec::default_spec(&mut spec);
        *list = spec["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    }
    meta::put(child(new, "spec"), "ephemeralContainers", containers);
}

/// Ephemeral containers come, and neither change nor go.
fn validate_ephemeral(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    if old.is_some_and(|old| !old["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null()) {
        return wrong.push(Cause::forbidden("", "static pods do not support ephemeral containers"));
    }
    pod_check::validate_spec(&new["spec"], "spec", wrong);
    let now = list_at(new, "spec.ephemeralContainers");
    let before = old.map(|old| list_at(old, "spec.ephemeralContainers"));
    for container in before.into_iter().flatten() {
        let field = "spec.ephemeralContainers";
        match now.iter().find(|c| c["name"] == container["name"]) {
            None => {
                let says = format!(
                    "existing ephemeral containers {} may not be removed\n",
                    container["name"]
                );
                wrong.push(Cause::forbidden(field, &says));
            }
            Some(same) if same != container => {
                let says = format!(
                    "existing ephemeral containers {} may not be changed\n",
                    container["name"]
                );
                wrong.push(Cause::forbidden(field, &says));
            }
            Some(_) => {}
        }
    }
}

fn only_resources(new: &mut Value, old: &Value) {
    let sent = new.get("spec").cloned().unwrap_or_default();
    keep_rest(new, old);
    for list in ["containers", "initContainers"] {
        let asked = list_at(&sent, list);
        for container in new["spec"]
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(from) = asked.iter().find(|c| c["name"] == container["name"]) else {
                continue;
            };
            for key in ["resources", "resizePolicy"] {
                meta::put(container, key, from.get(key).cloned());
            }
        }
    }
}

fn validate_resize(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    pod_check::validate_spec(&new["spec"], "spec", wrong);
    if old.is_some_and(|old| pod_spec::qos(&old["spec"]) != pod_spec::qos(&new["spec"])) {
        wrong.push(Cause::invalid(
            "spec",
            format!("{:?}", pod_spec::qos(&new["spec"])),
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
}

/// The old object with the new one's version and managers.
fn keep_rest(new: &mut Value, old: &Value) {
    let version = new.pointer("/metadata/resourceVersion").cloned();
    let managed = new.pointer("/metadata/managedFields").cloned();
    *new = old.clone();
    meta::put(child(new, "metadata"), "resourceVersion", version);
    meta::put(child(new, "metadata"), "managedFields", managed);
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(pod, "status.conditions").iter().find(|c| c["type"] == kind)
}

/// Init containers that keep running beside the others (KEP-753).
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn ready(pod: &Value) -> String {
    let sidecars: Vec<&str> = list_at(pod, "spec.initContainers")
        .iter()
        .filter(|c| is_sidecar(c))
        .map(|c| text_at(c, "name"))
        .collect();
    let total = list_at(pod, "spec.containers").len() + sidecars.len();
    let running = |status: &&Value| status["ready"] == true && !status["state"]["running"].is_null();
    let main = list_at(pod, "status.containerStatuses").iter().filter(running).count();
    let beside = list_at(pod, "status.initContainerStatuses")
        .iter()
        .filter(|s| sidecars.contains(&text_at(s, "name")) && s["ready"] == true && s["started"] == true)
        .count();
    format!("{}/{total}", main + beside)
}

/// The STATUS column: the phase, or what keeps a container from running.
fn state(pod: &Value) -> String {
    let mut reason = text_at(pod, "status.phase").to_owned();
    if !text_at(pod, "status.reason").is_empty() {
        reason = text_at(pod, "status.reason").to_owned();
    }
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let ended = |terminated: &Value| match text_at(terminated, "reason") {
        "" if terminated["signal"].as_i64().unwrap_or(0) != 0 => {
            format!("Signal:{}", terminated["signal"])
        }
        "" => format!("ExitCode:{}", int_at(terminated, "exitCode")),
        reason => reason.to_owned(),
    };
    let mut initializing = false;
    let init = list_at(pod, "spec.initContainers");
    for (i, status) in list_at(pod, "status.initContainerStatuses").iter().enumerate() {
        let state = &status["state"];
        let sidecar = init.iter().any(|c| c["name"] == status["name"] && is_sidecar(c));
        if state["terminated"].is_object() && int_at(state, "terminated.exitCode") == 0
            || sidecar && status["started"] == true
        {
            continue;
        }
        reason = match (state["terminated"].is_object(), text_at(state, "waiting.reason")) {
            (true, _) => format!("Init:{}", ended(&state["terminated"])),
            (false, waiting) if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            _ => format!("Init:{i}/{}", init.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || condition(pod, "Initialized").is_some_and(|c| c["status"] == "True") {
        let mut running = false;
        for status in list_at(pod, "status.containerStatuses").iter().rev() {
            let state = &status["state"];
            if !text_at(state, "waiting.reason").is_empty() {
                reason = text_at(state, "waiting.reason").to_owned();
            } else if state["terminated"].is_object() {
                reason = ended(&state["terminated"]);
            } else if status["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let is_ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
            reason = if is_ready { "Running".into() } else { "NotReady".into() };
        }
    }
    if meta::is_dying(pod) {
        return match text_at(pod, "status.reason") {
            "NodeLost" => "Unknown".into(),
            _ if matches!(text_at(pod, "status.phase"), "Succeeded" | "Failed") => reason,
            _ => "Terminating".into(),
        };
    }
    reason
}

fn restarts(pod: &Value, now: Timestamp) -> String {
    let sidecar = |name: &Value| {
        list_at(pod, "spec.initContainers")
            .iter()
            .any(|c| c["name"] == *name && is_sidecar(c))
    };
    let statuses = list_at(pod, "status.containerStatuses").iter().chain(
        list_at(pod, "status.initContainerStatuses")
            .iter()
            .filter(|s| sidecar(&s["name"])),
    );
    let (mut count, mut last) = (0, "");
    for status in statuses {
        count += int_at(status, "restartCount");
        last = last.max(text_at(status, "lastState.terminated.finishedAt"));
    }
    if count == 0 || last.is_empty() {
        return count.to_string();
    }
    format!("{count} ({} ago)", since(Some(&last.into()), now))
}

fn gates(pod: &Value) -> String {
    let gates = list_at(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = |gate: &&Value| condition(pod, text_at(gate, "conditionType")).is_some_and(|c| c["status"] == "True");
    format!("{}/{}", gates.iter().filter(open).count(), gates.len())
}

/// A label or annotation value of a template or object, for other kinds' columns.
pub(crate) fn containers(template: &Value) -> String {
    join(template, "name")
}

pub(crate) fn images(template: &Value) -> String {
    join(template, "image")
}

fn join(template: &Value, key: &str) -> String {
    let containers = at(template, "spec.containers").and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .map(|c| text_at(c, key))
        .collect::<Vec<_>>()
        .join(",")
}
