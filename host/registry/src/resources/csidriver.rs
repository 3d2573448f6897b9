//! CSIDriver: what a storage driver needs of the cluster.

use model::{Cause, text};
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::table::{Column, list_at, plain, text_at};

pub(crate) fn resource() -> Resource {
    Resource::cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
        .no_generation()
        .columns(vec![
            Column::boolean("AttachRequired", "spec.attachRequired").about("Whether volumes are attached first."),
            Column::boolean("PodInfoOnMount", "spec.podInfoOnMount").about("Whether it is told of the pod."),
            Column::boolean("StorageCapacity", "spec.storageCapacity").about("Whether it reports its capacity."),
            Column::computed("TokenRequests", |o, _| {
                let all = list_at(o, "spec.tokenRequests").iter();
                let all: Vec<_> = all.map(|t| text_at(t, "audience").to_owned()).collect();
                if all.is_empty() {
                    "<unset>".into()
                } else {
                    all.join(",").into()
                }
            })
            .about("Audiences of the tokens it is given."),
            Column::boolean("RequiresRepublish", "spec.requiresRepublish")
                .about("Whether it is called again and again."),
            Column::computed("Modes", |o, _| {
                let all = list_at(o, "spec.volumeLifecycleModes").iter().map(plain);
                all.collect::<Vec<_>>().join(",").into()
            })
            .about("Lifecycles it supports."),
            Column::age(),
        ])
        .prepare(|new, _| {
            let spec = child(new, "spec");
            default(spec, "attachRequired", true);
            default(spec, "podInfoOnMount", false);
            default(spec, "storageCapacity", false);
            default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            default(spec, "requiresRepublish", false);
            default(spec, "seLinuxMount", false);
            if list_at(spec, "volumeLifecycleModes").is_empty() {
                spec["volumeLifecycleModes"] = json!(["Persistent"]);
            }
        })
        .conditional_updates()
        .validate(validate)
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    if old.is_none() {
        driver_name(&new["metadata"]["name"], "metadata.name", wrong);
    }
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if let Some(old) = old {
        for key in ["attachRequired", "volumeLifecycleModes"] {
            spec.immutable(key, &old["spec"]);
        }
    }
    spec.may_be_one_of("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]);
    let mut audiences: Vec<&str> = Vec::new();
    spec.each("tokenRequests", |mut request| {
        let audience = request.text("audience");
        if audiences.contains(&audience) {
            request.under("audience").duplicate();
        }
        audiences.push(audience);
        match request.int("expirationSeconds") {
            Some(..600) => request
                .under("expirationSeconds")
                .invalid("may not specify a duration less than 10 minutes"),
            Some(seconds) if seconds > 1 << 32 => request
                .under("expirationSeconds")
                .invalid("may not specify a duration larger than 2^32 seconds"),
            _ => {}
        }
    });
    spec.each("volumeLifecycleModes", |mut mode| {
        if mode.value != "Persistent" && mode.value != "Ephemeral" {
            mode.not_supported(&["Persistent", "Ephemeral"]);
        }
    });
    if spec.int("nodeAllocatableUpdatePeriodSeconds").is_some_and(|s| s < 10) {
        spec.under("nodeAllocatableUpdatePeriodSeconds")
            .invalid("must be greater than or equal to 10 seconds");
    }
    if spec.has("serviceAccountTokenInSecrets") && spec.list("tokenRequests").is_empty() {
        spec.under("serviceAccountTokenInSecrets")
            .invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

/// A driver's name: a DNS name of at most 63 characters.
pub(crate) fn driver_name(name: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let text = name.as_str().unwrap_or_default();
    if text.is_empty() {
        return wrong.push(Cause::required(field, ""));
    }
    if text.len() > 63 {
        wrong.push(Cause::too_long(field, 63));
    }
    At::new(name, field, wrong).fits(|name| text::dns1123_subdomain(&name.to_lowercase()));
}
