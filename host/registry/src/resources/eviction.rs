//! `pods/eviction`: a delete that asks the PodDisruptionBudgets first.

use client::{DeleteOptions, Outcome, Preconditions, Target, WriteOptions};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Cause, CauseReason, Failure, GroupResource, Gvk, Gvr, ResourceVersion, Selector};
use serde_json::{Value, json};
use std::time::Duration;
use store::Txn;

use crate::Registry;
use crate::job::{Job, Old};
use crate::meta;
use crate::read;
use crate::resource::Acting;
use crate::resources::binding::SUCCESS;
use crate::resources::common::{child, put_condition};
use crate::table::{int_at, list_at, text_at};

/// More evictions than this wait for the controller: it does not keep up, or does not run.
const MOST_DISRUPTED: usize = 2000;

pub(crate) fn evict<'a>(registry: &'a Registry, acting: Acting<'a>) -> BoxFuture<'a, Result<Outcome, Failure>> {
    async move {
        let Acting {
            job,
            target,
            body,
            notes,
        } = acting;
        let target = Target::new(target.gvr.clone(), &target.namespace, &target.name);
        let missing = || Failure::NotFound(job.cache.key(&target.namespace, &target.name));
        // Whether the pod counts is read from the store: the cache may not have heard yet that it runs.
        let newest = read::newest(registry, job.cache, &target.namespace, &target.name).await?;
        let pod = job.served(newest.ok_or_else(missing)?).await?;
        let options = &body["deleteOptions"];
        let mut delete = DeleteOptions {
            preconditions: Preconditions {
                uid: options["preconditions"]["uid"].as_str().map(|u| model::Uid(u.into())),
                version: options["preconditions"]["resourceVersion"]
                    .as_str()
                    .map(str::parse)
                    .transpose()?,
            },
            grace: options["gracePeriodSeconds"].as_u64(),
            propagation: None,
        };
        // `kubectl drain --dry-run=server` says so here, and not in the query.
        let write = WriteOptions {
            dry_run: job.options.dry_run || dry_run(&options["dryRun"])?,
            ..job.options.clone()
        };
        let job = &Job {
            options: &write,
            ..*job
        };
        job.hold(&pod.object, &delete.preconditions)?;
        let phase = text_at(&pod.value, "status.phase");
        // A pod that does not run is missed by nobody.
        let counts = !matches!(phase, "Succeeded" | "Failed" | "Pending") && !meta::is_dying(&pod.value);
        if counts {
            spend(registry, &pod.value, job.options.dry_run).await?;
        }
        if !job.options.dry_run {
            let marked = mark(job, pod, &delete.preconditions).await?;
            // The version that was named is no more, by our own doing.
            delete.preconditions.version = delete.preconditions.version.and(Some(marked));
        }
        crate::delete::delete(job, &target, &delete, notes).await?;
        Ok(Outcome::Document {
            json: SUCCESS.into(),
            created: true,
        })
    }
    .boxed()
}

/// Says on the pod why it goes, for those who judge its end (KEP-3329). A crash before the delete leaves the condition: the
/// eviction is then tried again by whoever asked.
///
/// Answers the pod's version afterwards.
async fn mark(job: &Job<'_>, mut old: Old, asked: &Preconditions) -> Result<ResourceVersion, Failure> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    });
    loop {
        job.hold(&old.object, asked)?;
        let mut pod = old.value.clone();
        put_condition(&mut pod, condition.clone(), job.registry.now());
        if pod == old.value {
            return Ok(old.object.version);
        }
        match job.replace(&old.object, pod).await? {
            Ok(written) => return Ok(written.version),
            Err(now) => old = now,
        }
    }
}

fn dry_run(stages: &Value) -> Result<bool, Failure> {
    let stages: Vec<&str> = stages
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    match stages[..] {
        [] => Ok(false),
        ["All"] => Ok(true),
        [other, ..] => Err(Failure::Invalid {
            kind: Gvk::new("policy", "v1", "Eviction"),
            name: String::new(),
            causes: vec![Cause::not_supported(
                "deleteOptions.dryRun",
                format!("{other:?}"),
                &["All"],
            )],
        }),
    }
}

