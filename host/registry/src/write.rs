//! Where every write ends.
//!
//! Authorize, decode, prepare, mutating admission, prepare again, claim, validate, validating admission, managedFields,
//! store transaction, watch cache, answer: in this order, for every kind and every door. What differs between kinds
//! stands in their [`crate::resource::Rules`]; what differs between verbs is only where the new state comes from.

use std::time::Instant;

use bytes::Bytes;
use client::{Action, DeleteOptions, Outcome, Target, Write, Written};
use model::{Caller, Failure};
use serde_json::Value;

use crate::Registry;
use crate::allocate::Claims;
use crate::body;
use crate::gates::{Interest, Notes, Operation, Request};
use crate::job::{Job, Old};
use crate::meta;
use crate::names;
use crate::registry::Audited;
use crate::resource::{Acting, Door};

pub(crate) async fn write(registry: &Registry, caller: &Caller, write: Write) -> Result<Written, Failure> {
    let (received, began) = (registry.now(), Instant::now());
    let verb = verb(&write.action);
    let mut notes = Notes::default();
    let result = dispatch(registry, caller, &write, verb, &mut notes).await;
    let body = match &write.action {
        Action::Create(body) | Action::Update { body, .. } | Action::Patch { body, .. } => Some(body.as_ref()),
        Action::Delete(_) | Action::DeleteCollection { .. } => None,
    };
    registry.audit(Audited {
        caller,
        verb,
        target: &write.target,
        dry_run: write.options.dry_run,
        received,
        began,
        body,
        outcome: result.as_ref().map(|outcome| outcome.object().map(AsRef::as_ref)),
        annotations: &notes.annotations,
    });
    result.map(|outcome| Written {
        outcome,
        warnings: notes.warnings,
    })
}

fn verb(action: &Action) -> &'static str {
    match action {
        Action::Create(_) => "create",
        Action::Update { .. } => "update",
        Action::Patch { .. } => "patch",
        Action::Delete(_) => "delete",
        Action::DeleteCollection { .. } => "deletecollection",
    }
}

async fn dispatch(
    registry: &Registry,
    caller: &Caller,
    write: &Write,
    verb: &str,
    notes: &mut Notes,
) -> Result<Outcome, Failure> {
    let target = &write.target;
    let resource = registry.find(&target.gvr)?;
    let not_allowed = || Failure::MethodNotAllowed {
        verb: verb.into(),
        resource: resource.kind.group_resource(),
    };
    let subresource = target.subresource.as_str();
    let door = match subresource {
        "" => None,
        name => Some(resource.find_door(name).ok_or_else(|| Failure::NoSuchResource {
            asked: format!("{}/{name}", target.gvr),
        })?),
    };
    let allowed = match subresource {
        "" => resource.kind.verbs.iter().any(|v| v.as_str() == verb),
        name => resource
            .kind
            .subresource(name)
            .is_some_and(|s| s.verbs.iter().any(|v| v.as_str() == verb)),
    };
    if !allowed {
        return Err(not_allowed());
    }
    if resource.kind.namespaced() == target.namespace.is_empty() {
        return Err(Failure::BadRequest(match target.namespace.as_str() {
            "" => "an empty namespace may not be set when a resource name is provided".into(),
            _ => format!("{} is not namespaced", resource.kind.group_resource()),
        }));
    }
    registry.authorize(caller, verb, target).await?;
    notes.warnings.extend(resource.deprecated.clone());
    let cache = registry.cache(&resource).await?;
    let job = Job {
        registry,
        caller,
        resource: &resource,
        cache: &cache,
        options: &write.options,
    };
    match (&write.action, door.clone()) {
        (Action::Create(_), None) if resource.closed => Err(Failure::MethodNotAllowed {
            verb: "create".into(),
            resource: resource.kind.group_resource(),
        }),
        (Action::Create(body), None) => job.create(target, body, notes).await,
        (Action::Create(body), Some(Door::Act(_))) => job.act(target, body, notes).await,
        (Action::Update { body, preconditions }, None | Some(Door::Part(..))) => {
            job.update(target, door.as_ref(), body, preconditions, notes).await
        }
        (
            Action::Patch {
                kind,
                body,
                preconditions,
            },
            None | Some(Door::Part(..)),
        ) => {
            job.patch(target, door.as_ref(), *kind, body, preconditions, notes)
                .await
        }
        (Action::Update { body, preconditions }, Some(Door::Scale(paths))) => {
            let change = crate::scale::Change::Replace(body);
            crate::scale::write(&job, target, &paths, change, preconditions, notes).await
        }
        (
            Action::Patch {
                kind,
                body,
                preconditions,
            },
            Some(Door::Scale(paths)),
        ) => {
            let change = crate::scale::Change::Patch(*kind, body);
            crate::scale::write(&job, target, &paths, change, preconditions, notes).await
        }
        (Action::Delete(delete), None) => job.delete(target, delete, notes).await,
        (Action::DeleteCollection { delete, labels, fields }, None) => {
            job.delete_collection(target, delete, labels, fields, notes).await
        }
        _ => Err(not_allowed()),
    }
}

