//! Kinds that need no code of their own yet: names, columns and a handful of defaults. One that grows rules of its own
//! moves to a file of its own.

use serde_json::{Value, json};

use crate::names::NameRule;
use crate::resource::{Resource, ScalePaths};
use crate::resources::common::{child, default};
use crate::resources::pod;
use crate::resources::workload;
use crate::table::{Column, at, int_at, list_at, pairs, plain, selector, text_at};

fn created_at() -> Column {
    Column::text_or("Created At", "metadata.creationTimestamp", "").date()
}

/// A kind with a status, born empty.
fn with_status(resource: Resource) -> Resource {
    resource
        .prepare(|new, old| {
            if old.is_none() {
                new["status"] = json!({});
            }
        })
        .status()
}

pub(crate) fn pod_template() -> Resource {
    Resource::namespaced("", "v1", "PodTemplate", "podtemplates")
        .columns(vec![
            Column::computed("Containers", |o, _| pod::containers(&o["template"]).into()),
            Column::computed("Images", |o, _| pod::images(&o["template"]).into()),
            Column::computed("Pod Labels", |o, _| pairs(at(o, "template.metadata.labels")).into()),
        ])
        .prepare(|new, _| {
            if let Some(spec) = new.pointer_mut("/template/spec") {
                crate::resources::pod_spec::default_spec(spec);
            }
        })
}

pub(crate) fn replication_controller() -> Resource {
    let mut columns = vec![
        Column::number("Desired", "spec.replicas"),
        Column::number("Current", "status.replicas"),
        Column::number("Ready", "status.readyReplicas"),
        Column::age(),
    ];
    columns.extend(workload::containers());
    columns.push(Column::computed("Selector", |o, _| pairs(o["spec"].get("selector")).into()).wide());
    Resource::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .categories(&["all"])
        .stored_under("/registry/controllers/")
        .columns(columns)
        .selectable_or("status.replicas", "0")
        .prepare(|new, old| {
            let labels = at(new, "spec.template.metadata.labels").cloned();
            workload::prepare(new, old, &[("replicas", 1.into())]);
            if let Some(labels) = labels {
                default(&mut new["spec"], "selector", labels.clone());
                default(child(new, "metadata"), "labels", labels);
            }
            if old.is_none() {
                new["status"]["replicas"] = 0.into();
            }
        })
        .status()
        .scale(ScalePaths::usual())
}

pub(crate) fn limit_range() -> Resource {
    Resource::namespaced("", "v1", "LimitRange", "limitranges")
        .short(&["limits"])
        .no_generation()
        .columns(vec![created_at()])
}

pub(crate) fn resource_quota() -> Resource {
    with_status(Resource::namespaced("", "v1", "ResourceQuota", "resourcequotas"))
        .short(&["quota"])
        .no_generation()
        .columns(vec![
            Column::computed("Request", |o, _| quota(o, false).into()),
            Column::computed("Limit", |o, _| quota(o, true).into()),
            Column::age(),
        ])
}

fn quota(o: &Value, limits: bool) -> String {
    let mut parts = Vec::new();
    for (name, hard) in at(o, "status.hard").and_then(Value::as_object).into_iter().flatten() {
        if name.starts_with("limits.") == limits {
            let used = at(o, "status.used").and_then(|u| u.get(name)).map_or("0".into(), plain);
            parts.push(format!("{name}: {used}/{}", plain(hard)));
        }
    }
    parts.join(", ")
}

