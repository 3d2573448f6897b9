//! PersistentVolume: a piece of storage in the cluster, bound to one claim or to none. Where it lies cannot change.

use model::{Cause, text};
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::table::{Column, list_at, text_at};

/// The members of `spec` that say where the storage lies.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

pub(crate) const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(crate) fn resource() -> Resource {
    Resource::cluster("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .no_generation()
        .columns(vec![
            Column::text_or("Capacity", "spec.capacity.storage", "").about("How much it holds."),
            Column::computed("Access Modes", |o, _| modes(list_at(o, "spec.accessModes")).into())
                .about("How it may be mounted."),
            Column::text_or("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", "")
                .about("What becomes of it when its claim is gone."),
            Column::computed("Status", |o, _| match o["metadata"]["deletionTimestamp"].is_null() {
                true => text_at(o, "status.phase").into(),
                false => "Terminating".into(),
            })
            .about("Whether it is bound."),
            Column::computed("Claim", |o, _| match text_at(o, "spec.claimRef.name") {
                "" => "".into(),
                name => format!("{}/{name}", text_at(o, "spec.claimRef.namespace")).into(),
            })
            .about("The claim it is bound to."),
            Column::text_or("StorageClass", "spec.storageClassName", "").about("StorageClass of the pv"),
            Column::text_or("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>")
                .about("VolumeAttributesClass of the pv"),
            Column::text_or("Reason", "status.reason", "").about("Why it is in this state."),
            Column::age(),
            Column::text_or("VolumeMode", "spec.volumeMode", "<unset>")
                .wide()
                .about("Whether it is a file system or a block device."),
        ])
        .prepare(prepare)
        .validate(validate)
        .status_checked(|_, _, _| {})
        .stamp(|new, old, now| {
            // When the phase last changed.
            let phase = |o: &Value| text_at(o, "status.phase").to_owned();
            if old.is_none_or(|old| phase(old) != phase(new)) {
                child(new, "status")["lastPhaseTransitionTime"] = model::time::seconds(now).into();
            }
        })
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        new["status"] = json!({"phase": "Pending"});
    }
    let spec = child(new, "spec");
    default(spec, "persistentVolumeReclaimPolicy", "Retain");
    default(spec, "volumeMode", "Filesystem");
    if let Some(claim) = spec.get_mut("claimRef").filter(|c| c.is_object()) {
        default(claim, "kind", "PersistentVolumeClaim");
        default(claim, "apiVersion", "v1");
    }
    if let Some(host) = spec.get_mut("hostPath").filter(|h| h.is_object()) {
        default(host, "type", "");
    }
    if let Some(iscsi) = spec.get_mut("iscsi").filter(|i| i.is_object()) {
        default(iscsi, "iscsiInterface", "default");
    }
}

/// `ReadWriteOnce` is `RWO` in a table.
pub(crate) fn modes(list: &[Value]) -> String {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    list.iter().map(short).collect::<Vec<_>>().join(",")
}

/// At least one mode, each known, and the exclusive one alone.
pub(crate) fn access_modes(spec: &mut At<'_, '_>, says: &str) {
    let modes = spec.list("accessModes");
    if modes.is_empty() {
        spec.under("accessModes").required(says);
    }
    // The list is named, not the element: so upstream does.
    let path = spec.path_of("accessModes");
    spec.each("accessModes", |mut mode| {
        if !ACCESS_MODES.contains(&mode.value.as_str().unwrap_or_default()) {
            let cause = Cause::not_supported(path.clone(), mode.value, &ACCESS_MODES);
            mode.push(cause);
        }
    });
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        spec.under("accessModes")
            .forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    access_modes(&mut spec, "");
    let capacity = spec.value["capacity"].as_object();
    if capacity.is_none_or(|c| c.is_empty()) {
        spec.under("capacity").required("");
    } else if capacity.is_some_and(|c| !c.contains_key("storage") || c.len() > 1) {
        spec.under("capacity").not_supported(&["storage"]);
    }
    spec.entries("capacity", |_, mut amount| {
        if amount.quantity().is_some_and(|q| q <= model::Quantity::default()) {
            amount.invalid("must be greater than zero");
        }
    });
    spec.may_be_one_of("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]);
    spec.may_be_one_of("volumeMode", &["Block", "Filesystem"]);
    let given: Vec<&str> = SOURCES.into_iter().filter(|s| spec.has(s)).collect();
    if given.is_empty() {
        spec.required("must specify a volume type");
    }
    for more in given.iter().skip(1) {
        spec.under(more).forbidden("may not specify more than 1 volume type");
    }
    if let Some(first) = given.first() {
        source(&mut spec, first);
    }
    if spec.text("hostPath.path") == "/" && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let field = "spec.persistentVolumeReclaimPolicy";
        spec.push(Cause::forbidden(
            field,
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
    spec.may_fit("storageClassName", text::dns1123_subdomain);
    for (i, term) in list_at(new, "spec.nodeAffinity.required.nodeSelectorTerms")
        .iter()
        .enumerate()
    {
        let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]");
        super::pod_affinity::node_term(At::new(term, path, wrong));
    }
    let Some(old) = old else { return };
    let place = |o: &Value| SOURCES.map(|s| o["spec"][s].clone());
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if place(new) != place(old) {
        let says = "spec.persistentvolumesource is immutable after creation";
        let cause = Cause::forbidden("spec.persistentvolumesource", says);
        spec.push(cause);
    }
    spec.immutable("volumeMode", &old["spec"]);
    if !old["spec"]["nodeAffinity"].is_null() && spec.value["nodeAffinity"] != old["spec"]["nodeAffinity"] {
        spec.under("nodeAffinity")
            .invalid("field is immutable, except for updating from beta label to GA");
    }
}

/// What each kind of place must say of itself.
fn source(spec: &mut At<'_, '_>, kind: &str) {
    let mut source = spec.under(kind);
    match kind {
        "hostPath" => {
            let given = source.need("path", "");
            if given && source.text("path").split('/').any(|part| part == "..") {
                source.under("path").invalid("must not contain '..'");
            }
        }
        "nfs" => {
            source.need("server", "");
            if source.need("path", "") && !source.text("path").starts_with('/') {
                source.under("path").invalid("must be an absolute path");
            }
        }
        "csi" => {
            source.with("driver", super::csidriver::driver_name);
            source.need("volumeHandle", "");
        }
        "local" => {
            source.need("path", "");
            let affinity = &spec.value["nodeAffinity"]["required"];
            if affinity.is_null() {
                let field = spec.path_of("nodeAffinity");
                spec.push(Cause::required(field, "Local volume requires node affinity"));
            }
        }
        "iscsi" => {
            source.need("targetPortal", "");
            source.need("iqn", "");
        }
        "awsElasticBlockStore" | "cinder" => source.must("volumeID"),
        "gcePersistentDisk" => source.must("pdName"),
        _ => {}
    }
}