/// Takes one disruption from the budget that covers the pod, if one does.
async fn spend(registry: &Registry, pod: &Value, dry_run: bool) -> Result<(), Failure> {
    let Some(resource) = registry.resource(&Gvr::new("policy", "v1", "poddisruptionbudgets")) else {
        return Ok(());
    };
    let cache = registry.cache(&resource).await?;
    cache.catch_up().await?;
    let (name, namespace) = (meta::text(pod, "name"), meta::text(pod, "namespace"));
    let labels = pod["metadata"]["labels"].as_object();
    let labels = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
        .collect();
    let (budgets, _) = cache.snapshot();
    let covers = |budget: &Value| Selector::from_json(&budget["spec"]["selector"]).is_ok_and(|s| s.matches(&labels));
    let found: Vec<_> = budgets
        .values()
        .filter(|e| e.object.key.namespace == namespace)
        .filter(|e| covers(&e.object.value()))
        .map(|e| e.object.clone())
        .collect();
    let budget = match found.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        _ => {
            let says =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Failure::Internal(says.into()));
        }
    };
    let ready = list_at(pod, "status.conditions")
        .iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    let mut now = budget;
    loop {
        let mut value = now.value();
        let healthy = int_at(&value, "status.currentHealthy") >= int_at(&value, "status.desiredHealthy");
        let always = text_at(&value, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if !ready && (always || healthy && int_at(&value, "status.desiredHealthy") > 0) {
            return Ok(());
        }
        if int_at(&value, "status.observedGeneration") < int_at(&value, "metadata.generation") {
            let budget = &now.key.name;
            let says = format!("The disruption budget {budget} is still being processed by the server.");
            return Err(refused(says, Duration::from_secs(10)));
        }
        let allowed = int_at(&value, "status.disruptionsAllowed");
        let beyond = |reason: &str| Failure::Forbidden {
            resource: GroupResource::new("policy", "poddisruptionbudget"),
            name: now.key.name.to_string(),
            reason: reason.into(),
        };
        if allowed < 0 {
            return Err(beyond("pdb disruptions allowed is negative"));
        }
        let disrupted = value["status"]["disruptedPods"].as_object();
        if disrupted.is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
            return Err(beyond(
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            ));
        }
        if allowed == 0 {
            // No promise of when. client-go would keep it, ten times over, beyond the deadline of `kubectl drain`.
            return Err(refused(why_none(&now.key.name, &value["status"]), Duration::ZERO));
        }
        if dry_run {
            return Ok(());
        }
        let status = child(&mut value, "status");
        status["disruptionsAllowed"] = (allowed - 1).into();
        // Until the controller sees the pod go, it counts as disrupted.
        child(status, "disruptedPods")[name] = json!(model::time::seconds(registry.now()));
        let stored = registry.encode(&resource.storage, &mut value)?;
        let key = cache.store_key(&now.key.namespace, &now.key.name);
        match registry
            .inner
            .store
            .txn(Txn::update(key, stored.bytes, now.version))
            .await?
        {
            store::Outcome::Done { .. } => return Ok(()),
            store::Outcome::Refused { .. } => {
                let newest = read::newest(registry, &cache, &now.key.namespace, &now.key.name).await?;
                let Some(newest) = newest else { return Ok(()) };
                now = newest;
            }
        }
    }
}

fn refused(why: String, retry_after: Duration) -> Failure {
    Failure::TooManyRequests {
        reason: "Cannot evict pod as it would violate the pod's disruption budget.".into(),
        retry_after,
        causes: vec![Cause {
            reason: CauseReason::DisruptionBudget,
            field: String::new(),
            message: why,
        }],
    }
}

/// Why a budget allows no disruption, from its status. Counts are not believed where the controller could not make them.
fn why_none(name: &str, status: &Value) -> String {
    let denied = list_at(status, "conditions").iter().find(|condition| {
        condition["type"] == "DisruptionAllowed"
            && condition["status"] == "False"
            && !text_at(condition, "message").is_empty()
    });
    let (has, needs) = (int_at(status, "currentHealthy"), int_at(status, "desiredHealthy"));
    match denied.map(|condition| (text_at(condition, "reason"), text_at(condition, "message"))) {
        Some(("SyncFailed", why)) => {
            format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}")
        }
        _ if has <= needs => {
            format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently")
        }
        Some((reason, why)) => {
            format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {why}")
        }
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_says_why_it_allows_nothing() {
        let condition = |reason: &str| json!([{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": "no pods"}]);
        let status =
            |has: i64, conditions: Value| json!({"currentHealthy": has, "desiredHealthy": 3, "conditions": conditions});
        for (status, says) in [
            (status(3, json!([])), " needs 3 healthy pods and has 3 currently"),
            (
                status(2, condition("InsufficientPods")),
                " needs 3 healthy pods and has 2 currently",
            ),
            (
                status(2, condition("SyncFailed")),
                " does not allow evicting pods currently because it failed sync: no pods",
            ),
            (
                status(5, condition("InsufficientPods")),
                " does not allow evicting pods currently (InsufficientPods): no pods",
            ),
            (status(5, json!([])), " does not allow evicting pods currently"),
        ] {
            assert_eq!(why_none("b", &status), format!("The disruption budget b{says}"));
        }
    }
}