pub(crate) fn persistent_volume() -> Resource {
    Resource::cluster("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .no_generation()
        .columns(vec![
            Column::text_or("Capacity", "spec.capacity.storage", ""),
            Column::computed("Access Modes", |o, _| modes(list_at(o, "spec.accessModes")).into()),
            Column::text_or("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", ""),
            Column::text_or("Status", "status.phase", ""),
            Column::computed("Claim", |o, _| match text_at(o, "spec.claimRef.name") {
                "" => "".into(),
                name => format!("{}/{name}", text_at(o, "spec.claimRef.namespace")).into(),
            }),
            Column::text_or("StorageClass", "spec.storageClassName", ""),
            Column::text_or("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"),
            Column::text_or("Reason", "status.reason", ""),
            Column::age(),
            Column::text_or("VolumeMode", "spec.volumeMode", "").wide(),
        ])
        .prepare(|new, old| {
            if old.is_none() {
                new["status"] = json!({"phase": "Pending"});
            }
            let spec = child(new, "spec");
            default(spec, "persistentVolumeReclaimPolicy", "Retain");
            default(spec, "volumeMode", "Filesystem");
        })
        .status()
}

pub(crate) fn persistent_volume_claim() -> Resource {
    Resource::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .no_generation()
        .columns(vec![
            Column::text_or("Status", "status.phase", ""),
            Column::text_or("Volume", "spec.volumeName", ""),
            Column::text_or("Capacity", "status.capacity.storage", ""),
            Column::computed("Access Modes", |o, _| modes(list_at(o, "status.accessModes")).into()),
            Column::text_or("StorageClass", "spec.storageClassName", ""),
            Column::text_or("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"),
            Column::age(),
            Column::text_or("VolumeMode", "spec.volumeMode", "").wide(),
        ])
        .prepare(|new, old| {
            if old.is_none() {
                new["status"] = json!({"phase": "Pending"});
            }
            default(child(new, "spec"), "volumeMode", "Filesystem");
        })
        .status()
}

/// `ReadWriteOnce` is `RWO` in a table.
fn modes(list: &[Value]) -> String {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    list.iter().map(short).collect::<Vec<_>>().join(",")
}

pub(crate) fn storage_class() -> Resource {
    Resource::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .no_generation()
        .columns(vec![
            Column::text_or("Provisioner", "provisioner", ""),
            Column::text_or("ReclaimPolicy", "reclaimPolicy", ""),
            Column::text_or("VolumeBindingMode", "volumeBindingMode", ""),
            Column::boolean("AllowVolumeExpansion", "allowVolumeExpansion"),
            Column::age(),
        ])
        .prepare(|new, _| {
            default(new, "reclaimPolicy", "Delete");
            default(new, "volumeBindingMode", "Immediate");
        })
}

pub(crate) fn csi_node() -> Resource {
    Resource::cluster("storage.k8s.io", "v1", "CSINode", "csinodes")
        .no_generation()
        .columns(vec![
            Column::counted("Drivers", |o, _| list_at(o, "spec.drivers").len().into()),
            Column::age(),
        ])
}

pub(crate) fn csi_driver() -> Resource {
    Resource::cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers").columns(vec![
        Column::boolean("AttachRequired", "spec.attachRequired"),
        Column::boolean("PodInfoOnMount", "spec.podInfoOnMount"),
        Column::boolean("StorageCapacity", "spec.storageCapacity"),
        Column::age(),
    ])
}

pub(crate) fn volume_attachment() -> Resource {
    with_status(Resource::cluster(
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
    ))
    .no_generation()
    .columns(vec![
        Column::text_or("Attacher", "spec.attacher", ""),
        Column::text_or("PV", "spec.source.persistentVolumeName", ""),
        Column::text_or("Node", "spec.nodeName", ""),
        Column::boolean("Attached", "status.attached"),
        Column::age(),
    ])
}

pub(crate) fn priority_class() -> Resource {
    Resource::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .columns(vec![
            Column::number("Value", "value"),
            Column::boolean("Global-Default", "globalDefault"),
            Column::age(),
            Column::text_or("PreemptionPolicy", "preemptionPolicy", ""),
        ])
        .prepare(|new, _| default(new, "preemptionPolicy", "PreemptLowerPriority"))
        .validate(|new, old, wrong| {
            crate::resources::common::immutable(new, old, "value", wrong);
            crate::resources::common::immutable(new, old, "preemptionPolicy", wrong);
        })
}

pub(crate) fn runtime_class() -> Resource {
    Resource::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .columns(vec![Column::text_or("Handler", "handler", ""), Column::age()])
        .validate(|new, old, wrong| crate::resources::common::immutable(new, old, "handler", wrong))
}

