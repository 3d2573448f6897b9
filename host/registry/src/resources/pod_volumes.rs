//! The pod spec: volumes, one source each.

use model::{Cause, Quantity, text};

use crate::names::{config_map_key, validate_annotations, validate_labels};
use crate::resources::check::At;
use crate::resources::persistentvolumeclaim::validate_claim;

/// Highest mode of a file, in octal 0777.
const HIGHEST_MODE: i64 = 0o777;

const HOST_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// The names of the volumes of a spec, having looked at all of them.
pub(crate) fn validate<'v>(spec: &mut At<'v, '_>) -> Vec<&'v str> {
    let mut names = Vec::new();
    spec.each("volumes", |mut volume| {
        let sources: Vec<&String> = volume
            .value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| *key != "name" && !value.is_null())
            .map(|(key, _)| key)
            .collect();
        if sources.is_empty() {
            volume.required("must specify a volume type");
        }
        for more in sources.iter().skip(1) {
            volume.under(more).forbidden("may not specify more than 1 volume type");
        }
        if let Some(first) = sources.first() {
            source(volume.under(first), first);
        }
        let name = volume.text("name");
        volume.need_fit("name", text::dns1123_label);
        if !name.is_empty() && names.contains(&name) {
            volume.under("name").duplicate();
        }
        names.push(name);
    });
    names
}

