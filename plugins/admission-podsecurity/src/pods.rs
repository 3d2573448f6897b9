//! What a pod, or a workload for the pods it will make, is told in its namespace.

use std::collections::BTreeMap;

use sdk::admission::Answer;
use serde::Deserialize;

use crate::Object;
use crate::checks::{Violation, violations};
use crate::levels::{Labels, PREFIX, Policy, Standard};
use crate::pod::{Metadata, Pod};

/// The spec of what makes pods.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Workload {
    /// A ReplicationController may have none.
    template: Option<Pod>,
}

/// The spec of a CronJob.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Schedule {
    job_template: Job,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Job {
    spec: Workload,
}

/// `labels`: of the namespace.
///
/// # Errors
/// `invalid` where the object is not written as its kind is.
pub(crate) fn review(resource: &str, new: &Object, old: Option<&Object>, labels: &Labels) -> sdk::Result<Answer> {
    let (policy, wrong) = Policy::of(labels);
    if wrong.is_empty() && policy.is_open() {
        return Ok(Answer::allow());
    }
    let template = match resource {
        "pods" => {
            let pod = of_object(new)?;
            if let Some(old) = old
                && !pod.runs_other_than(&of_object(old)?)
            {
                return Ok(Answer::allow());
            }
            Some(pod)
        }
        "podtemplates" => new.template.read()?,
        "cronjobs" => new.spec.read::<Schedule>()?.job_template.spec.template,
        _ => new.spec.read::<Workload>()?.template,
    };
    let mut answer = template.map_or_else(Answer::allow, |pod| judge(&policy, &pod, resource == "pods"));
    if !wrong.is_empty() {
        note(
            &mut answer,
            "error",
            format!("Failed to parse policy: {}", list(&wrong)),
        );
    }
    Ok(answer)
}

fn of_object(object: &Object) -> sdk::Result<Pod> {
    Ok(Pod {
        metadata: Metadata {
            annotations: object.annotations.clone(),
        },
        spec: object.spec.read()?,
    })
}

/// `enforced`: only pods themselves are refused. A workload is not, since what makes its pods may yet change them.
fn judge(policy: &Policy, pod: &Pod, enforced: bool) -> Answer {
    // Modes mostly name the same standard.
    let mut found: BTreeMap<Standard, Option<String>> = BTreeMap::new();
    let mut told = |standard| {
        let told = found.entry(standard).or_insert_with(|| {
            let all = violations(standard, pod);
            (!all.is_empty()).then(|| format!("PodSecurity \"{standard}\": {}", sentence(&all)))
        });
        told.clone()
    };
    let mut answer = Answer::allow();
    if enforced {
        if let Some(told) = told(policy.enforce) {
            answer = Answer::deny(format!("violates {told}"));
        }
        note(&mut answer, "enforce-policy", policy.enforce.to_string());
    }
    if let Some(told) = told(policy.audit) {
        note(&mut answer, "audit-violations", format!("would violate {told}"));
    }
    // Who is refused has read it.
    if answer.denied.is_none()
        && let Some(told) = told(policy.warn)
    {
        answer = answer.warn(format!("would violate {told}"));
    }
    answer
}

/// `host ports (…), privileged (…)`.
fn sentence(all: &[Violation]) -> String {
    let each = all
        .iter()
        .map(|Violation { reason, detail }| format!("{reason} ({detail})"));
    each.collect::<Vec<_>>().join(", ")
}

/// Under the key that kube-apiserver's audit events have it under.
fn note(answer: &mut Answer, key: &str, value: String) {
    answer.audit.push((format!("{PREFIX}{key}"), value));
}

/// As Kubernetes prints several errors.
fn list(wrong: &[String]) -> String {
    match wrong {
        [one] => one.clone(),
        more => format!("[{}]", more.join(", ")),
    }
}
