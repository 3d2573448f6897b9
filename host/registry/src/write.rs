//! Where every write ends.
//!
//! Authorize, decode, prepare, mutating admission, prepare again, claim, validate, validating admission, managedFields,
//! store transaction, watch cache, answer: in this order, for every kind and every door. What differs between kinds
//! stands in their [`crate::resource::Rules`]; what differs between verbs is only where the new state comes from.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use client::{
    Action, DeleteOptions, Outcome, PatchKind, Preconditions, Target, Write, WriteOptions, Written,
};
use model::{Caller, Cause, CauseReason, Failure, Gvk, Object, ResourceVersion};
use serde_json::{Map, Value, json};
use store::Txn;

use crate::Registry;
use crate::allocate::Claims;
use crate::body;
use crate::cache::Cache;
use crate::charge;
use crate::convert;
use crate::document;
use crate::gates::{Interest, Notes, Operation, Request};
use crate::meta;
use crate::names;
use crate::read;
use crate::registry::Audited;
use crate::resource::{Acting, Door, Resource};

/// How often a write is tried again on a newer state before the caller is told of the conflict. Writers of one object
/// that all insist would otherwise keep each other busy forever.
const TRIES: usize = 20;

pub(crate) async fn write(
    registry: &Registry,
    caller: &Caller,
    write: Write,
) -> Result<Written, Failure> {
    let (received, began) = (registry.now(), Instant::now());
    let verb = verb(&write.action);
    let mut notes = Notes::default();
    let result = dispatch(registry, caller, &write, verb, &mut notes).await;
    let body = match &write.action {
        Action::Create(body) | Action::Update { body, .. } | Action::Patch { body, .. } => {
            Some(body.as_ref())
        }
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
        outcome: result
            .as_ref()
            .map(|outcome| outcome.object().map(AsRef::as_ref)),
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
        name => Some(
            resource
                .find_door(name)
                .ok_or_else(|| Failure::NoSuchResource {
                    asked: format!("{}/{name}", target.gvr),
                })?,
        ),
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
        (
            Action::Update {
                body,
                preconditions,
            },
            None | Some(Door::Part(..)),
        ) => {
            job.update(target, door.as_ref(), body, preconditions, notes)
                .await
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
        (
            Action::Update {
                body,
                preconditions,
            },
            Some(Door::Scale(paths)),
        ) => {
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
        (
            Action::DeleteCollection {
                delete,
                labels,
                fields,
            },
            None,
        ) => {
            job.delete_collection(target, delete, labels, fields, notes)
                .await
        }
        _ => Err(not_allowed()),
    }
}

/// One write, with all that its steps need.
pub(crate) struct Job<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) caller: &'a Caller,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) cache: &'a Arc<Cache>,
    pub(crate) options: &'a WriteOptions,
}

/// The state a write starts from.
pub(crate) struct Old {
    /// As stored.
    pub(crate) object: Arc<Object>,
    /// As served, parsed.
    pub(crate) value: Value,
    /// Read from the store, not from the cache, which may be behind. Only a transaction or such a reading may say no.
    pub(crate) fresh: bool,
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
    pub(crate) fn manager(&self) -> &str {
        match self.options.field_manager.as_str() {
            "" => self.caller.agent(),
            manager => manager,
        }
    }

    /// Who writes, for the books.
    pub(crate) fn hand<'a>(&'a self, subresource: &'a str) -> body::Hand<'a> {
        body::Hand {
            manager: self.manager(),
            subresource,
            now: self.registry.now(),
        }
    }

    async fn create(
        &self,
        target: &Target,
        body: &Bytes,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        let value = body::decode(
            self.resource,
            body,
            self.options.validation,
            &mut notes.warnings,
        )?;
        self.create_value(target, value, Origin::Written, notes)
            .await
    }

