//! CronJob: Jobs by the clock.

use model::Cause;
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::resources::{cron, job, pod, pod_spec};
use crate::table::{Column, list_at, selector, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .categories(&["all"])
        .columns(vec![
            Column::text_or("Schedule", "spec.schedule", "").about("The schedule in Cron format."),
            Column::text("Timezone", "spec.timeZone").about("The time zone of the schedule."),
            Column::computed("Suspend", |o, _| {
                if o["spec"]["suspend"] == true { "True" } else { "False" }.into()
            })
            .about("Whether later runs are held back."),
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
        .status_checked(|_, _, _| {})
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
    // The Job that is made of it is filled in when it is made; its pods show here already.
    let template = child(child(child(spec, "jobTemplate"), "spec"), "template");
    pod_spec::default_spec(child(template, "spec"));
}

/// The name of a Job is this one's, a dash and ten digits.
const LONGEST_NAME: usize = 52;

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut whole = At::new(new, "", wrong);
    if whole.text("metadata.name").len() > LONGEST_NAME && old.is_none() {
        let says = format!("must be no more than {LONGEST_NAME} characters");
        whole.under("metadata.name").invalid(&says);
    }
    let mut spec = whole.under("spec");
    let schedule = spec.text("schedule");
    if spec.need("schedule", "") {
        if let Err(says) = cron::check(schedule.trim_start_matches(zone_prefix(schedule)).trim_start()) {
            spec.under("schedule").invalid(&says);
        }
        let same = old.is_some_and(|old| text_at(old, "spec.schedule") == schedule);
        if !zone_prefix(schedule).is_empty() && !same {
            spec.under("schedule")
                .invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    spec.at_least("startingDeadlineSeconds", 0);
    if spec.has("timeZone") {
        time_zone(spec.under("timeZone"));
    }
    spec.one_of("concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
    spec.at_least("successfulJobsHistoryLimit", 0);
    spec.at_least("failedJobsHistoryLimit", 0);
    job::validate_template(spec.under("jobTemplate.spec"));
}

/// `TZ=Europe/Berlin` before a schedule, which older CronJobs have.
fn zone_prefix(schedule: &str) -> &str {
    match schedule.split_whitespace().next() {
        Some(first) if first.starts_with("TZ=") || first.starts_with("CRON_TZ=") => first,
        _ => "",
    }
}

fn time_zone(mut zone: At<'_, '_>) {
    let name = zone.value.as_str().unwrap_or_default();
    if name.is_empty() {
        zone.invalid("timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("local") {
        zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if jiff::tz::TimeZone::get(name).is_err() && !jiff::tz::db().is_definitively_empty() {
        zone.invalid(&format!("unknown time zone {name}"));
    }
}
