//! Pod Security admission (KEP-2579): holds pods to the standards that their namespace's labels name, and says where a
//! workload's pods, or the pods that are there, would not pass.

mod checks;
mod levels;
mod namespaces;
mod pod;
mod pods;
#[cfg(test)]
mod tests;

use sdk::admission::{Answer, OfNamespace, Request};
use sdk::{Fields, View};

use levels::Labels;
use pod::Text;

#[derive(Fields, Clone, Debug)]
struct Object {
    /// Of a Namespace they are its policy.
    #[at(".metadata.labels")]
    labels: Labels,
    #[at(".metadata.annotations")]
    annotations: Labels,
    #[at(".spec")]
    spec: Text,
    /// Of a PodTemplate.
    #[at(".template")]
    template: Text,
}

#[derive(Fields, Clone, Debug)]
struct Namespace {
    #[at(".metadata.labels")]
    labels: Labels,
}

// A version's label without a level's changes nothing. A Namespace is in no namespace: it is always asked about.
#[sdk::admission(
    on = [
        "create update namespaces",
        "create update pods",
        "update pods/ephemeralcontainers",
        "create update podtemplates",
        "create update replicationcontrollers",
        "create update daemonsets.apps",
        "create update deployments.apps",
        "create update replicasets.apps",
        "create update statefulsets.apps",
        "create update cronjobs.batch",
        "create update jobs.batch",
    ],
    asks = ["get pods"],
    with_fields_of_namespace = [
        r#".metadata.labels["pod-security.kubernetes.io/enforce"]"#,
        r#".metadata.labels["pod-security.kubernetes.io/audit"]"#,
        r#".metadata.labels["pod-security.kubernetes.io/warn"]"#,
    ],
)]
fn review(request: Request<Object, OfNamespace<Namespace>>, view: &View) -> sdk::Result<Answer> {
    let Some(object) = &request.object else {
        return Ok(Answer::allow());
    };
    let old = request.old.as_ref();
    if request.resource == "namespaces" {
        let name = &request.name;
        let look = |enforce| namespaces::look(view, name, enforce);
        return Ok(namespaces::review(
            name,
            &object.labels,
            old.map(|old| &old.labels),
            look,
        ));
    }
    let labels = request.in_namespace.map(|OfNamespace(namespace)| namespace.labels);
    pods::review(&request.resource, object, old, &labels.unwrap_or_default())
}
