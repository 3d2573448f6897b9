//! The kinds as discovery and kubectl see them, and objects as they are filled in: kept in `cases/`, so that a change of
//! either is a diff to read. `BLESS=1 cargo test -p registry golden` rewrites them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::support::*;

fn check(file: &str, found: &str) {
    let path = format!("{}/cases/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        return std::fs::write(&path, found).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differ = kept.lines().zip(found.lines()).find(|(kept, found)| kept != found);
    assert!(
        kept == found,
        "{file} is not as it was kept (BLESS=1 rewrites it); first difference: {differ:#?}"
    );
}

#[test]
fn kinds() {
    let mut text = String::new();
    for resource in crate::resources::all() {
        let kind = &resource.kind;
        writeln!(
            text,
            "{} {} {:?} {}",
            kind.gvr(),
            kind.gvk.kind,
            kind.scope,
            resource.storage.prefix
        )
        .unwrap();
        for (what, list) in [("short", &kind.short_names), ("categories", &kind.categories)] {
            if !list.is_empty() {
                writeln!(text, "  {what} {}", list.join(" ")).unwrap();
            }
        }
        for sub in &kind.subresources {
            let verbs: Vec<&str> = sub.verbs.iter().map(|v| v.as_str()).collect();
            let of = sub.kind.as_ref().map(|k| format!(" {k}")).unwrap_or_default();
            writeln!(text, "  /{}{of} {}", sub.name, verbs.join(",")).unwrap();
        }
        let columns: Vec<String> = resource
            .columns
            .iter()
            .map(|c| format!("{}{}", c.name, if c.priority > 0 { "*" } else { "" }))
            .collect();
        writeln!(text, "  columns {}", columns.join(" | ")).unwrap();
        let fields: Vec<&str> = resource.selectable.iter().map(|s| s.path.as_str()).collect();
        if !fields.is_empty() {
            writeln!(text, "  fields {}", fields.join(" ")).unwrap();
        }
    }
    check("kinds.txt", &text);
}

/// One document a kind, as short as it may be.
fn documents() -> Vec<(&'static str, Value)> {
    let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"matchLabels": {"a": "b"}});
    let once = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}});
    vec![
        (
            "pods/default",
            json!({"kind": "Pod", "spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"limits": {"cpu": "0.5"}}, "livenessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}]}}),
        ),
        (
            "services/default",
            json!({"kind": "Service", "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}}),
        ),
        ("secrets/default", json!({"kind": "Secret", "stringData": {"a": "b"}})),
        ("nodes", json!({"kind": "Node"})),
        (
            "persistentvolumeclaims/default",
            json!({"kind": "PersistentVolumeClaim",
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "apps/v1/deployments/default",
            json!({"kind": "Deployment", "spec": {"selector": selector, "template": pod}}),
        ),
        (
            "apps/v1/replicasets/default",
            json!({"kind": "ReplicaSet", "spec": {"selector": selector, "template": pod}}),
        ),
        (
            "apps/v1/statefulsets/default",
            json!({"kind": "StatefulSet", "spec": {"serviceName": "s", "selector": selector, "template": pod}}),
        ),
        (
            "apps/v1/daemonsets/default",
            json!({"kind": "DaemonSet", "spec": {"selector": selector, "template": pod}}),
        ),
        (
            "batch/v1/jobs/default",
            json!({"kind": "Job", "spec": {"template": once}}),
        ),
        (
            "batch/v1/cronjobs/default",
            json!({"kind": "CronJob", "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}}),
        ),
        (
            "rbac.authorization.k8s.io/v1/rolebindings/default",
            json!({"kind": "RoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]}),
        ),
        (
            "networking.k8s.io/v1/networkpolicies/default",
            json!({"kind": "NetworkPolicy", "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}}),
        ),
        (
            "storage.k8s.io/v1/storageclasses",
            json!({"kind": "StorageClass", "provisioner": "p"}),
        ),
    ]
}

#[tokio::test]
async fn created() {
    let registry = open().await;
    let mut text = String::new();
    for (path, mut document) in documents() {
        let gvr = target(path).gvr;
        let group = if gvr.group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{}/{}", gvr.group, gvr.version)
        };
        document["apiVersion"] = group.into();
        document["metadata"] = json!({"name": "a"});
        let made = Shop(&registry)
            .create(path, document)
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut value = made.value();
        for (key, still) in [("uid", "UID"), ("resourceVersion", "VERSION")] {
            value["metadata"][key] = still.into();
        }
        value["metadata"].as_object_mut().unwrap().remove("managedFields");
        let resource = registry.resource(&gvr).unwrap();
        let row: Vec<String> = resource
            .table(&made, registry.now())
            .iter()
            .map(crate::table::plain)
            .collect();
        let shown = serde_json::to_string_pretty(&value)
            .unwrap()
            .replace(made.uid.0.as_str(), "UID");
        writeln!(text, "{path}\n{}\n{shown}\n", row.join(" | ")).unwrap();
    }
    check("created.txt", &text);
}
