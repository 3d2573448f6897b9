//! `pods/eviction`: a delete that asks the PodDisruptionBudgets first.

use client::{DeleteOptions, Outcome, Preconditions, Target, WriteOptions};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Cause, CauseReason, Failure, Gvk, Gvr, Selector};
use serde_json::{Value, json};
use std::time::Duration;
use store::Txn;

use crate::Registry;
use crate::job::Job;
use crate::meta;
use crate::read;
use crate::resource::Acting;
use crate::resources::binding::SUCCESS;
use crate::resources::common::child;
use crate::table::{int_at, list_at, text_at};

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
        let delete = DeleteOptions {
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
        crate::delete::delete(job, &target, &delete, notes).await?;
        Ok(Outcome::Document {
            json: SUCCESS.into(),
            created: true,
        })
    }
    .boxed()
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
        let refused = |retry_after, message| Failure::TooManyRequests {
            reason: "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
            retry_after,
            causes: vec![Cause {
                reason: CauseReason::DisruptionBudget,
                field: String::new(),
                message,
            }],
        };
        if int_at(&value, "status.observedGeneration") < int_at(&value, "metadata.generation") {
            let name = meta::text(&value, "name");
            let message = format!("The disruption budget {name} is still being processed by the server.");
            return Err(refused(Duration::from_secs(10), message));
        }
        let allowed = int_at(&value, "status.disruptionsAllowed");
        if allowed <= 0 {
            // No promise of when. client-go would keep it, ten times over, beyond the deadline of `kubectl drain`.
            return Err(refused(Duration::ZERO, used_up(&value)));
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

/// Why a budget grants nothing. Its numbers mean nothing where its controller could not count.
fn used_up(budget: &Value) -> String {
    let name = meta::text(budget, "name");
    let counts = ["status.desiredHealthy", "status.currentHealthy"].map(|path| int_at(budget, path));
    let mut conditions = list_at(budget, "status.conditions").iter();
    let told = conditions
        .find(|c| c["type"] == "DisruptionAllowed" && c["status"] == "False")
        .map(|condition| (text_at(condition, "reason"), text_at(condition, "message")))
        .filter(|(_, message)| !message.is_empty());
    match (told, counts) {
        (Some(("SyncFailed", why)), _) => {
            format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}")
        }
        (_, [wanted, there]) if there <= wanted => {
            format!("The disruption budget {name} needs {wanted} healthy pods and has {there} currently")
        }
        (Some((reason, why)), _) => {
            format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {why}")
        }
        (None, _) => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}
