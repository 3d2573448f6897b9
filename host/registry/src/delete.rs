//! Deleting: what holds an object back, what marks it, and when it really goes.
//!
//! An object with finalizers is marked with `deletionTimestamp` and stays until the last is removed. A graceful kind
//! (pods) stays for its grace period; the kubelet ends it by deleting again with grace 0. Source: "Finalizers",
//! "Garbage Collection" and "Pod Lifecycle" of the Kubernetes documentation.

use client::{DeleteOptions, Outcome, Propagation, Target};
use jiff::SignedDuration;
use model::Failure;
use serde_json::{Map, Value, json};
use store::Txn;

use crate::body;
use crate::document;
use crate::gates::{Interest, Notes, Operation, Request};
use crate::job::{Job, Old};
use crate::meta;
use crate::resource::Deletion;
use crate::select::Filter;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete comes to.
enum Step {
    /// It is marked already, and this delete adds nothing.
    Nothing,
    Mark(Value),
    Remove,
}

pub(crate) async fn delete(
    job: &Job<'_>,
    target: &Target,
    delete: &DeleteOptions,
    notes: &mut Notes,
) -> Result<Outcome, Failure> {
    let missing = || Failure::NotFound(job.cache.key(&target.namespace, &target.name));
    let mut old = job
        .old(target, delete.preconditions.version)
        .await?
        .ok_or_else(missing)?;
    loop {
        let mut tried = Notes::default();
        let step = match job.hold(&old.object, &delete.preconditions) {
            Ok(()) => match admit(job, target, &old, delete, &mut tried).await {
                Ok(()) => decide(job, &old.value, delete),
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        let writes = matches!(step, Ok(Step::Mark(_) | Step::Remove)) && !job.options.dry_run;
        if !writes && !job.confirm(&mut old).await? {
            continue;
        }
        let step = step?;
        if job.options.dry_run {
            job.tell(notes, tried);
            return Ok(match step {
                Step::Nothing => Outcome::Changed(job.answer(old.object).await?),
                Step::Mark(value) => Outcome::Changed(job.imagined(value, &target.name, &target.namespace)?),
                Step::Remove => Outcome::Deleted(job.answer(old.object).await?),
            });
        }
        let store_key = job.cache.store_key(&target.namespace, &target.name);
        let key = old.object.key.clone();
        let (txn, marked) = match step {
            Step::Nothing => {
                job.tell(notes, tried);
                return Ok(Outcome::Changed(job.answer(old.object).await?));
            }
            Step::Mark(value) => {
                let stored = job.encode(value).await?;
                (
                    Txn::update(store_key, stored.bytes.clone(), old.object.version),
                    Some(stored),
                )
            }
            Step::Remove => (Txn::delete(store_key, old.object.version), None),
        };
        match job.registry.inner.store.txn(txn).await? {
            store::Outcome::Done { revision } => {
                job.tell(notes, tried);
                return Ok(match marked {
                    Some(stored) => Outcome::Changed(job.answer(job.written(key, &stored, revision)?).await?),
                    None => {
                        let gone = document::at_version(&old.object, revision);
                        Outcome::Deleted(job.gone(gone.into()).await?)
                    }
                });
            }
            // Somebody changed it meanwhile. A delete does not care, unless it named a version.
            store::Outcome::Refused { now, .. } => {
                let now = now.ok_or_else(missing)?;
                if delete.preconditions.version.is_some() {
                    return Err(Failure::modified(key));
                }
                old = job.served(job.cache.object(&now)?).await?;
            }
        }
    }
}

async fn admit(
    job: &Job<'_>,
    target: &Target,
    old: &Old,
    delete: &DeleteOptions,
    notes: &mut Notes,
) -> Result<(), Failure> {
    let admit = &job.registry.inner.options.admit;
    let interest = Interest {
        operation: Operation::Delete,
        kind: &job.resource.kind,
        subresource: &target.subresource,
        namespace: &target.namespace,
    };
    if !admit.wants(&interest) {
        return Ok(());
    }
    let options = options(job, delete);
    let request = Request {
        caller: job.caller,
        operation: Operation::Delete,
        target,
        kind: &job.resource.kind,
        gvk: &job.resource.kind.gvk,
        old: Some(&old.value),
        dry_run: job.options.dry_run,
        options: &options,
    };
    admit.mutate(&request, None, notes).await?;
    admit.validate(&request, None, notes).await
}

/// `DeleteOptions`, for admission.
fn options(job: &Job<'_>, delete: &DeleteOptions) -> Value {
    let mut options = Map::new();
    options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
    options.insert("kind".into(), "DeleteOptions".into());
    if let Some(grace) = delete.grace {
        options.insert("gracePeriodSeconds".into(), grace.into());
    }
    if let Some(propagation) = delete.propagation {
        options.insert("propagationPolicy".into(), format!("{propagation:?}").into());
    }
    if job.options.dry_run {
        options.insert("dryRun".into(), json!(["All"]));
    }
    Value::Object(options)
}

/// What this delete does to this object. Decides only.
fn decide(job: &Job<'_>, old: &Value, delete: &DeleteOptions) -> Result<Step, Failure> {
    let rules = &job.resource.rules;
    let now = job.registry.now();
    let dying = meta::is_dying(old);
    let mut new = old.clone();
    if !dying {
        (rules.dying)(&mut new, now);
    }
    let asked = new.clone();
    let finalizers = finalizers(&asked, delete.propagation);
    let changed = finalizers != meta::finalizers(old);
    if changed {
        let list: Vec<Value> = finalizers.iter().map(|f| (*f).into()).collect();
        let fields = meta::fields(&mut new);
        match list.is_empty() {
            true => fields.remove("finalizers"),
            false => fields.insert("finalizers".into(), list.into()),
        };
    }
    let grace = match rules.deletion {
        Deletion::Graceful(grace) => grace(old, delete.grace),
        Deletion::AtOnce | Deletion::Namespace => 0,
    };
    let granted = old["metadata"]["deletionGracePeriodSeconds"].as_u64();
    let held = !finalizers.is_empty()
        || match rules.deletion {
            Deletion::Namespace => old["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()),
            Deletion::AtOnce | Deletion::Graceful(_) => false,
        };
    if dying {
        // A shorter grace than the one that runs is honoured; a longer one is not.
        let shorter = granted.is_some_and(|running| grace < running);
        if !shorter {
            if granted.unwrap_or(0) == 0 && !held {
                return Ok(Step::Remove);
            }
            return Ok(if changed { Step::Mark(new) } else { Step::Nothing });
        }
    }
    if grace == 0 && !held {
        return Ok(Step::Remove);
    }
    mark(&mut new, old, grace, now)?;
    if rules.generation && !dying {
        meta::bump_generation(&mut new);
    }
    body::track(job.resource, Some(old), &mut new, job.hand(""))?;
    Ok(Step::Mark(new))
}

/// Sets when the object is to be gone. A shortened grace counts from when it was first marked.
fn mark(new: &mut Value, old: &Value, grace: u64, now: jiff::Timestamp) -> Result<(), Failure> {
    let meta = old.get("metadata");
    let granted = meta
        .and_then(|m| m.get("deletionGracePeriodSeconds"))
        .and_then(Value::as_u64);
    let seconds = |s: u64| SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX / 2));
    let due = match (meta::text(old, "deletionTimestamp"), granted) {
        ("", _) | (_, None) => now.checked_add(seconds(grace)),
        (due, Some(granted)) => model::time::parse(due)?.checked_sub(seconds(granted - grace.min(granted))),
    };
    let due = due.map_err(|_| Failure::BadRequest(format!("gracePeriodSeconds {grace} is too long")))?;
    let fields = meta::fields(new);
    fields.insert("deletionTimestamp".into(), model::time::seconds(due).into());
    fields.insert("deletionGracePeriodSeconds".into(), grace.into());
    Ok(())
}

/// The finalizers after a delete with this propagation; without one, those that stand there decide.
fn finalizers(old: &Value, propagation: Option<Propagation>) -> Vec<&str> {
    let have = meta::finalizers(old);
    let Some(propagation) = propagation else {
        return have;
    };
    let mut left: Vec<&str> = have
        .into_iter()
        .filter(|f| !matches!(*f, ORPHAN | FOREGROUND))
        .collect();
    match propagation {
        Propagation::Orphan => left.push(ORPHAN),
        Propagation::Foreground => left.push(FOREGROUND),
        Propagation::Background => {}
    }
    left
}

/// Deletes what the selectors match, one by one, each with its own admission and its own fate.
pub(crate) async fn collection(
    job: &Job<'_>,
    target: &Target,
    delete_options: &DeleteOptions,
    labels: &str,
    fields: &str,
    notes: &mut Notes,
) -> Result<Outcome, Failure> {
    let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
    let filter = Filter::new(job.resource, namespace, labels, fields)?;
    job.cache.catch_up().await?;
    let (objects, _) = job.cache.snapshot();
    let mut done = Vec::new();
    let prefix = namespace.map(|n| format!("{n}/")).unwrap_or_default();
    let from = crate::cache::Place::from(prefix.as_str());
    for (_, entry) in objects
        .range(from..)
        .take_while(|(place, _)| place.starts_with(prefix.as_str()))
    {
        if !filter.matches(entry, &job.cache.picker) {
            continue;
        }
        let target = Target {
            name: entry.object.key.name.to_string(),
            ..target.clone()
        };
        match Box::pin(delete(job, &target, delete_options, notes)).await {
            Ok(Outcome::Deleted(object) | Outcome::Changed(object)) => done.push(object),
            Ok(_) | Err(Failure::NotFound(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Outcome::DeletedMany(done))
}
