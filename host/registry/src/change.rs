//! Where a new state comes from: a create, an update, a patch; and how often it is tried.

use bytes::Bytes;
use client::{Outcome, PatchKind, Preconditions, Target};
use model::{Cause, Failure, Gvk};
use serde_json::Value;
use store::Txn;

use crate::body;
use crate::charge;
use crate::document;
use crate::gates::Notes;
use crate::job::{Job, Old};
use crate::meta;
use crate::read;
use crate::resource::Door;
use crate::write::{Origin, Settled};

/// How often a write is tried again on a newer state before the caller is told of the conflict. Writers of one object
/// that all insist would otherwise keep each other busy forever.
const TRIES: usize = 20;

/// A change that somebody asks for, its new state apart.
#[derive(Clone, Copy)]
pub(crate) struct Errand<'a> {
    pub(crate) target: &'a Target,
    /// The subresource it came through.
    pub(crate) door: Option<&'a Door>,
    pub(crate) asked: &'a Preconditions,
    pub(crate) origin: Origin,
}

impl Job<'_> {
    pub(crate) async fn create(&self, target: &Target, body: &Bytes, notes: &mut Notes) -> Result<Outcome, Failure> {
        let value = body::decode(self.resource, body, self.options.validation, &mut notes.warnings)?;
        self.create_value(target, value, Origin::Written, notes).await
    }

    /// Creates from a decoded document, with a generated name if it asks for one.
    pub(crate) async fn create_value(
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
        let generated = given.is_empty() && !prefix.is_empty();
        for attempt in 0.. {
            // Only a generated name is tried more than once.
            let mut new = if generated {
                new.clone()
            } else {
                std::mem::take(&mut new)
            };
            if generated {
                // Names longer than 63 bytes could not become a label value or a host name.
                let front: String = prefix.chars().take(58).collect();
                new["metadata"]["name"] = format!("{front}{}", self.registry.inner.options.dice.suffix()).into();
            }
            let target = Target {
                name: meta::text(&new, "name").to_owned(),
                ..target.clone()
            };
            let mut tried = Notes::default();
            let result = self.settle(&target, None, new, None, origin, &mut tried).await;
            let outcome = match result {
                Ok(settled) => self.commit_new(&target, settled, &tried).await,
                Err(failure) => Err(failure),
            };
            match outcome {
                Err(Failure::AlreadyExists(_)) if generated && attempt < 8 => {}
                outcome => {
                    notes.warnings.extend(tried.warnings);
                    notes.annotations.extend(tried.annotations);
                    return outcome;
                }
            }
        }
        unreachable!("the loop returns")
    }

    pub(crate) async fn commit_new(
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
        let charges = charge::take(self, &target.name, &notes.charges).await?;
        let stored = self.encode(settled.value).await?;
        let store_key = self.cache.store_key(&target.namespace, &target.name);
        let mut txn = Txn::create(store_key, stored.bytes.clone());
        if let Some(ttl) = self.resource.rules.ttl {
            txn = txn.ttl(ttl);
        }
        match self.registry.inner.store.txn(txn).await? {
            store::Outcome::Done { revision } => {
                settled.claims.keep();
                charges.keep();
                let object = self.written(key, &stored, revision)?;
                if self.resource.rules.claim.is_some() {
                    self.registry.follow_addresses(&object, None).await;
                }
                Ok(Outcome::Created(self.answer(object).await?))
            }
            store::Outcome::Refused { .. } => {
                charges.give_back(self.registry).await;
                Err(Failure::AlreadyExists(key))
            }
        }
    }

    pub(crate) async fn update(
        &self,
        target: &Target,
        door: Option<&Door>,
        body: &Bytes,
        preconditions: &Preconditions,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        let mut new = body::decode(self.resource, body, self.options.validation, &mut notes.warnings)?;
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
            let cause = Cause::invalid("metadata.resourceVersion", "0", "must be specified for an update");
            return Err(self.invalid(&target.name, vec![cause]));
        }
        let uid = match meta::text(&new, "uid") {
            "" => preconditions.uid.clone(),
            uid => Some(model::Uid(uid.into())),
        };
        let asked = Preconditions { uid, version };
        let old = self.old(target, asked.version).await?;
        if old.is_none() && door.is_none() && self.resource.rules.create_on_update && asked == Preconditions::default()
        {
            self.registry.authorize(self.caller, "create", target).await?;
            return self.create_value(target, new, Origin::Written, notes).await;
        }
        let errand = Errand {
            target,
            door,
            asked: &asked,
            origin: Origin::Written,
        };
        self.change(errand, old, notes, &mut |_| Ok(new.clone())).await
    }

    pub(crate) async fn patch(
        &self,
        target: &Target,
        door: Option<&Door>,
        kind: PatchKind,
        body: &Bytes,
        preconditions: &Preconditions,
        notes: &mut Notes,
    ) -> Result<Outcome, Failure> {
        let old = self.old(target, preconditions.version).await?;
        let patch = body::Patch::read(self.resource, &target.subresource, kind, body, self.options.validation)?;
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
                self.registry.authorize(self.caller, "create", target).await?;
                let new = patch.apply_to_nothing(&key, hand)?;
                return self.create_value(target, new, Origin::Applied, notes).await;
            }
        }
        let origin = if matches!(kind, PatchKind::Apply { .. }) {
            Origin::Applied
        } else {
            Origin::Written
        };
        let errand = Errand {
            target,
            door,
            asked: preconditions,
            origin,
        };
        let mut warnings = Vec::new();
        let outcome = self
            .change(errand, old, notes, &mut |old| {
                warnings.clear();
                let mut new = patch.apply(&old.value, &key, hand, &mut warnings)?;
                meta::address(self.resource, target, &mut new)?;
                Ok(new)
            })
            .await;
        notes.warnings.append(&mut warnings);
        outcome
    }

    /// Changes an object: `make` gives the new state for an old one, and is asked again when somebody else was faster,
    /// unless the caller named the version that it changes.
    pub(crate) async fn change(
        &self,
        errand: Errand<'_>,
        old: Option<Old>,
        notes: &mut Notes,
        make: &mut (dyn FnMut(&Old) -> Result<Value, Failure> + Send),
    ) -> Result<Outcome, Failure> {
        let Errand {
            target,
            door,
            asked,
            origin,
        } = errand;
        let missing = || Failure::NotFound(self.cache.key(&target.namespace, &target.name));
        let mut old = old.ok_or_else(missing)?;
        for _ in 0..TRIES {
            let mut tried = Notes::default();
            let attempt = match self.make(&old, asked, make) {
                Ok(new) => self.settle(target, door, new, Some(&old), origin, &mut tried).await,
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
            let charges = charge::take(self, &target.name, &tried.charges).await?;
            let key = old.object.key.clone();
            let store_key = self.cache.store_key(&target.namespace, &target.name);
            let result = if settled.leaves {
                let txn = Txn::delete(store_key, old.object.version);
                let outcome = self.registry.inner.store.txn(txn).await?;
                (outcome, None)
            } else {
                let stored = self.encode(settled.value).await?;
                let mut txn = Txn::update(store_key, stored.bytes.clone(), old.object.version);
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
                    if self.resource.rules.claim.is_some() {
                        self.registry.follow_addresses(&object, Some(&old.value)).await;
                    }
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
    pub(crate) fn make(
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
}