    /// Creates from a decoded document, with a generated name if it asks for one.
    async fn create_value(
        &self,
        target: &Target,
        value: Value,
        origin: Origin,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        let mut new = value;
        meta::address(self.resource, target, &mut new)?;
        let given = meta::text(&new, "name").to_owned();
        let prefix = meta::text(&new, "generateName").to_owned();
        if !meta::text(&new, "resourceVersion").is_empty() {
            return Err(Failure::BadRequest(
                "resourceVersion should not be set on objects to be created".into(),
            ));
        }
        for attempt in 0.. {
            let mut new = new.clone();
            if given.is_empty() && !prefix.is_empty() {
                // Names longer than 63 bytes could not become a label value or a host name.
                let front: String = prefix.chars().take(58).collect();
                new["metadata"]["name"] =
                    format!("{front}{}", self.registry.inner.options.dice.suffix()).into();
            }
            let target = Target {
                name: meta::text(&new, "name").to_owned(),
                ..target.clone()
            };
            let mut tried = Notes::default();
            let result = self
                .settle(&target, None, new, None, origin, &mut tried)
                .await;
            let outcome = match result {
                Ok(settled) => self.commit_new(&target, settled, &tried).await,
                Err(failure) => Err(failure),
            };
            match outcome {
                Err(Failure::AlreadyExists(_)) if given.is_empty() && attempt < 8 => {}
                outcome => {
                    notes.warnings.extend(tried.warnings);
                    notes.annotations.extend(tried.annotations);
                    return outcome;
                }
            }
        }
        unreachable!("the loop returns")
    }

    async fn commit_new(
        &self,
        target: &Target,
        settled: Settled<'_>,
        notes: &Notes,
    ) -> Result<Outcome, Failure> {
        let key = self.cache.key(&target.namespace, &target.name);
        if self.options.dry_run {
            if read::newest(self.registry, self.cache, &target.namespace, &target.name)
                .await?
                .is_some()
            {
                return Err(Failure::AlreadyExists(key));
            }
            return Ok(Outcome::Created(self.imagined(
                settled.value,
                &target.name,
                &target.namespace,
            )?));
        }
        let charges = charge::take(self.registry, &notes.charges).await?;
        let stored = self.encode(settled.value).await?;
        let store_key = self.cache.store_key(&target.namespace, &target.name);
        let mut txn = Txn::create(store_key, stored.clone());
        if let Some(ttl) = self.resource.rules.ttl {
            txn = txn.ttl(ttl);
        }
        match self.registry.inner.store.txn(txn).await? {
            store::Outcome::Done { revision } => {
                settled.claims.keep();
                charges.keep();
                let object = self.written(key, &stored, revision)?;
                Ok(Outcome::Created(self.answer(object).await?))
            }
            store::Outcome::Refused { .. } => {
                charges.give_back(self.registry).await;
                Err(Failure::AlreadyExists(key))
            }
        }
    }

    async fn update(
        &self,
        target: &Target,
        door: Option<&Door>,
        body: &Bytes,
        preconditions: &Preconditions,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        let mut new = body::decode(
            self.resource,
            body,
            self.options.validation,
            &mut notes.warnings,
        )?;
        meta::address(self.resource, target, &mut new)?;
        if meta::text(&new, "name") != target.name {
            let sent = meta::text(&new, "name");
            return Err(Failure::BadRequest(match sent {
                "" => "name must be provided".into(),
                _ => format!(
                    "the name of the object ({sent}) does not match the name on the URL ({})",
                    target.name
                ),
            }));
        }
        let version = meta::version(&new)?.or(preconditions.version);
        if version.is_none() && !self.resource.rules.unconditional_update && door.is_none() {
            let cause = Cause::invalid(
                "metadata.resourceVersion",
                "0",
                "must be specified for an update",
            );
            return Err(self.invalid(&target.name, vec![cause]));
        }
        let uid = match meta::text(&new, "uid") {
            "" => preconditions.uid.clone(),
            uid => Some(model::Uid(uid.into())),
        };
        let asked = Preconditions { uid, version };
        let old = self.old(target, asked.version).await?;
        if old.is_none()
            && door.is_none()
            && self.resource.rules.create_on_update
            && asked == Preconditions::default()
        {
            self.registry
                .authorize(self.caller, "create", target)
                .await?;
            return self.create_value(target, new, Origin::Written, notes).await;
        }
        self.change(
            target,
            door,
            old,
            &asked,
            Origin::Written,
            notes,
            &mut |_| Ok(new.clone()),
        )
        .await
    }

