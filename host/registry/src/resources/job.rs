//! Job: pods that run to completion, a number of times.

use model::Cause;
use serde_json::{Value, json};

use crate::meta;
use crate::resource::Resource;
use crate::resources::common::{child, default, immutable, not_negative};
use crate::resources::{pod_check, workload};
use crate::table::{Column, duration, int_at, list_at, text_at};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

pub(crate) fn resource() -> Resource {
    let mut columns = vec![
        Column::computed("Status", |job, _| state(job).into()).about("Status of the job."),
        Column::computed("Completions", |job, _| completions(job).into())
            .about("How many of the wanted pods have succeeded."),
        Column::computed("Duration", |job, now| took(job, now).into()).about("Time required to complete the job."),
        Column::age(),
    ];
    columns.extend(workload::wide());
    Resource::namespaced("batch", "v1", "Job", "jobs")
        .categories(&["all"])
        .columns(columns)
        .selectable_or("status.successful", "0")
        .prepare(prepare)
        .validate(validate)
        .status()
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    workload::prepare(
        new,
        old,
        &[
            ("backoffLimit", 6.into()),
            ("completionMode", "NonIndexed".into()),
            ("suspend", false.into()),
            ("podReplacementPolicy", "TerminatingOrFailed".into()),
            ("manualSelector", false.into()),
        ],
    );
    let spec = &mut new["spec"];
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    default(spec, "parallelism", 1);
    if old.is_none() && new["spec"]["manualSelector"] != true {
        generate_selector(new);
    }
}

/// A label that no other Job's pods have: this Job's uid.
fn generate_selector(job: &mut Value) {
    let (uid, name) = (meta::text(job, "uid").to_owned(), meta::text(job, "name").to_owned());
    let labels = child(child(child(child(job, "spec"), "template"), "metadata"), "labels");
    for (key, value) in [
        ("controller-uid", &uid),
        (UID_LABEL, &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        labels[key] = value.clone().into();
    }
    job["spec"]["selector"] = json!({"matchLabels": {UID_LABEL: uid}});
}

pub(crate) fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        not_negative(new, &format!("spec.{key}"), wrong);
    }
    let template = &new["spec"]["template"];
    pod_check::validate_template(template, "spec.template", &["OnFailure", "Never"], wrong);
    if new["spec"]["selector"].is_null() && new["kind"] == "Job" {
        wrong.push(Cause::required("spec.selector", ""));
    }
    for path in [
        "spec.selector",
        "spec.completionMode",
        "spec.podFailurePolicy",
        "spec.backoffLimitPerIndex",
    ] {
        immutable(new, old, path, wrong);
    }
    if old.is_some_and(|o| o["spec"]["suspend"] != true) {
        immutable(new, old, "spec.template", wrong);
    }
    if new["spec"]["completionMode"] != "Indexed" {
        immutable(new, old, "spec.completions", wrong);
    }
}

fn has(job: &Value, kind: &str) -> bool {
    list_at(job, "status.conditions")
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

fn state(job: &Value) -> &'static str {
    match () {
        () if has(job, "Complete") => "Complete",
        () if has(job, "Failed") => "Failed",
        () if meta::is_dying(job) => "Terminating",
        () if has(job, "Suspended") => "Suspended",
        () if has(job, "FailureTarget") => "FailureTarget",
        () if has(job, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let done = int_at(job, "status.succeeded");
    match (job["spec"]["completions"].as_i64(), int_at(job, "spec.parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    }
}

fn took(job: &Value, now: jiff::Timestamp) -> String {
    let at = |path| model::time::parse(text_at(job, path)).ok();
    match (at("status.startTime"), at("status.completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => duration(end.unwrap_or(now).as_second() - start.as_second()),
    }
}
