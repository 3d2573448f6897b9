//! Job: pods that run to completion, a number of times.

use model::{Cause, Selector};
use serde_json::{Value, json};

use crate::meta;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default, each_mut};
use crate::resources::{pod_check, pod_spec, workload};
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
        .status_checked(|new, _, wrong| workload::validate_counts(new, &["active", "succeeded", "failed"], wrong))
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    let whole = [
        ("completionMode", "NonIndexed".into()),
        ("suspend", false.into()),
        ("podReplacementPolicy", "TerminatingOrFailed".into()),
        ("manualSelector", false.into()),
    ];
    workload::prepare(new, old, &whole);
    let spec = &mut new["spec"];
    if spec["podFailurePolicy"].is_object() {
        // With a policy for failures, pods that are on their way out are waited for.
        if old.is_none() && spec["podReplacementPolicy"] == "TerminatingOrFailed" {
            spec["podReplacementPolicy"] = "Failed".into();
        }
    }
    default_job(spec);
    if old.is_none() && new["spec"]["manualSelector"] != true {
        generate_selector(new);
    }
}

/// What a Job's spec says when it does not say it.
fn default_job(spec: &mut Value) {
    // Where every index has a limit of its own, all together have none.
    let limit = if spec["backoffLimitPerIndex"].is_null() {
        6
    } else {
        i32::MAX
    };
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
        spec["parallelism"] = 1.into();
    }
    default(spec, "parallelism", 1);
    default(spec, "backoffLimit", limit);
    for rule in spec
        .pointer_mut("/podFailurePolicy/rules")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        for pattern in each_mut(rule, "onPodConditions") {
            default(pattern, "status", "True");
        }
    }
    let template = child(spec, "template");
    pod_spec::default_spec(child(template, "spec"));
}

/// A label that no other Job's pods have: this Job's uid.
fn generate_selector(job: &mut Value) {
    let (uid, name) = (meta::text(job, "uid").to_owned(), meta::text(job, "name").to_owned());
    let all = [
        ("controller-uid", &uid),
        (UID_LABEL, &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ];
    for (key, value) in all {
        child(child(job, "metadata"), "labels")[key] = value.clone().into();
        let template = child(child(job, "spec"), "template");
        child(child(template, "metadata"), "labels")[key] = value.clone().into();
    }
    job["spec"]["selector"] = json!({"matchLabels": {UID_LABEL: uid}});
}

const MOST_INDEXES: i64 = 100_000;

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if !spec.has("selector") {
        spec.under("selector").required("");
    }
    spec.selector("selector");
    let selector = Selector::from_json(&spec.value["selector"]);
    if let Ok(selector) = selector {
        workload::template_matches(&mut spec, &selector);
    }
    validate_template(At::new(&new["spec"], "spec", wrong));
    if let Some(old) = old {
        validate_change(At::new(&new["spec"], "spec", wrong), old);
    }
}

/// Everything about a Job's spec but its selector.
pub(crate) fn validate_template(mut spec: At<'_, '_>) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.at_least(key, 0);
    }
    spec.may_be_one_of("completionMode", &["NonIndexed", "Indexed"]);
    let completions = spec.int("completions");
    if spec.text("completionMode") == "Indexed" {
        match completions {
            None => spec.under("completions").required("when completion mode is Indexed"),
            Some(count) if count > MOST_INDEXES && spec.int("parallelism").is_some_and(|p| p > MOST_INDEXES) => {
                spec.under("parallelism")
                    .invalid("must be less than or equal to 100000 when completion mode is Indexed");
            }
            Some(_) => {}
        }
        if let (Some(failed), Some(count)) = (spec.int("maxFailedIndexes"), completions)
            && failed > count
        {
            spec.under("maxFailedIndexes")
                .invalid("must be less than or equal to completions");
        }
        if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
            spec.under("backoffLimitPerIndex")
                .required("when maxFailedIndexes is specified");
        }
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if spec.has(key) {
                spec.under(key).invalid("requires indexed completion mode");
            }
        }
    }
    failure_policy(&mut spec);
    let policies: &[&str] = if spec.has("podFailurePolicy") {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    spec.may_be_one_of("podReplacementPolicy", policies);
    spec.with("template", |template, field, wrong| {
        let any = &["Always", "OnFailure", "Never"];
        pod_check::validate_template(template, field, any, wrong);
    });
    let mut restart = spec.under("template.spec.restartPolicy");
    match restart.value.as_str().unwrap_or_default() {
        "OnFailure" | "Never" => {}
        "" | "Always" => restart.required("valid values: \"OnFailure\", \"Never\""),
        _ => {}
    }
    if spec.has("podFailurePolicy") && spec.text("template.spec.restartPolicy") != "Never" {
        let says = "only \"Never\" is supported when podFailurePolicy is specified";
        spec.under("template.spec.restartPolicy").invalid(says);
    }
}