    async fn patch(
        &self,
        target: &Target,
        door: Option<&Door>,
        kind: PatchKind,
        body: &Bytes,
        preconditions: &Preconditions,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        let old = self.old(target, preconditions.version).await?;
        let patch = body::Patch::read(
            self.resource,
            &target.subresource,
            kind,
            body,
            self.options.validation,
        )?;
        let hand = self.hand(&target.subresource);
        let key = self.cache.key(&target.namespace, &target.name);
        if let PatchKind::Apply { .. } = kind {
            if self.options.field_manager.is_empty() {
                let cause = Cause::required("fieldManager", "is required for apply patch");
                let kind = Gvk::new("meta.k8s.io", "v1", "PatchOptions");
                return Err(Failure::Invalid {
                    kind,
                    name: String::new(),
                    causes: vec![cause],
                });
            }
            if old.is_none() && door.is_none() {
                self.registry
                    .authorize(self.caller, "create", target)
                    .await?;
                let new = patch.apply_to_nothing(&key, hand, &mut notes.warnings)?;
                return self.create_value(target, new, Origin::Applied, notes).await;
            }
        }
        let origin = if matches!(kind, PatchKind::Apply { .. }) {
            Origin::Applied
        } else {
            Origin::Written
        };
        let mut warnings = Vec::new();
        let outcome = self
            .change(
                target,
                door,
                old,
                preconditions,
                origin,
                notes,
                &mut |old| {
                    warnings.clear();
                    let mut new = patch.apply(&old.value, &key, hand, &mut warnings)?;
                    meta::address(self.resource, target, &mut new)?;
                    Ok(new)
                },
            )
            .await;
        notes.warnings.append(&mut warnings);
        outcome
    }

    /// Changes an object: `make` gives the new state for an old one, and is asked again when somebody else was faster,
    /// unless the caller named the version that it changes.
    pub(crate) async fn change(
        &self,
        target: &Target,
        door: Option<&Door>,
        old: Option<Old>,
        asked: &Preconditions,
        origin: Origin,
        notes: &mut Notes,
        make: &mut (dyn FnMut(&Old) -> Result<Value, Failure> + Send),
    ) -> Result<Outcome, Failure> {
        let missing = || Failure::NotFound(self.cache.key(&target.namespace, &target.name));
        let mut old = old.ok_or_else(missing)?;
        for _ in 0..TRIES {
            let mut tried = Notes::default();
            let attempt = match self.make(&old, asked, make) {
                Ok(new) => {
                    self.settle(target, door, new, Some(&old), origin, &mut tried)
                        .await
                }
                Err(failure) => Err(failure),
            };
            // Whatever ends here without a transaction must not rest on a state that is past.
            let writes = attempt
                .as_ref()
                .is_ok_and(|s| (!s.unchanged || s.leaves) && !self.options.dry_run);
            if !writes && !self.confirm(&mut old).await? {
                continue;
            }
            let settled = attempt?;
            if settled.unchanged && !settled.leaves {
                self.tell(notes, tried);
                return Ok(Outcome::Changed(self.answer(old.object.clone()).await?));
            }
            if self.options.dry_run {
                self.tell(notes, tried);
                return Ok(Outcome::Changed(self.imagined(
                    settled.value,
                    &target.name,
                    &target.namespace,
                )?));
            }
            let charges = charge::take(self.registry, &tried.charges).await?;
            let key = old.object.key.clone();
            let store_key = self.cache.store_key(&target.namespace, &target.name);
            let result = if settled.leaves {
                let txn = Txn::delete(store_key, old.object.version);
                let outcome = self.registry.inner.store.txn(txn).await?;
                (outcome, None)
            } else {
                let stored = self.encode(settled.value).await?;
                let mut txn = Txn::update(store_key, stored.clone(), old.object.version);
                if let Some(ttl) = self.resource.rules.ttl {
                    txn = txn.ttl(ttl);
                }
                (self.registry.inner.store.txn(txn).await?, Some(stored))
            };
            match result {
                (store::Outcome::Done { revision }, stored) => {
                    settled.claims.keep();
                    charges.keep();
                    self.tell(notes, tried);
                    let Some(stored) = stored else {
                        let gone = document::at_version(&old.object, revision);
                        return Ok(Outcome::Changed(self.gone(gone.into()).await?));
                    };
                    let object = self.written(key, &stored, revision)?;
                    return Ok(Outcome::Changed(self.answer(object).await?));
                }
                (store::Outcome::Refused { now, .. }, _) => {
                    charges.give_back(self.registry).await;
                    let now = now.ok_or_else(missing)?;
                    if asked.version.is_some() {
                        return Err(Failure::modified(key));
                    }
                    old = self.served(self.cache.object(&now)?).await?;
                }
            }
        }
        Err(Failure::modified(old.object.key.clone()))
    }

