//! Makes Jobs at the times that a CronJob names.
//!
//! Start at [`reconcile`]. `schedule` knows the times, `jobs` what was made before.
//!
//! A Job's name says when it was due, and `status.lastScheduleTime` is written only behind its creation: whatever stops us
//! in between, no time is forgotten, and none has two Jobs.

mod jobs;
mod schedule;

use sdk::controller::{Precondition, Propagation};
use sdk::{Fields, Instant, ObjectKey, Outcome, Owner, Request, Value, View, json};

use crate::jobs::{JOB, Job, SCHEDULED};
use crate::schedule::Schedule;

const CRON_JOB: &str = "batch/v1/CronJob";

#[derive(Fields)]
struct CronJob {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.creationTimestamp")]
    created: Option<Instant>,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".spec.schedule")]
    schedule: String,
    #[at(".spec.timeZone")]
    zone: String,
    #[at(".spec.suspend")]
    suspended: bool,
    #[at(".spec.concurrencyPolicy")]
    concurrency: String,
    #[at(".spec.startingDeadlineSeconds")]
    deadline: Option<i64>,
    #[at(".spec.successfulJobsHistoryLimit")]
    keeps_succeeded: Option<i64>,
    #[at(".spec.failedJobsHistoryLimit")]
    keeps_failed: Option<i64>,
    #[at(".status")]
    status: Value,
}

impl CronJob {
    fn key(&self) -> ObjectKey {
        ObjectKey::new(CRON_JOB, &self.namespace, &self.name)
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            kind: CRON_JOB,
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
            deleting: self.deleting,
        }
    }

    fn tell(&self, warning: bool, reason: &str, message: String, outcome: &mut Outcome) {
        outcome.event(&self.key(), &self.uid, warning, reason, message);
    }
}

#[sdk::controller(
    of = "batch/v1/CronJob",
    asks = [
        "get cronjobs.batch",
        "update patch cronjobs.batch/status",
        "get create delete jobs.batch",
        "create patch events",
    ],
)]
fn reconcile(cron: CronJob, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let jobs = jobs::of(&cron, view)?;
    for job in jobs::beyond_history(&cron, &jobs) {
        outcome.remove(
            job.key(&cron),
            Precondition::Uid(job.uid.clone()),
            Propagation::Background,
        );
    }
    tell_of_ended(&cron, &jobs, &mut outcome);
    // Of a Job that was made the status may not tell yet.
    let written = cron.status["lastScheduleTime"].as_str().and_then(Instant::parse);
    let mut last = jobs.iter().filter_map(Job::was_due).chain(written).max();
    if !cron.deleting && !cron.suspended {
        match Schedule::parse(&cron.schedule, &cron.zone) {
            Ok(schedule) => {
                let made = make(&cron, &schedule, &jobs, last, view, request, &mut outcome)?;
                last = made.or(last);
            }
            Err(wrong) => {
                let message = format!("unparseable schedule: {:?} : {wrong}", cron.schedule);
                cron.tell(true, "UnparseableSchedule", message, &mut outcome);
            }
        }
    }
    let status = status(&cron, &jobs, last);
    if status != cron.status {
        let object = json!({
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": cron.name, "namespace": cron.namespace},
            "status": status,
        });
        outcome.set_status(&object, Precondition::Uid(cron.uid.clone()));
    }
    Ok(outcome)
}