/// Where the fields of a new state come from, as managedFields records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Whoever writes owns what the write changed.
    Written,
    /// Apply has kept the books already.
    Applied,
}
impl Job<'_> {
    /// Takes a new state through everything between decoding and the store.
    ///
    /// # Errors
    /// Whatever the gates and the kind's rules say.
    pub(crate) async fn settle(
        &self,
        target: &Target,
        door: Option<&Door>,
        mut new: Value,
        old: Option<&Old>,
        origin: Origin,
        notes: &mut Notes,
    ) -> Result<Settled<'_>, Failure> {
        let registry = self.registry;
        let rules = &self.resource.rules;
        let now = registry.now();
        let before = old.map(|o| &o.value);
        let uid = if old.is_none() {
            registry.inner.options.dice.uid()
        } else {
            String::new()
        };
        self.prepare(door, &mut new, before, &uid, now);
        let admit = &registry.inner.options.admit;
        let interest = Interest {
            operation: if old.is_some() {
                Operation::Update
            } else {
                Operation::Create
            },
            kind: &self.resource.kind,
            subresource: &target.subresource,
            namespace: &target.namespace,
        };
        let wanted = admit.wants(&interest);
        let options = if wanted {
            self.options_document(old.is_some())
        } else {
            Value::Null
        };
        let request = Request {
            caller: self.caller,
            operation: interest.operation,
            target,
            kind: &self.resource.kind,
            gvk: &self.resource.kind.gvk,
            old: before,
            dry_run: self.options.dry_run,
            options: &options,
        };
        if wanted {
            admit.mutate(&request, Some(&mut new), notes).await?;
            body::default(self.resource, &mut new);
            self.prepare(door, &mut new, before, &uid, now);
        }
        let mut claims = Claims::new(&registry.inner.allocator, registry.inner.options.dice.as_ref());
        if let Some(claim) = rules.claim {
            claim(&mut claims, &mut new, before)?;
        }
        let mut wrong = Vec::new();
        if let Some(fields) = new.get("metadata").and_then(Value::as_object) {
            names::validate_meta(fields, rules.name, self.resource.kind.namespaced(), &mut wrong);
            if let Some(old) = before.and_then(|o| o.get("metadata")).and_then(Value::as_object) {
                names::validate_meta_update(fields, old, &mut wrong);
            }
        }
        match door {
            Some(Door::Part(_, validate)) => {
                // The status of a custom kind has a schema like the rest.
                if self.resource.custom {
                    body::validate(self.resource, &new, before, &mut wrong);
                }
                validate(&new, before, &mut wrong);
            }
            _ => {
                body::validate(self.resource, &new, before, &mut wrong);
                (rules.validate)(&new, before, &mut wrong);
            }
        }
        if !wrong.is_empty() {
            return Err(self.invalid(&target.name, wrong));
        }
        if wanted {
            admit.validate(&request, Some(&new), notes).await?;
        }
        if origin == Origin::Written {
            body::track(self.resource, before, &mut new, self.hand(&target.subresource))?;
        }
        let unchanged = before.is_some_and(|old| body::same(&new, old));
        let leaves = before.is_some_and(|old| meta::leaves(self.resource, &new, old));
        Ok(Settled {
            value: new,
            claims,
            unchanged,
            leaves,
        })
    }

    /// Defaults and resets: everything the system decides about a new state, whoever wrote it. Does the same again when
    /// called again.
    pub(crate) fn prepare(
        &self,
        door: Option<&Door>,
        new: &mut Value,
        old: Option<&Value>,
        uid: &str,
        now: jiff::Timestamp,
    ) {
        let rules = &self.resource.rules;
        match old {
            None => {
                meta::born(new, now, uid, rules.generation);
                if rules.status && !rules.born_with_status {
                    meta::put(new, "status", None);
                }
                (rules.prepare)(new, None);
                if let Some(author) = rules.author {
                    author(new, self.caller.user());
                }
            }
            Some(old) => {
                meta::kept(new, old);
                match door {
                    Some(Door::Part(put_back, _)) => put_back(new, old),
                    _ => {
                        if rules.status {
                            meta::put(new, "status", old.get("status").cloned());
                        }
                        (rules.prepare)(new, Some(old));
                    }
                }
                if rules.generation {
                    meta::count_generation(new, old, rules.status);
                }
            }
        }
        if let Some(stamp) = rules.stamp {
            stamp(new, old, now);
        }
    }

    pub(crate) async fn act(&self, target: &Target, body: &Bytes, notes: &mut Notes) -> Result<Outcome, Failure> {
        let subresource = self.resource.kind.subresource(&target.subresource);
        let gvk = subresource
            .and_then(|s| s.kind.clone())
            .unwrap_or_else(|| self.resource.kind.gvk.clone());
        let Some(Door::Act(act)) = self.resource.find_door(&target.subresource) else {
            return Err(Failure::Internal(format!("{} has no act", target.subresource)));
        };
        let mut body = body::decode_as(&gvk, body, self.options.validation, &mut notes.warnings)?;
        meta::address_act(target, &mut body)?;
        let admit = &self.registry.inner.options.admit;
        let interest = Interest {
            operation: Operation::Create,
            kind: &self.resource.kind,
            subresource: &target.subresource,
            namespace: &target.namespace,
        };
        if admit.wants(&interest) {
            let options = self.options_document(false);
            let request = Request {
                caller: self.caller,
                operation: Operation::Create,
                target,
                kind: &self.resource.kind,
                gvk: &gvk,
                old: None,
                dry_run: self.options.dry_run,
                options: &options,
            };
            admit.mutate(&request, Some(&mut body), notes).await?;
            admit.validate(&request, Some(&body), notes).await?;
        }
        act(
            self.registry,
            Acting {
                job: self,
                target,
                body,
                notes,
            },
        )
        .await
    }

    pub(crate) async fn delete(
        &self,
        target: &Target,
        delete: &DeleteOptions,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        crate::delete::delete(self, target, delete, notes).await
    }

    pub(crate) async fn delete_collection(
        &self,
        target: &Target,
        delete: &DeleteOptions,
        labels: &str,
        fields: &str,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        crate::delete::collection(self, target, delete, labels, fields, notes).await
    }
}

/// A new state that has passed everything and waits for the store.
pub(crate) struct Settled<'a> {
    pub(crate) value: Value,
    pub(crate) claims: Claims<'a>,
    /// Nothing but bookkeeping differs from the old state.
    pub(crate) unchanged: bool,
    /// The last thing that held a dying object is gone with this write.
    pub(crate) leaves: bool,
}