fn failure_policy(spec: &mut At<'_, '_>) {
    let per_index = spec.has("backoffLimitPerIndex");
    spec.each("podFailurePolicy.rules", |mut rule| {
        let action = rule.text("action");
        if action == "FailIndex" && !per_index {
            rule.under("action")
                .invalid("requires the backoffLimitPerIndex to be set");
        }
        if !matches!(action, "Count" | "FailIndex" | "FailJob" | "Ignore") {
            rule.under("action")
                .not_supported(&["Count", "FailIndex", "FailJob", "Ignore"]);
        }
        match (rule.has("onExitCodes"), !rule.list("onPodConditions").is_empty()) {
            (false, false) => rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"),
            (true, true) => rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"),
            (true, false) => exit_codes(rule.under("onExitCodes")),
            (false, true) => rule.each("onPodConditions", |mut pattern| {
                pattern.under("type").fits(model::text::qualified_name);
                if !matches!(pattern.text("status"), "True" | "False" | "Unknown") {
                    pattern.under("status").not_supported(&["False", "True", "Unknown"]);
                }
            }),
        }
    });
}

fn exit_codes(mut codes: At<'_, '_>) {
    let operator = codes.text("operator");
    codes.one_of("operator", &["In", "NotIn"]);
    if codes.list("values").is_empty() {
        codes.under("values").invalid("at least one value is required");
    }
    let mut last = None;
    let mut seen: Vec<i64> = Vec::new();
    codes.each("values", |mut code| {
        let number = code.value.as_i64().unwrap_or_default();
        if operator == "In" && number == 0 {
            code.invalid("must not be 0 for the In operator");
        }
        if seen.contains(&number) {
            code.duplicate();
        }
        if last.is_some_and(|last| last > number) {
            code.invalid("must be ordered");
        }
        last = Some(number);
        seen.push(number);
    });
}

/// A Job is what it was made as, but for how much of it runs at once; an indexed one may grow and shrink with that, and
/// the template of one that has never run may still change where its pods go.
fn validate_change(mut spec: At<'_, '_>, old: &Value) {
    let was = &old["spec"];
    let elastic = spec.text("completionMode") == "Indexed" && spec.value["completions"] == spec.value["parallelism"];
    if spec.value["completions"] != was["completions"] && !elastic {
        let shown = &spec.value["completions"];
        let cause = Cause::invalid("spec.completions", shown, "field is immutable");
        spec.push(cause);
    }
    for key in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        spec.immutable(key, was);
    }
    let never_ran = was["suspend"] == true && old["status"]["startTime"].is_null();
    let mut rest = spec.value["template"].clone();
    if never_ran {
        for key in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
            meta::put(child(&mut rest, "spec"), key, was["template"]["spec"].get(key).cloned());
        }
        for key in ["labels", "annotations"] {
            let before = was["template"]["metadata"].get(key).cloned();
            meta::put(child(&mut rest, "metadata"), key, before);
        }
    }
    if rest != was["template"] {
        spec.under("template").invalid("field is immutable");
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