pub(crate) fn pod_disruption_budget() -> Resource {
    with_status(Resource::namespaced(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ))
    .short(&["pdb"])
    .columns(vec![
        Column::text_or("Min Available", "spec.minAvailable", "N/A"),
        Column::text_or("Max Unavailable", "spec.maxUnavailable", "N/A"),
        Column::number("Allowed Disruptions", "status.disruptionsAllowed"),
        Column::age(),
    ])
    .validate(|new, _, wrong| {
        let spec = &new["spec"];
        if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
            let says = "minAvailable and maxUnavailable cannot be both set";
            wrong.push(model::Cause::invalid("spec", spec, says));
        }
        for key in ["minAvailable", "maxUnavailable"] {
            crate::resources::deployment::int_or_percent(&spec[key], &format!("spec.{key}"), wrong);
        }
    })
}

pub(crate) fn ingress() -> Resource {
    with_status(Resource::namespaced("networking.k8s.io", "v1", "Ingress", "ingresses"))
        .short(&["ing"])
        .stored_under("/registry/ingress/")
        .columns(vec![
            Column::text("Class", "spec.ingressClassName"),
            Column::computed("Hosts", |o, _| {
                let hosts: Vec<&str> = list_at(o, "spec.rules")
                    .iter()
                    .map(|r| text_at(r, "host"))
                    .filter(|h| !h.is_empty())
                    .collect();
                if hosts.is_empty() {
                    "*".into()
                } else {
                    hosts.join(",").into()
                }
            }),
            Column::computed("Address", |o, _| {
                let all = list_at(o, "status.loadBalancer.ingress").iter();
                all.map(|i| [text_at(i, "ip"), text_at(i, "hostname")].concat())
                    .collect::<Vec<_>>()
                    .join(",")
                    .into()
            }),
            Column::computed("Ports", |o, _| {
                if list_at(o, "spec.tls").is_empty() {
                    "80".into()
                } else {
                    "80, 443".into()
                }
            }),
            Column::age(),
        ])
}

pub(crate) fn ingress_class() -> Resource {
    Resource::cluster("networking.k8s.io", "v1", "IngressClass", "ingressclasses").columns(vec![
        Column::text_or("Controller", "spec.controller", ""),
        Column::computed("Parameters", |o, _| {
            match (
                text_at(o, "spec.parameters.kind"),
                text_at(o, "spec.parameters.apiGroup"),
            ) {
                ("", _) => "<none>".into(),
                (kind, "") => format!("{kind}/{}", text_at(o, "spec.parameters.name")).into(),
                (kind, group) => format!("{kind}.{group}/{}", text_at(o, "spec.parameters.name")).into(),
            }
        }),
        Column::age(),
    ])
}

pub(crate) fn network_policy() -> Resource {
    Resource::namespaced("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .columns(vec![
            Column::computed("Pod-Selector", |o, _| selector(o["spec"].get("podSelector")).into()),
            Column::age(),
        ])
        .prepare(|new, _| {
            let spec = child(new, "spec");
            let types = if list_at(spec, "egress").is_empty() {
                json!(["Ingress"])
            } else {
                json!(["Ingress", "Egress"])
            };
            default(spec, "policyTypes", types);
            for way in ["ingress", "egress"] {
                for rule in spec.get_mut(way).and_then(Value::as_array_mut).into_iter().flatten() {
                    for port in rule
                        .get_mut("ports")
                        .and_then(Value::as_array_mut)
                        .into_iter()
                        .flatten()
                    {
                        default(port, "protocol", "TCP");
                    }
                }
            }
        })
}

