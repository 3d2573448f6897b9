//! The built-in kinds. To add one: a file here, a line in [`all`].

use crate::resource::Resource;

pub(crate) mod admission;
pub(crate) mod apiservice;
pub(crate) mod binding;
pub(crate) mod certificatesigningrequest;
pub(crate) mod check;
pub(crate) mod common;
pub(crate) mod configmap;
pub(crate) mod controllerrevision;
pub(crate) mod crd;
pub(crate) mod crd_check;
pub(crate) mod cron;
pub(crate) mod cronjob;
pub(crate) mod csidriver;
pub(crate) mod csinode;
pub(crate) mod csistoragecapacity;
pub(crate) mod daemonset;
pub(crate) mod deployment;
pub(crate) mod deviceclass;
pub(crate) mod endpoints;
pub(crate) mod endpointslice;
pub(crate) mod event;
pub(crate) mod eviction;
pub(crate) mod flowschema;
pub(crate) mod horizontalpodautoscaler;
pub(crate) mod hpa_v1;
pub(crate) mod ingress;
pub(crate) mod ingressclass;
pub(crate) mod ipaddress;
pub(crate) mod job;
pub(crate) mod lease;
pub(crate) mod limitrange;
pub(crate) mod mutatingadmissionpolicy;
pub(crate) mod namespace;
pub(crate) mod networkpolicy;
pub(crate) mod node;
pub(crate) mod persistentvolume;
pub(crate) mod persistentvolumeclaim;
pub(crate) mod plugin;
pub(crate) mod pod;
pub(crate) mod pod_affinity;
pub(crate) mod pod_check;
pub(crate) mod pod_security;
pub(crate) mod pod_spec;
pub(crate) mod pod_volumes;
pub(crate) mod poddisruptionbudget;
pub(crate) mod podtemplate;
pub(crate) mod priorityclass;
pub(crate) mod prioritylevelconfiguration;
pub(crate) mod rbac;
pub(crate) mod replicaset;
pub(crate) mod replicationcontroller;
pub(crate) mod resourceclaim;
pub(crate) mod resourcequota;
pub(crate) mod resourceslice;
pub(crate) mod runtimeclass;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod serviceaccount;
pub(crate) mod servicecidr;
pub(crate) mod statefulset;
pub(crate) mod storageclass;
pub(crate) mod validatingadmissionpolicy;
pub(crate) mod volumeattachment;
pub(crate) mod volumeattributesclass;
pub(crate) mod webhookconfiguration;
pub(crate) mod workload;

/// Every built-in resource, in discovery order: the core group, then groups as kube-apiserver orders them.
pub fn all() -> Vec<Resource> {
    vec![
        configmap::resource(),
        endpoints::resource(),
        event::resource(),
        limitrange::resource(),
        namespace::resource(),
        node::resource(),
        persistentvolumeclaim::resource(),
        persistentvolume::resource(),
        pod::resource(),
        podtemplate::resource(),
        replicationcontroller::resource(),
        resourcequota::resource(),
        secret::resource(),
        serviceaccount::resource(),
        service::resource(),
        apiservice::resource(),
        controllerrevision::resource(),
        daemonset::resource(),
        deployment::resource(),
        replicaset::resource(),
        statefulset::resource(),
        event::new_face(),
        horizontalpodautoscaler::resource(),
        horizontalpodautoscaler::old_face(),
        cronjob::resource(),
        job::resource(),
        certificatesigningrequest::resource(),
        ingressclass::resource(),
        ingress::resource(),
        ipaddress::resource(),
        networkpolicy::resource(),
        servicecidr::resource(),
        poddisruptionbudget::resource(),
        rbac::cluster_role_binding(),
        rbac::cluster_role(),
        rbac::role_binding(),
        rbac::role(),
        csidriver::resource(),
        csinode::resource(),
        csistoragecapacity::resource(),
        storageclass::resource(),
        volumeattachment::resource(),
        volumeattributesclass::resource(),
        mutatingadmissionpolicy::resource(),
        mutatingadmissionpolicy::binding(),
        webhookconfiguration::mutating(),
        validatingadmissionpolicy::resource(),
        validatingadmissionpolicy::binding(),
        webhookconfiguration::validating(),
        crd::resource(),
        priorityclass::resource(),
        lease::resource(),
        runtimeclass::resource(),
        endpointslice::resource(),
        deviceclass::resource(),
        resourceclaim::resource(),
        resourceclaim::template(),
        resourceslice::resource(),
        flowschema::resource(),
        prioritylevelconfiguration::resource(),
        plugin::resource(),
    ]
}
