//! Node: a machine that runs pods. Its kubelet writes the status and renews a Lease in `kube-node-lease`.

use model::{Cause, Gvk, Verb};
use serde_json::{Value, json};

use crate::meta;
use crate::resource::{Resource, status_and_metadata};
use crate::resources::common::default;
use crate::table::{Column, list_at, text_at};

pub(crate) fn resource() -> Resource {
    Resource::cluster("", "v1", "Node", "nodes")
        .short(&["no"])
        .stored_under("/registry/minions/")
        .no_generation()
        .born_with_status()
        .columns(vec![
            Column::computed("Status", |node, _| state(node).into()).about("The status of the node"),
            Column::computed("Roles", |node, _| roles(node).into()).about("The roles of the node"),
            Column::age(),
            Column::text_or("Version", "status.nodeInfo.kubeletVersion", "")
                .about("Kubelet Version reported by the node."),
            Column::computed("Internal-IP", |node, _| address_of(node, "InternalIP").into()).wide(),
            Column::computed("External-IP", |node, _| address_of(node, "ExternalIP").into()).wide(),
            Column::text_or("OS-Image", "status.nodeInfo.osImage", "<unknown>").wide(),
            Column::text_or("Kernel-Version", "status.nodeInfo.kernelVersion", "<unknown>").wide(),
            Column::text_or(
                "Container-Runtime",
                "status.nodeInfo.containerRuntimeVersion",
                "<unknown>",
            )
            .wide(),
        ])
        .selectable_or("spec.unschedulable", "false")
        .prepare(prepare)
        .validate(validate)
        .status_door(status_part, validate)
        .stream(
            "proxy",
            Some(Gvk::new("", "v1", "NodeProxyOptions")),
            &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        )
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    if old.is_none() && !new["status"].is_object() {
        new["status"] = json!({});
    }
    allocatable(new);
    if let Some(old) = old {
        // Addresses of pods are given once.
        for key in ["podCIDR", "podCIDRs"] {
            let had = old["spec"].get(key).filter(|v| !v.is_null());
            if let (Some(had), Some(spec)) = (had, new.get_mut("spec").filter(|s| s.get(key).is_none())) {
                meta::put(spec, key, Some(had.clone()));
            }
        }
    }
}

/// All that a node has may be used, unless its kubelet says otherwise.
fn allocatable(node: &mut Value) {
    let capacity = node["status"].get("capacity").filter(|c| c.is_object()).cloned();
    if let (Some(capacity), Some(status)) = (capacity, node.get_mut("status")) {
        default(status, "allocatable", capacity);
    }
}

fn status_part(new: &mut Value, old: &Value) {
    status_and_metadata(new, old);
    allocatable(new);
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in list_at(new, "spec.taints").iter().enumerate() {
        let field = |key: &str| format!("metadata.taints[{i}].{key}");
        let (key, effect) = (text_at(taint, "key"), text_at(taint, "effect"));
        for complaint in model::text::qualified_name(key) {
            wrong.push(Cause::invalid(field("key"), format!("{key:?}"), &complaint));
        }
        for complaint in model::text::label_value(text_at(taint, "value")) {
            wrong.push(Cause::invalid(field("value"), &taint["value"], &complaint));
        }
        match effect {
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            "" => wrong.push(Cause::required(field("effect"), "")),
            _ => {
                let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
                wrong.push(Cause::not_supported(field("effect"), format!("{effect:?}"), &effects));
            }
        }
        if seen.contains(&(key, effect)) {
            let says = format!("Duplicate value: {taint}: taints must be unique by key and effect pair");
            wrong.push(Cause {
                reason: model::CauseReason::Duplicate,
                field: format!("metadata.taints[{i}]"),
                message: says,
            });
        }
        seen.push((key, effect));
    }
    let Some(old) = old else { return };
    for key in ["podCIDR", "podCIDRs", "providerID"] {
        let (now, before) = (&new["spec"][key], &old["spec"][key]);
        if !before.is_null() && before != "" && now != before {
            let says = format!("node updates may not change {key} except from \"\" to valid");
            wrong.push(Cause::forbidden(format!("spec.{key}"), &says));
        }
    }
}

fn address_of<'a>(node: &'a Value, kind: &str) -> &'a str {
    let found = list_at(node, "status.addresses").iter().find(|a| a["type"] == kind);
    found.map(|a| text_at(a, "address")).unwrap_or("<none>")
}

fn state(node: &Value) -> String {
    let ready = list_at(node, "status.conditions").iter().find(|c| c["type"] == "Ready");
    let mut state = match ready.map(|c| text_at(c, "status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    state
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            None if key == "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".into()
    } else {
        roles.join(",")
    }
}