pub(crate) fn controller_revision() -> Resource {
    Resource::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions")
        .no_generation()
        .columns(vec![
            Column::computed("Controller", |o, _| {
                let owner = list_at(o, "metadata.ownerReferences")
                    .iter()
                    .find(|r| r["controller"] == true);
                owner.map_or("<none>".into(), |r| {
                    let group = text_at(r, "apiVersion").split_once('/').map_or("", |(group, _)| group);
                    let kind = text_at(r, "kind").to_lowercase();
                    let kind = if group.is_empty() {
                        kind
                    } else {
                        format!("{kind}.{group}")
                    };
                    format!("{kind}/{}", text_at(r, "name")).into()
                })
            }),
            Column::number("Revision", "revision"),
            Column::age(),
        ])
        .validate(|new, old, wrong| crate::resources::common::immutable(new, old, "data", wrong))
}

pub(crate) fn horizontal_pod_autoscaler() -> Resource {
    with_status(Resource::namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"))
        .short(&["hpa"])
        .categories(&["all"])
        .columns(vec![
            Column::computed("Reference", |o, _| {
                format!("{}/{}", text_at(o, "spec.scaleTargetRef.kind"), text_at(o, "spec.scaleTargetRef.name")).into()
            }),
            Column::computed("Targets", |o, _| targets(o).into()),
            Column::computed("MinPods", |o, _| match at(o, "spec.minReplicas") {
                Some(n) => plain(n).into(),
                None => "<unset>".into(),
            }),
            Column::number("MaxPods", "spec.maxReplicas"),
            Column::number("Replicas", "status.currentReplicas"),
            Column::age(),
        ])
        .prepare(|new, old| {
            if old.is_none() {
                new["status"] = json!({"currentMetrics": null, "desiredReplicas": 0});
            }
            let spec = child(new, "spec");
            default(spec, "minReplicas", 1);
            let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            default(spec, "metrics", cpu);
        })
}

fn targets(o: &Value) -> String {
    let current = list_at(o, "status.currentMetrics");
    let of = |(i, metric): (usize, &Value)| {
        let (name, kind) = (text_at(metric, "resource.name"), text_at(metric, "type"));
        let wanted = &metric["resource"]["target"]["averageUtilization"];
        match (kind, wanted.is_null()) {
            ("Resource", false) => {
                let now = current
                    .get(i)
                    .map(|c| &c["resource"]["current"]["averageUtilization"])
                    .filter(|n| !n.is_null());
                format!(
                    "{name}: {}/{wanted}%",
                    now.map_or("<unknown>".into(), |n| format!("{n}%"))
                )
            }
            _ => format!("{kind}: <unknown>"),
        }
    };
    let all: Vec<String> = list_at(o, "spec.metrics").iter().enumerate().map(of).collect();
    if all.is_empty() {
        "<none>".into()
    } else {
        all.join(", ")
    }
}

pub(crate) fn certificate_signing_request() -> Resource {
    let reviewed = |new: &mut Value, old: &Value| {
        let conditions = new.pointer_mut("/status/conditions").map(Value::take);
        crate::resource::only(&[], true, new, old);
        crate::meta::put(child(new, "status"), "conditions", conditions);
    };
    with_status(Resource::cluster(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
    ))
    .short(&["csr"])
    .names(NameRule::Subdomain)
    .no_generation()
    .selectable(&["spec.signerName"])
    .columns(vec![
        Column::age(),
        Column::text_or("SignerName", "spec.signerName", ""),
        Column::text_or("Requestor", "spec.username", ""),
        Column::text("RequestedDuration", "spec.expirationSeconds"),
        Column::computed("Condition", |o, _| {
            let mut words: Vec<String> = list_at(o, "status.conditions")
                .iter()
                .map(|c| plain(&c["type"]))
                .collect();
            if words.is_empty() {
                words.push("Pending".into());
            }
            if !text_at(o, "status.certificate").is_empty() {
                words.push("Issued".into());
            }
            words.join(",").into()
        }),
    ])
    .door(
        "approval",
        None,
        &[model::Verb::Get, model::Verb::Patch, model::Verb::Update],
        crate::resource::Door::Part(reviewed, |_, _, _| {}),
    )
}

fn webhooks(o: &Value) -> i64 {
    list_at(o, "webhooks").len() as i64
}

pub(crate) fn mutating_webhook_configuration() -> Resource {
    Resource::cluster(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    )
    .columns(vec![
        Column::counted("Webhooks", |o, _| webhooks(o).into()),
        Column::age(),
    ])
}

pub(crate) fn validating_webhook_configuration() -> Resource {
    Resource::cluster(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    )
    .columns(vec![
        Column::counted("Webhooks", |o, _| webhooks(o).into()),
        Column::age(),
    ])
}

pub(crate) fn validating_admission_policy() -> Resource {
    with_status(Resource::cluster(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    ))
    .columns(vec![
        Column::counted("Validations", |o, _| list_at(o, "spec.validations").len().into()),
        Column::computed("ParamKind", |o, _| match text_at(o, "spec.paramKind.kind") {
            "" => "<unset>".into(),
            kind => format!("{}/{kind}", text_at(o, "spec.paramKind.apiVersion")).into(),
        }),
        Column::age(),
    ])
}

pub(crate) fn validating_admission_policy_binding() -> Resource {
    Resource::cluster(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    )
    .columns(vec![
        Column::text_or("PolicyName", "spec.policyName", ""),
        Column::text_or("ParamRef", "spec.paramRef.name", "<unset>"),
        Column::age(),
    ])
}

pub(crate) fn api_service() -> Resource {
    with_status(Resource::cluster(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        "apiservices",
    ))
    .categories(&["api-extensions"])
    .no_generation()
    .stored_under("/registry/apiregistration.k8s.io/apiservices/")
    .columns(vec![
        Column::computed("Service", |o, _| match text_at(o, "spec.service.name") {
            "" => "Local".into(),
            name => format!("{}/{name}", text_at(o, "spec.service.namespace")).into(),
        }),
        Column::computed("Available", |o, _| {
            let found = list_at(o, "status.conditions")
                .iter()
                .find(|c| c["type"] == "Available");
            found.map_or("Unknown".into(), |c| match text_at(c, "status") {
                "True" => "True".into(),
                status => format!("{status} ({})", text_at(c, "reason")).into(),
            })
        }),
        Column::age(),
    ])
}

pub(crate) fn ip_address() -> Resource {
    Resource::cluster("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
        .short(&["ip"])
        .columns(vec![
            Column::computed("ParentRef", |o, _| {
                let parent = &o["spec"]["parentRef"];
                let parts = ["resource", "group", "namespace", "name"].map(|k| text_at(parent, k));
                let kind = if parts[1].is_empty() {
                    parts[0].to_owned()
                } else {
                    format!("{}.{}", parts[0], parts[1])
                };
                [kind.as_str(), parts[2], parts[3]]
                    .iter()
                    .filter(|p| !p.is_empty())
                    .copied()
                    .collect::<Vec<_>>()
                    .join("/")
                    .into()
            }),
            Column::age(),
        ])
}

pub(crate) fn service_cidr() -> Resource {
    with_status(Resource::cluster(
        "networking.k8s.io",
        "v1",
        "ServiceCIDR",
        "servicecidrs",
    ))
    .columns(vec![
        Column::computed("CIDRs", |o, _| {
            list_at(o, "spec.cidrs")
                .iter()
                .map(plain)
                .collect::<Vec<_>>()
                .join(",")
                .into()
        }),
        Column::age(),
    ])
}

pub(crate) fn flow_schema() -> Resource {
    with_status(Resource::cluster(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "FlowSchema",
        "flowschemas",
    ))
    .columns(vec![
        Column::text("PriorityLevel", "spec.priorityLevelConfiguration.name"),
        Column::counted("MatchingPrecedence", |o, _| int_at(o, "spec.matchingPrecedence").into()),
        Column::text("DistinguisherMethod", "spec.distinguisherMethod.type"),
        Column::age(),
    ])
}

pub(crate) fn priority_level_configuration() -> Resource {
    with_status(Resource::cluster(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
    ))
    .columns(vec![
        Column::text_or("Type", "spec.type", ""),
        Column::text("NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares"),
        Column::age(),
    ])
}
