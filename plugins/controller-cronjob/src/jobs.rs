//! The Jobs that a CronJob has made.

use std::cmp::Reverse;

use sdk::{Fields, Instant, ObjectKey, Value, View, json, within};

use crate::CronJob;

pub(crate) const JOB: &str = "batch/v1/Job";
/// When it was due, as its CronJob's schedule had it.
pub(crate) const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

#[derive(Debug, Clone, Fields)]
pub(crate) struct Job {
    #[at(".metadata.name")]
    pub(crate) name: String,
    #[at(".metadata.uid")]
    pub(crate) uid: String,
    #[at(".metadata.deletionTimestamp?")]
    pub(crate) deleting: bool,
    #[at(".metadata.creationTimestamp")]
    created: Option<Instant>,
    #[at(".metadata.annotations[\"batch.kubernetes.io/cronjob-scheduled-timestamp\"]")]
    scheduled: String,
    #[at(".status.startTime")]
    started: Option<Instant>,
    #[at(".status.completionTime")]
    pub(crate) completed: Option<Instant>,
    #[at(".status.conditions[type=Complete].status")]
    complete: String,
    #[at(".status.conditions[type=Failed].status")]
    failed: String,
}

pub(crate) fn of(cron: &CronJob, view: &View) -> sdk::Result<Vec<Job>> {
    view.find(JOB, &within(&cron.namespace).controlled_by(&cron.uid), "", 0)
}

impl Job {
    pub(crate) fn key(&self, cron: &CronJob) -> ObjectKey {
        ObjectKey::new(JOB, &cron.namespace, &self.name)
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.complete == "True"
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed == "True"
    }

    pub(crate) fn is_active(&self) -> bool {
        !self.succeeded() && !self.failed() && !self.deleting
    }

    pub(crate) fn was_due(&self) -> Option<Instant> {
        Instant::parse(&self.scheduled)
    }

    /// As in `status.active`.
    pub(crate) fn reference(&self, cron: &CronJob) -> Value {
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "namespace": cron.namespace,
            "name": self.name,
            "uid": self.uid,
        })
    }
}

/// Those that are to be forgotten: the ones that ended first, beyond what history keeps.
pub(crate) fn beyond_history<'a>(cron: &CronJob, jobs: &'a [Job]) -> Vec<&'a Job> {
    let mut gone = Vec::new();
    for (ended, keeps) in [
        (Job::succeeded as fn(&Job) -> bool, cron.keeps_succeeded.unwrap_or(3)),
        (Job::failed, cron.keeps_failed.unwrap_or(1)),
    ] {
        let mut ended: Vec<&Job> = jobs.iter().filter(|job| ended(job) && !job.deleting).collect();
        ended.sort_by_key(|job| Reverse((job.started.or(job.created), job.name.clone())));
        gone.extend(ended.into_iter().skip(usize::try_from(keeps).unwrap_or(0)));
    }
    gone
}
