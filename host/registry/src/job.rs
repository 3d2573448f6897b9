//! One write at work: what its steps need, and the small things they all do.

use std::sync::Arc;

use client::{Preconditions, Target, WriteOptions};
use model::{Caller, Cause, CauseReason, Failure, Object, ResourceVersion};
use serde_json::{Map, Value, json};
use store::Txn;

use crate::Registry;
use crate::body;
use crate::cache::Cache;
use crate::convert;
use crate::document::{self, Encoded};
use crate::gates::Notes;
use crate::read;
use crate::resource::Resource;

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
        if asked.version.is_some_and(|version| version != object.version) {
            return Err(Failure::modified(object.key.clone()));
        }
        Ok(())
    }

    /// The object as it is now: the cache's, unless the caller knows of a newer version, or the cache of none.
    ///
    /// A stale answer is found out by the transaction, which then hands out the newest.
    pub(crate) async fn old(&self, target: &Target, version: Option<ResourceVersion>) -> Result<Option<Old>, Failure> {
        let cached = self.cache.get(&target.namespace, &target.name);
        if let Some(object) = cached.filter(|object| version.is_none_or(|v| v == object.version)) {
            let old = self.served(object).await?;
            return Ok(Some(Old { fresh: false, ..old }));
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

    pub(crate) async fn encode(&self, value: Value) -> Result<Encoded, Failure> {
        let mut stored = convert::to_stored(self.registry, self.resource, value).await?;
        self.registry.encode(&self.resource.storage, &mut stored)
    }

    /// The object that was just stored, made once and handed to the cache as well.
    pub(crate) fn written(
        &self,
        key: model::ObjectKey,
        stored: &Encoded,
        revision: ResourceVersion,
    ) -> Result<Arc<Object>, Failure> {
        let object = Arc::new(document::stored(
            &self.resource.storage.gvk,
            key,
            &stored.json,
            revision,
        )?);
        self.cache.offer(&object);
        Ok(object)
    }

    /// Stores what a subresource itself has made of an object. The inner error: somebody was faster, and this is the object
    /// now.
    pub(crate) async fn replace(&self, old: &Object, mut value: Value) -> Result<Result<Arc<Object>, Old>, Failure> {
        let stored = self.registry.encode(&self.resource.storage, &mut value)?;
        let key = self.cache.store_key(&old.key.namespace, &old.key.name);
        let txn = Txn::update(key, stored.bytes.clone(), old.version);
        match self.registry.inner.store.txn(txn).await? {
            store::Outcome::Done { revision } => Ok(Ok(self.written(old.key.clone(), &stored, revision)?)),
            store::Outcome::Refused { now, .. } => {
                let now = now.ok_or_else(|| Failure::NotFound(old.key.clone()))?;
                Ok(Err(self.served(self.cache.object(&now)?).await?))
            }
        }
    }

    /// A stored object as the caller sees it.
    pub(crate) async fn answer(&self, object: Arc<Object>) -> Result<Arc<Object>, Failure> {
        convert::serve(self.registry, self.resource, object).await
    }

    /// The last state of an object that has just left the store.
    pub(crate) async fn gone(&self, object: Arc<Object>) -> Result<Arc<Object>, Failure> {
        // Before anybody else can have the address, and an object for it.
        if self.resource.rules.claim.is_some() {
            self.registry.drop_addresses(&object).await;
        }
        self.registry.inner.allocator.release(self.resource, &object);
        self.answer(object).await
    }

    /// What a dry run would have written.
    pub(crate) fn imagined(&self, value: Value, name: &str, namespace: &str) -> Result<Arc<Object>, Failure> {
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
        let kind = if update { "UpdateOptions" } else { "CreateOptions" };
        let mut options = Map::new();
        options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        options.insert("kind".into(), kind.into());
        if !self.options.field_manager.is_empty() {
            options.insert("fieldManager".into(), self.options.field_manager.clone().into());
        }
        if self.options.dry_run {
            options.insert("dryRun".into(), json!(["All"]));
        }
        Value::Object(options)
    }
}