/// Makes the Job that is due, if one is, and says when it was; and sees to it that the next one is not missed.
fn make(
    cron: &CronJob,
    schedule: &Schedule,
    jobs: &[Job],
    last: Option<Instant>,
    view: &View,
    request: &Request,
    outcome: &mut Outcome,
) -> sdk::Result<Option<Instant>> {
    let now = request.now;
    if let Some(next) = schedule.next(now) {
        view.reached(next);
    }
    let earliest = last.or(cron.created).unwrap_or(now);
    let Some(due) = schedule.latest(earliest, now) else {
        return Ok(None);
    };
    if cron.deadline.is_some_and(|seconds| due.plus_seconds(seconds) < now) {
        let message = format!("Missed scheduled time to start a job: {due}");
        cron.tell(true, "MissSchedule", message, outcome);
        return Ok(None);
    }
    let name = format!("{}-{}", cron.name, due.0 / 60_000);
    // Another's, perhaps: a Job of that time there is.
    if view.get::<()>(JOB, &cron.namespace, &name)?.is_some() {
        return Ok(Some(due));
    }
    let active: Vec<&Job> = jobs.iter().filter(|job| job.is_active()).collect();
    match (cron.concurrency.as_str(), active.is_empty()) {
        ("Forbid", false) => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            cron.tell(false, "JobAlreadyActive", message.into(), outcome);
            return Ok(None);
        }
        ("Replace", false) => {
            for job in active {
                outcome.remove(
                    job.key(cron),
                    Precondition::Uid(job.uid.clone()),
                    Propagation::Background,
                );
                cron.tell(false, "SuccessfulDelete", format!("Deleted job {}", job.name), outcome);
            }
        }
        _ => {}
    }
    if let Some(refused) = &request.refused {
        let message = format!("Error creating job: {}", refused.why.message);
        cron.tell(true, "FailedCreate", message, outcome);
    }
    create(cron, &name, due, view, outcome)?;
    Ok(Some(due))
}

fn create(cron: &CronJob, name: &str, due: Instant, view: &View, outcome: &mut Outcome) -> sdk::Result<()> {
    /// Read only when a Job is made: it is the largest part of the object.
    #[derive(Fields)]
    struct Template {
        #[at(".spec.jobTemplate.metadata")]
        metadata: Value,
        #[at(".spec.jobTemplate.spec")]
        spec: Value,
    }
    let template: Option<Template> = view.get(CRON_JOB, &cron.namespace, &cron.name)?;
    let Some(Template { metadata, spec }) = template else {
        return Ok(());
    };
    let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
    annotations.insert(SCHEDULED.into(), due.to_string().into());
    let mut metadata_of_job = json!({
        "name": name,
        "namespace": cron.namespace,
        "annotations": annotations,
        "ownerReferences": [cron.owner().reference()],
    });
    if !metadata["labels"].is_null() {
        metadata_of_job["labels"] = metadata["labels"].clone();
    }
    outcome.create(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata_of_job, "spec": spec}));
    cron.tell(false, "SuccessfulCreate", format!("Created job {name}"), outcome);
    Ok(())
}

/// Of those that the status still calls active.
fn tell_of_ended(cron: &CronJob, jobs: &[Job], outcome: &mut Outcome) {
    for one in cron.status["active"].as_array().into_iter().flatten() {
        let Some(job) = jobs.iter().find(|job| one["uid"] == *job.uid) else {
            let name = one["name"].as_str().unwrap_or_default();
            let message = format!("Active job went missing: {name}");
            cron.tell(false, "MissingJob", message, outcome);
            continue;
        };
        let how = match (job.succeeded(), job.failed()) {
            (true, _) => "Complete",
            (_, true) => "Failed",
            _ => continue,
        };
        let message = format!("Saw completed job: {}, condition: {how}", job.name);
        cron.tell(false, "SawCompletedJob", message, outcome);
    }
}

fn status(cron: &CronJob, jobs: &[Job], last: Option<Instant>) -> Value {
    let mut status = json!({});
    let active: Vec<Value> = jobs
        .iter()
        .filter(|job| job.is_active())
        .map(|job| job.reference(cron))
        .collect();
    if !active.is_empty() {
        status["active"] = active.into();
    }
    if let Some(last) = last {
        status["lastScheduleTime"] = last.to_string().into();
    }
    let written = cron.status["lastSuccessfulTime"].as_str().and_then(Instant::parse);
    let succeeded = jobs
        .iter()
        .filter(|job| job.succeeded())
        .filter_map(|job| job.completed);
    if let Some(succeeded) = succeeded.chain(written).max() {
        status["lastSuccessfulTime"] = succeeded.to_string().into();
    }
    status
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
