//! CronJob: Jobs by the clock.

use model::Cause;
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::common::{child, default, not_negative};
use crate::resources::pod_spec;
use crate::resources::{job, pod};
use crate::table::{Column, list_at, selector, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .categories(&["all"])
        .columns(vec![
            Column::text_or("Schedule", "spec.schedule", "").about("The schedule in Cron format."),
            Column::text("Timezone", "spec.timeZone").about("The time zone of the schedule."),
            Column::text_or("Suspend", "spec.suspend", "False").about("Whether later runs are held back."),
            Column::counted("Active", |o, _| list_at(o, "status.active").len().into()).about("Jobs that run now."),
            Column::since("Last Schedule", "status.lastScheduleTime").about("When a Job was last started."),
            Column::age(),
            Column::computed("Containers", |o, _| {
                pod::containers(&o["spec"]["jobTemplate"]["spec"]["template"]).into()
            })
            .wide(),
            Column::computed("Images", |o, _| {
                pod::images(&o["spec"]["jobTemplate"]["spec"]["template"]).into()
            })
            .wide(),
            Column::computed("Selector", |o, _| {
                selector(crate::table::at(o, "spec.jobTemplate.spec.selector")).into()
            })
            .wide(),
        ])
        .prepare(prepare)
        .validate(validate)
        .status()
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        new["status"] = json!({});
    }
    let spec = child(new, "spec");
    default(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    if let Some(pod) = new.pointer_mut("/spec/jobTemplate/spec/template/spec") {
        pod_spec::default_spec(pod);
    }
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let schedule = text_at(new, "spec.schedule");
    if schedule.is_empty() {
        wrong.push(Cause::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
        let found = schedule.split_whitespace().count();
        let says = format!("expected exactly 5 fields, found {found}: [{schedule}]");
        wrong.push(Cause::invalid("spec.schedule", format!("{schedule:?}"), &says));
    }
    if !matches!(text_at(new, "spec.concurrencyPolicy"), "Allow" | "Forbid" | "Replace") {
        let policies = ["Allow", "Forbid", "Replace"];
        wrong.push(Cause::not_supported(
            "spec.concurrencyPolicy",
            &new["spec"]["concurrencyPolicy"],
            &policies,
        ));
    }
    for key in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        not_negative(new, &format!("spec.{key}"), wrong);
    }
    let mut inner = Vec::new();
    let job = &new["spec"]["jobTemplate"];
    job::validate(&json!({"spec": job["spec"]}), None, &mut inner);
    wrong.extend(inner.into_iter().map(|cause| Cause {
        field: format!("spec.jobTemplate.{}", cause.field),
        ..cause
    }));
}
