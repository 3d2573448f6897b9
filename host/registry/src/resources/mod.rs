//! The built-in kinds. To add one: a file here, a line in [`all`].

use crate::resource::Resource;

pub(crate) mod binding;
pub(crate) mod common;
pub(crate) mod configmap;
pub(crate) mod crd;
pub(crate) mod crd_check;
pub(crate) mod cronjob;
pub(crate) mod daemonset;
pub(crate) mod deployment;
pub(crate) mod endpoints;
pub(crate) mod endpointslice;
pub(crate) mod event;
pub(crate) mod eviction;
pub(crate) mod job;
pub(crate) mod lease;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod plugin;
pub(crate) mod pod;
pub(crate) mod pod_check;
pub(crate) mod pod_spec;
pub(crate) mod rbac;
pub(crate) mod replicaset;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod serviceaccount;
pub(crate) mod statefulset;
pub(crate) mod thin;
pub(crate) mod workload;

/// Every built-in resource, in discovery order: the core group, then groups as kube-apiserver orders them.
pub fn all() -> Vec<Resource> {
    vec![
        configmap::resource(),
        endpoints::resource(),
        event::resource(),
        thin::limit_range(),
        namespace::resource(),
        node::resource(),
        thin::persistent_volume_claim(),
        thin::persistent_volume(),
        pod::resource(),
        thin::pod_template(),
        thin::replication_controller(),
        thin::resource_quota(),
        secret::resource(),
        serviceaccount::resource(),
        service::resource(),
        thin::api_service(),
        thin::controller_revision(),
        daemonset::resource(),
        deployment::resource(),
        replicaset::resource(),
        statefulset::resource(),
        event::new_face(),
        thin::horizontal_pod_autoscaler(),
        cronjob::resource(),
        job::resource(),
        thin::certificate_signing_request(),
        thin::ingress_class(),
        thin::ingress(),
        thin::ip_address(),
        thin::network_policy(),
        thin::service_cidr(),
        thin::pod_disruption_budget(),
        rbac::cluster_role_binding(),
        rbac::cluster_role(),
        rbac::role_binding(),
        rbac::role(),
        thin::csi_driver(),
        thin::csi_node(),
        thin::storage_class(),
        thin::volume_attachment(),
        thin::mutating_webhook_configuration(),
        thin::validating_admission_policy(),
        thin::validating_admission_policy_binding(),
        thin::validating_webhook_configuration(),
        crd::resource(),
        thin::priority_class(),
        lease::resource(),
        thin::runtime_class(),
        endpointslice::resource(),
        thin::flow_schema(),
        thin::priority_level_configuration(),
        plugin::resource(),
    ]
}
