//! Gathers what Kubernetes' reference says of its types and fields, and which of them must be there, so that `kubectl
//! explain` has words to show.
//!
//! They are taken from the `k8s-openapi` crate, so that none of them stands in this tree, and packed: 1.4 MB of text are a
//! tenth of that in the binary. `src/openapi/prose.rs` reads them. What that crate does not have is told in words of ours.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;

macro_rules! tell {
    ($generator:ident: $($kind:path),* $(,)?) => { $( $generator.subschema_for::<$kind>(); )* };
}

/// Everything these are made of is told of as well. A test in `prose.rs` says when a served kind is missing.
fn kinds(generator: &mut SchemaGenerator) {
    use api::core::v1 as core;
    tell!(generator:
        core::Binding, core::ComponentStatus, core::ConfigMap, core::Endpoints, core::Event, core::LimitRange, core::Namespace, core::Node,
        core::PersistentVolume, core::PersistentVolumeClaim, core::Pod, core::PodTemplate, core::ReplicationController,
        core::ResourceQuota, core::Secret, core::Service, core::ServiceAccount,
        api::admissionregistration::v1::MutatingAdmissionPolicy, api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
        api::admissionregistration::v1::MutatingWebhookConfiguration,
        api::admissionregistration::v1::ValidatingAdmissionPolicy, api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        api::admissionregistration::v1::ValidatingWebhookConfiguration,
        api::apps::v1::ControllerRevision, api::apps::v1::DaemonSet, api::apps::v1::Deployment, api::apps::v1::ReplicaSet,
        api::apps::v1::StatefulSet,
        api::authentication::v1::SelfSubjectReview, api::authentication::v1::TokenRequest, api::authentication::v1::TokenReview,
        api::authorization::v1::LocalSubjectAccessReview, api::authorization::v1::SelfSubjectAccessReview,
        api::authorization::v1::SelfSubjectRulesReview, api::authorization::v1::SubjectAccessReview,
        api::autoscaling::v1::HorizontalPodAutoscaler, api::autoscaling::v1::Scale,
        api::autoscaling::v2::HorizontalPodAutoscaler,
        api::batch::v1::CronJob, api::batch::v1::Job,
        api::certificates::v1::CertificateSigningRequest,
        api::coordination::v1::Lease,
        api::discovery::v1::EndpointSlice,
        api::events::v1::Event,
        api::flowcontrol::v1::FlowSchema, api::flowcontrol::v1::PriorityLevelConfiguration,
        api::networking::v1::IPAddress, api::networking::v1::Ingress, api::networking::v1::IngressClass,
        api::networking::v1::NetworkPolicy, api::networking::v1::ServiceCIDR,
        api::node::v1::RuntimeClass,
        api::policy::v1::Eviction, api::policy::v1::PodDisruptionBudget,
        api::rbac::v1::ClusterRole, api::rbac::v1::ClusterRoleBinding, api::rbac::v1::Role, api::rbac::v1::RoleBinding,
        api::resource::v1::DeviceClass, api::resource::v1::ResourceClaim, api::resource::v1::ResourceClaimTemplate,
        api::resource::v1::ResourceSlice,
        api::scheduling::v1::PriorityClass,
        api::storage::v1::CSIDriver, api::storage::v1::CSINode, api::storage::v1::CSIStorageCapacity,
        api::storage::v1::StorageClass, api::storage::v1::VolumeAttachment, api::storage::v1::VolumeAttributesClass,
        apiextensions::CustomResourceDefinition,
        apiregistration::APIService,
        meta::DeleteOptions, meta::Status,
    );
}

/// `metrics.k8s.io`, in the lines that are made of the others.
const METRICS: &str = include_str!("src/openapi/metrics.txt");

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/openapi/metrics.txt");
    let mut generator = SchemaSettings::draft07().into_generator();
    kinds(&mut generator);
    let mut text = String::new();
    let one_line = |value: &serde_json::Value| {
        value
            .as_str()
            .unwrap_or_default()
            .replace('\n', "\u{1}")
            .replace('\t', "\u{2}")
    };
    for (name, schema) in generator.definitions() {
        let _ = writeln!(text, "{name}\t{}", one_line(&schema["description"]));
        let required = |field: &str| {
            schema["required"]
                .as_array()
                .is_some_and(|all| all.iter().any(|r| r == field))
        };
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let mark = if required(field) { "!" } else { "" };
            let _ = writeln!(text, "\t{field}\t{mark}\t{}", one_line(&schema["description"]));
        }
    }
    text += METRICS;
    let folder = std::env::var("OUT_DIR").expect("cargo sets it");
    let file = std::fs::File::create(format!("{folder}/prose.bin")).expect("the output folder can be written");
    let mut packed = ZlibEncoder::new(file, Compression::best());
    packed
        .write_all(text.as_bytes())
        .expect("the output folder can be written");
    packed.finish().expect("the output folder can be written");
}