fn source(mut source: At<'_, '_>, kind: &str) {
    match kind {
        "emptyDir" if source.has("sizeLimit") => {
            let mut limit = source.under("sizeLimit");
            if limit.quantity().is_some_and(|q| q < Quantity::default()) {
                limit.forbidden("SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => {
            if source.need("path", "") {
                no_steps_back(source.under("path"));
            }
            source.may_be_one_of("type", &HOST_TYPES);
        }
        "secret" => {
            source.need("secretName", "");
            mode(&mut source, "defaultMode");
            items(&mut source);
        }
        "configMap" => {
            source.need("name", "");
            mode(&mut source, "defaultMode");
            items(&mut source);
        }
        "downwardAPI" => {
            mode(&mut source, "defaultMode");
            source.each("items", file);
        }
        "projected" => projected(source),
        "persistentVolumeClaim" => source.must("claimName"),
        "nfs" => {
            source.need("server", "");
            if source.need("path", "") && !source.text("path").starts_with('/') {
                source.under("path").invalid("must be an absolute path");
            }
        }
        "csi" => {
            source.with("driver", super::csidriver::driver_name);
            if source.has("nodePublishSecretRef") {
                source.need("nodePublishSecretRef.name", "");
            }
        }
        "ephemeral" => ephemeral(source),
        "image" => {
            source.need("reference", "");
            source.may_be_one_of("pullPolicy", &["Always", "IfNotPresent", "Never"]);
        }
        "iscsi" => {
            source.need("targetPortal", "");
            source.need("iqn", "");
        }
        "gcePersistentDisk" => source.must("pdName"),
        "awsElasticBlockStore" | "cinder" => source.must("volumeID"),
        _ => {}
    }
}

fn mode(of: &mut At<'_, '_>, key: &str) {
    if of.int(key).is_some_and(|mode| !(0..=HIGHEST_MODE).contains(&mode)) {
        of.under(key)
            .invalid("must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// Keys that become files.
fn items(of: &mut At<'_, '_>) {
    of.each("items", |mut item| {
        item.need("key", "");
        if item.need("path", "") {
            local(item.under("path"));
        }
        mode(&mut item, "mode");
    });
}

/// A path below the volume's root.
pub(crate) fn local(mut path: At<'_, '_>) {
    let text = path.value.as_str().unwrap_or_default();
    if text.starts_with('/') {
        path.invalid("must be a relative path");
    }
    if text.split('/').any(|step| step == "..") {
        path.invalid("must not contain '..'");
    }
}

/// A path below a volume that is projected: its first step is not taken by the kubelet's own names.
fn projected_path(path: At<'_, '_>) {
    let mut path = path;
    let text = path.value.as_str().unwrap_or_default();
    if text.starts_with("..") {
        path.invalid("must not start with '..'");
    }
    local(path);
}

fn no_steps_back(mut path: At<'_, '_>) {
    if path
        .value
        .as_str()
        .is_some_and(|p| p.split('/').any(|step| step == ".."))
    {
        path.invalid("must not contain '..'");
    }
}

/// A file of the downward API.
fn file(mut item: At<'_, '_>) {
    if item.need("path", "") {
        local(item.under("path"));
    }
    match (item.has("fieldRef"), item.has("resourceFieldRef")) {
        (true, true) => item.invalid("fieldRef and resourceFieldRef can not be specified simultaneously"),
        (true, false) => field_ref(item.under("fieldRef"), &VOLUME_FIELDS),
        (false, true) => resource_ref(item.under("resourceFieldRef"), true),
        (false, false) => item.required("one of fieldRef and resourceFieldRef is required"),
    }
    mode(&mut item, "mode");
}

const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

pub(crate) const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// A field of the pod by its path: `metadata.labels['app']`.
pub(crate) fn field_ref(mut of: At<'_, '_>, fields: &[&str]) {
    if !of.need("apiVersion", "") || !of.need("fieldPath", "") {
        return;
    }
    let path = of.text("fieldPath");
    let part = path
        .split_once("['")
        .and_then(|(base, rest)| Some((base, rest.strip_suffix("']")?)));
    let all = ENV_FIELDS.iter().chain(&VOLUME_FIELDS);
    match part {
        Some(("metadata.annotations", key)) => of.fits(|_| text::qualified_name(&key.to_lowercase())),
        Some(("metadata.labels", key)) => of.fits(|_| text::qualified_name(key)),
        Some((base, _)) => {
            let cause = Cause::invalid(of.path(), format!("{base:?}"), "does not support subscript");
            of.push(cause);
        }
        None if !all.clone().any(|f| *f == path) => {
            let says = format!("error converting fieldPath: field label not supported: {path}");
            of.under("fieldPath").invalid(&says);
        }
        None if !fields.contains(&path) => of.under("fieldPath").not_supported(fields),
        None => {}
    }
}

/// A request or limit of a container.
pub(crate) fn resource_ref(mut of: At<'_, '_>, in_volume: bool) {
    if in_volume && !of.need("containerName", "") {
        return;
    }
    if !of.need("resource", "") {
        return;
    }
    let resource = of.text("resource");
    let known = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let huge = ["limits.hugepages-", "requests.hugepages-"];
    if !known.contains(&resource) && !huge.iter().any(|h| resource.starts_with(h)) {
        return of.under("resource").not_supported(&known);
    }
    if of.has("divisor") {
        let fits: &[&str] = if resource.ends_with("cpu") {
            &["1m", "1", "0"]
        } else {
            &[
                "0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
            ]
        };
        let divisor = crate::table::plain(&of.value["divisor"]);
        if !fits.contains(&divisor.as_str()) {
            let says = if resource.ends_with("cpu") {
                "only divisor's values 1m and 1 are supported with the cpu resource"
            } else {
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
            };
            of.under("divisor").invalid(says);
        }
    }
}

fn projected(mut source: At<'_, '_>) {
    mode(&mut source, "defaultMode");
    source.each("sources", |mut part| {
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        let given: Vec<&str> = kinds.into_iter().filter(|k| part.has(k)).collect();
        for more in given.iter().skip(1) {
            part.under(more)
                .forbidden("may not specify more than 1 volume type per source");
        }
        match given.first() {
            Some(kind @ (&"secret" | &"configMap")) => {
                let mut of = part.under(kind);
                of.need("name", "");
                items(&mut of);
            }
            Some(&"downwardAPI") => part.each("downwardAPI.items", file),
            Some(&"serviceAccountToken") => {
                let mut token = part.under("serviceAccountToken");
                if token.int("expirationSeconds").is_some_and(|s| s < 600) {
                    token
                        .under("expirationSeconds")
                        .invalid("may not specify a duration less than 10 minutes");
                }
                if token.int("expirationSeconds").is_some_and(|s| s > 1 << 32) {
                    token
                        .under("expirationSeconds")
                        .invalid("may not specify a duration larger than 2^32 seconds");
                }
                if token.need("path", "") {
                    projected_path(token.under("path"));
                }
            }
            _ => {}
        }
    });
}

fn ephemeral(mut source: At<'_, '_>) {
    if !source.has("volumeClaimTemplate") {
        return source.under("volumeClaimTemplate").required("");
    }
    let mut template = source.under("volumeClaimTemplate");
    template.with("metadata.labels", |labels, path, wrong| {
        validate_labels(Some(labels), path, wrong);
    });
    template.with("metadata.annotations", |annotations, path, wrong| {
        validate_annotations(Some(annotations), path, wrong);
    });
    template.with("spec", validate_claim);
}

/// A key of a ConfigMap or Secret by its object's name.
pub(crate) fn key_ref(mut of: At<'_, '_>) {
    of.need("name", "");
    if of.need("key", "") {
        of.under("key").fits(config_map_key);
    }
}
