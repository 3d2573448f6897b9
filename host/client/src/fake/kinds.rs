//! The kinds a fake serves from the start.

use std::sync::Arc;

use model::{Gvk, Kind, Scope, Subresource, Verb};

/// apiVersion, kind, plural, namespaced, subresources.
const TABLE: &[(&str, &str, &str, bool, &[&str])] = &[
    ("v1", "Namespace", "namespaces", false, &["status", "finalize"]),
    ("v1", "Node", "nodes", false, &["status"]),
    (
        "v1",
        "Pod",
        "pods",
        true,
        &["status", "binding", "eviction", "log", "exec"],
    ),
    ("v1", "Service", "services", true, &["status"]),
    ("v1", "Endpoints", "endpoints", true, &[]),
    ("v1", "ConfigMap", "configmaps", true, &[]),
    ("v1", "Secret", "secrets", true, &[]),
    ("v1", "ServiceAccount", "serviceaccounts", true, &[]),
    ("v1", "Event", "events", true, &[]),
    ("v1", "PersistentVolume", "persistentvolumes", false, &["status"]),
    (
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        true,
        &["status"],
    ),
    (
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        true,
        &["status", "scale"],
    ),
    ("v1", "ResourceQuota", "resourcequotas", true, &["status"]),
    ("events.k8s.io/v1", "Event", "events", true, &[]),
    ("apps/v1", "Deployment", "deployments", true, &["status", "scale"]),
    ("apps/v1", "ReplicaSet", "replicasets", true, &["status", "scale"]),
    ("apps/v1", "StatefulSet", "statefulsets", true, &["status", "scale"]),
    ("apps/v1", "DaemonSet", "daemonsets", true, &["status"]),
    ("batch/v1", "Job", "jobs", true, &["status"]),
    ("batch/v1", "CronJob", "cronjobs", true, &["status"]),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", true, &[]),
    ("coordination.k8s.io/v1", "Lease", "leases", true, &[]),
    (
        "policy/v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        true,
        &["status"],
    ),
    ("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", false, &[]),
    ("storage.k8s.io/v1", "StorageClass", "storageclasses", false, &[]),
    ("plugins.pilotis.dev/v1alpha1", "Plugin", "plugins", false, &["status"]),
];

pub(super) fn built_in() -> Vec<Arc<Kind>> {
    TABLE.iter().map(|row| Arc::new(kind(*row))).collect()
}

fn kind((api_version, kind, plural, namespaced, subresources): (&str, &str, &str, bool, &[&str])) -> Kind {
    let subresource = |name: &&str| Subresource {
        name: (*name).into(),
        kind: match *name {
            "scale" => Gvk::parse("autoscaling/v1/Scale"),
            "binding" => Gvk::parse("v1/Binding"),
            "eviction" => Gvk::parse("policy/v1/Eviction"),
            _ => None,
        },
        verbs: match *name {
            "binding" | "eviction" | "exec" => vec![Verb::Create],
            _ => vec![Verb::Get, Verb::Patch, Verb::Update],
        },
    };
    Kind {
        gvk: Gvk::from_api_version(api_version, kind),
        plural: plural.into(),
        singular: kind.to_ascii_lowercase().into(),
        scope: if namespaced { Scope::Namespaced } else { Scope::Cluster },
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: Verb::ALL.to_vec(),
        subresources: subresources.iter().map(subresource).collect(),
        stored: Some(Gvk::from_api_version(api_version, kind)),
    }
}