    /// The new state for an old one, if the preconditions hold: those of the request and those inside the document.
    fn make(
        &self,
        old: &Old,
        asked: &Preconditions,
        make: &mut (dyn FnMut(&Old) -> Result<Value, Failure> + Send),
    ) -> Result<Value, Failure> {
        self.hold(&old.object, asked)?;
        let new = make(old)?;
        let uid = meta::text(&new, "uid");
        let uid = (!uid.is_empty()).then(|| model::Uid(uid.into()));
        self.hold(
            &old.object,
            &Preconditions {
                uid,
                version: meta::version(&new)?,
            },
        )?;
        Ok(new)
    }

    /// Takes a new state through everything between decoding and the store.
    ///
    /// # Errors
    /// Whatever the gates and the kind's rules say.
    async fn settle(
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
        let mut claims = Claims::new(
            &registry.inner.allocator,
            registry.inner.options.dice.as_ref(),
        );
        if let Some(claim) = rules.claim {
            claim(&mut claims, &mut new, before)?;
        }
        let mut wrong = Vec::new();
        if let Some(fields) = new.get("metadata").and_then(Value::as_object) {
            names::validate_meta(
                fields,
                rules.name,
                self.resource.kind.namespaced(),
                &mut wrong,
            );
            if let Some(old) = before
                .and_then(|o| o.get("metadata"))
                .and_then(Value::as_object)
            {
                names::validate_meta_update(fields, old, &mut wrong);
            }
        }
        match door {
            Some(Door::Part(_, validate)) => validate(&new, before, &mut wrong),
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
            body::track(
                self.resource,
                before,
                &mut new,
                self.hand(&target.subresource),
            )?;
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
    fn prepare(
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
                if rules.status {
                    if let Some(fields) = new.as_object_mut() {
                        fields.remove("status");
                    }
                }
                (rules.prepare)(new, None);
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
                    meta::count_generation(new, old);
                }
            }
        }
    }

    /// Refuses if a precondition does not hold.
    pub(crate) fn hold(&self, object: &Object, asked: &Preconditions) -> Result<(), Failure> {
        if let Some(uid) = asked.uid.as_ref().filter(|uid| **uid != object.uid) {
            let reason = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object.uid
            );
            let cause = Cause {
                reason: CauseReason::UidMismatch,
                field: "metadata.uid".into(),
                message: reason.clone(),
            };
            return Err(Failure::Conflict {
                object: object.key.clone(),
                reason,
                causes: vec![cause],
            });
        }
        if asked
            .version
            .is_some_and(|version| version != object.version)
        {
            return Err(Failure::modified(object.key.clone()));
        }
        Ok(())
    }

    /// The object as it is now: the cache's, unless the caller knows of a newer version, or the cache of none.
    ///
    /// A stale answer is found out by the transaction, which then hands out the newest.
    pub(crate) async fn old(
        &self,
        target: &Target,
        version: Option<ResourceVersion>,
    ) -> Result<Option<Old>, Failure> {
        let cached = self.cache.get(&target.namespace, &target.name);
        if let Some(object) = cached.filter(|object| version.is_none_or(|v| v == object.version)) {
            let old = self.served(object).await?;
            return Ok(Some(Old {
                fresh: false,
                ..old
            }));
        }
        match read::newest(self.registry, self.cache, &target.namespace, &target.name).await? {
            Some(object) => Ok(Some(self.served(object).await?)),
            None => Ok(None),
        }
    }

    /// Makes sure that `old` is what the store has. False: it was not, and is now.
    ///
    /// # Errors
    /// `NotFound` when the object is gone.
    pub(crate) async fn confirm(&self, old: &mut Old) -> Result<bool, Failure> {
        if old.fresh {
            return Ok(true);
        }
        let key = &old.object.key;
        let newest = read::newest(self.registry, self.cache, &key.namespace, &key.name).await?;
        let newest = newest.ok_or_else(|| Failure::NotFound(key.clone()))?;
        old.fresh = true;
        if newest.version == old.object.version {
            return Ok(true);
        }
        *old = self.served(newest).await?;
        Ok(false)
    }

    /// A state from the store, as served and parsed.
    pub(crate) async fn served(&self, object: Arc<Object>) -> Result<Old, Failure> {
        let value = convert::to_served(self.registry, self.resource, object.value()).await?;
        Ok(Old {
            object,
            value,
            fresh: true,
        })
    }

    pub(crate) async fn encode(&self, value: Value) -> Result<Bytes, Failure> {
        let mut stored = convert::to_stored(self.registry, self.resource, value).await?;
        document::encode(&mut stored)
    }

    /// The object that was just stored, made once and handed to the cache as well.
    pub(crate) fn written(
        &self,
        key: model::ObjectKey,
        stored: &[u8],
        revision: ResourceVersion,
    ) -> Result<Arc<Object>, Failure> {
        let object = Arc::new(document::stored(
            &self.resource.storage.gvk,
            key,
            stored,
            revision,
        )?);
        self.cache.offer(&object);
        Ok(object)
    }

    /// A stored object as the caller sees it.
    pub(crate) async fn answer(&self, object: Arc<Object>) -> Result<Arc<Object>, Failure> {
        convert::serve(self.registry, self.resource, object).await
    }

    /// The last state of an object that has just left the store.
    pub(crate) async fn gone(&self, object: Arc<Object>) -> Result<Arc<Object>, Failure> {
        self.registry
            .inner
            .allocator
            .release(self.resource, &object);
        self.answer(object).await
    }

    /// What a dry run would have written.
    pub(crate) fn imagined(
        &self,
        value: Value,
        name: &str,
        namespace: &str,
    ) -> Result<Arc<Object>, Failure> {
        let gvk = Arc::new(self.resource.kind.gvk.clone());
        Object::from_value(gvk, self.cache.key(namespace, name), &value).map(Arc::new)
    }

    pub(crate) fn invalid(&self, name: &str, causes: Vec<Cause>) -> Failure {
        Failure::Invalid {
            kind: self.resource.kind.gvk.clone(),
            name: name.into(),
            causes,
        }
    }

    pub(crate) fn tell(&self, notes: &mut Notes, tried: Notes) {
        notes.warnings.extend(tried.warnings);
        notes.annotations.extend(tried.annotations);
    }

    /// `CreateOptions` or `UpdateOptions`, for admission.
    pub(crate) fn options_document(&self, update: bool) -> Value {
        let kind = if update {
            "UpdateOptions"
        } else {
            "CreateOptions"
        };
        let mut options = Map::new();
        options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        options.insert("kind".into(), kind.into());
        if !self.options.field_manager.is_empty() {
            options.insert(
                "fieldManager".into(),
                self.options.field_manager.clone().into(),
            );
        }
        if self.options.dry_run {
            options.insert("dryRun".into(), json!(["All"]));
        }
        Value::Object(options)
    }

    async fn act(
        &self,
        target: &Target,
        body: &Bytes,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        let subresource = self.resource.kind.subresource(&target.subresource);
        let gvk = subresource
            .and_then(|s| s.kind.clone())
            .unwrap_or_else(|| self.resource.kind.gvk.clone());
        let Some(Door::Act(act)) = self.resource.find_door(&target.subresource) else {
            return Err(Failure::Internal(format!(
                "{} has no act",
                target.subresource
            )));
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

    async fn delete(
        &self,
        target: &Target,
        delete: &DeleteOptions,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        crate::delete::delete(self, target, delete, notes).await
    }

    async fn delete_collection(
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
struct Settled<'a> {
    value: Value,
    claims: Claims<'a>,
    /// Nothing but bookkeeping differs from the old state.
    unchanged: bool,
    /// The last thing that held a dying object is gone with this write.
    leaves: bool,
}
