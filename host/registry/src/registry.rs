//! The registry itself: what it is made of, how it opens, and `client::Cluster` in this process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use client::{Cluster, Collection, List, ListOptions, ReadVersion, Target, WatchOptions, WatchStream, Write, Written};
use model::{Caller, Failure, GroupResource, Gvr, Kind, Object};
use parking_lot::RwLock;
use serde_json::Value;
use store::Store;
use tokio::sync::{OnceCell, watch};

use crate::allocate::Allocator;
use crate::cache::{Cache, Limits};
use crate::catalog::Catalog;
use crate::convert;
use crate::document::{self, Encoded, Media};
use crate::gates::{
    Admit, Attributes, Audit, AuditEvent, Authorize, Clock, Convert, Decision, Dice, Figures, Interest, Notes,
    Operation, Request, SignToken,
};
use crate::resource::{Resource, Storage};
use crate::system::{SystemClock, SystemDice};

/// What a registry is wired with.
pub struct Options {
    pub authorize: Arc<dyn Authorize>,
    pub admit: Arc<dyn Admit>,
    pub audit: Arc<dyn Audit>,
    /// For `serviceaccounts/token`; without one that door answers that it cannot sign.
    pub sign_token: Option<Arc<dyn SignToken>>,
    /// For CRDs whose versions differ in more than name.
    pub convert: Option<Arc<dyn Convert>>,
    /// By kind (`plugins.plugins.pilotis.dev`): figures laid over the status when an object is read.
    pub figures: AHashMap<GroupResource, Arc<dyn Figures>>,
    pub clock: Arc<dyn Clock>,
    pub dice: Arc<dyn Dice>,
    pub limits: Limits,
    /// How built-in kinds are written. Either form is read.
    pub media: Media,
    pub network: Network,
}

/// The ranges that Services draw from.
#[derive(Debug, Clone)]
pub struct Network {
    /// `10.96.0.0/16`, and an IPv6 range where the cluster has two families. The first is the default family.
    pub service_ranges: Vec<String>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Where the API server listens: the target port of the `kubernetes` Service.
    pub api_port: u16,
    /// And at which address nodes and pods reach it; without one the Service leads nowhere.
    pub api_address: Option<IpAddr>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            service_ranges: vec!["10.96.0.0/16".into()],
            node_ports: (30000, 32767),
            api_port: 6443,
            api_address: None,
        }
    }
}

impl Options {
    pub fn new(authorize: Arc<dyn Authorize>, admit: Arc<dyn Admit>, audit: Arc<dyn Audit>) -> Self {
        Self {
            authorize,
            admit,
            audit,
            sign_token: None,
            convert: None,
            figures: AHashMap::new(),
            clock: Arc::new(SystemClock),
            dice: Arc::new(SystemDice),
            limits: Limits::default(),
            media: Media::default(),
            network: Network::default(),
        }
    }
}

/// The cluster's objects, and the only one who writes them. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: Options,
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) catalog_changed: watch::Sender<u64>,
    caches: RwLock<AHashMap<GroupResource, Arc<OnceCell<Arc<Cache>>>>>,
    pub(crate) allocator: Allocator,
}

/// The user that the registry's own work is done as: namespaces at the first start, what a CRD's removal takes with it.
pub const SYSTEM_USER: &str = "system:apiserver";

impl Registry {
    /// Opens a registry on a store: reads the CRDs and the Services (to know which addresses are taken), and creates
    /// the namespaces and the `kubernetes` Service that every cluster has, where they are missing.
    ///
    /// # Errors
    /// Those of the store; `BadRequest` for a service range that cannot be read.
    pub async fn open(store: Arc<dyn Store>, options: Options) -> Result<Self, Failure> {
        let allocator = Allocator::new(&options.network)?;
        let inner = Inner {
            store,
            options,
            catalog: ArcSwap::from_pointee(Catalog::built_in()),
            catalog_changed: watch::Sender::new(0),
            caches: RwLock::default(),
            allocator,
        };
        let registry = Self { inner: Arc::new(inner) };
        crate::custom::follow(&registry).await?;
        registry.repair_allocations().await?;
        crate::bootstrap::create(&registry).await?;
        registry.repair_addresses().await?;
        Ok(registry)
    }

    /// Every kind served now, in discovery order.
    pub fn resources(&self) -> Arc<Vec<Arc<Resource>>> {
        self.inner.catalog.load().all.clone()
    }

    /// What the registry knows of a served kind.
    pub fn resource(&self, gvr: &Gvr) -> Option<Arc<Resource>> {
        self.inner.catalog.load().find(gvr).cloned()
    }

    pub fn kind(&self, gvr: &Gvr) -> Option<Arc<Kind>> {
        self.inner.catalog.load().find(gvr).map(|r| r.kind.clone())
    }

    /// An object of one served version, as another one has it in which the same objects are served.
    ///
    /// # Errors
    /// `NoSuchResource`; whatever a conversion webhook says.
    pub async fn in_version(&self, value: Value, from: &Gvr, to: &Gvr) -> Result<Value, Failure> {
        let (from, to) = (self.find(from)?, self.find(to)?);
        convert::between(self, &from, &to, value).await
    }

    /// Changes whenever kinds come or go; receivers need no polling.
    pub fn kinds_version(&self) -> watch::Receiver<u64> {
        self.inner.catalog_changed.subscribe()
    }

    /// Asks the gates about a connection that `api` carries itself (`exec`, `attach`, `portforward`, `proxy`, `log`):
    /// authorization under `verb`, then admission with operation `CONNECT` where the door is one that connects.
    ///
    /// # Errors
    /// `Forbidden`, `Denied`, and whatever a plugin says.
    pub async fn admit_connect(
        &self,
        caller: &Caller,
        verb: &str,
        target: &Target,
        options: &Value,
    ) -> Result<Notes, Failure> {
        let resource = self.find(&target.gvr)?;
        self.authorize(caller, verb, target).await?;
        let mut notes = Notes::default();
        let connects = matches!(target.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
        let interest = Interest {
            operation: Operation::Connect,
            kind: &resource.kind,
            subresource: &target.subresource,
            namespace: &target.namespace,
        };
        if connects && self.inner.options.admit.wants(&interest) {
            let gvk = resource
                .kind
                .subresource(&target.subresource)
                .and_then(|s| s.kind.as_ref());
            let request = Request {
                caller,
                operation: Operation::Connect,
                target,
                kind: &resource.kind,
                gvk: gvk.unwrap_or(&resource.kind.gvk),
                old: None,
                dry_run: false,
                options,
            };
            let mut object = options.clone();
            self.inner
                .options
                .admit
                .mutate(&request, Some(&mut object), &mut notes)
                .await?;
            self.inner
                .options
                .admit
                .validate(&request, Some(&object), &mut notes)
                .await?;
        }
        Ok(notes)
    }

    /// The store's newest revision, for `/readyz` and the like.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn revision(&self) -> Result<model::ResourceVersion, Failure> {
        Ok(self.inner.store.revision().await?)
    }

    pub(crate) fn find(&self, gvr: &Gvr) -> Result<Arc<Resource>, Failure> {
        self.resource(gvr)
            .ok_or_else(|| Failure::NoSuchResource { asked: gvr.to_string() })
    }

    pub(crate) async fn cache(&self, resource: &Resource) -> Result<Arc<Cache>, Failure> {
        let name = &resource.storage.resource;
        let found = self.inner.caches.read().get(name).cloned();
        let cell = match found {
            Some(cell) => cell,
            None => self.inner.caches.write().entry(name.clone()).or_default().clone(),
        };
        let start = || Cache::start(self.inner.store.clone(), resource, self.inner.options.limits);
        cell.get_or_try_init(start).await.cloned()
    }

    /// Forgets a kind's cache: the kind is gone, or is to be read with other fields.
    pub(crate) fn drop_cache(&self, resource: &GroupResource) {
        let cell = self.inner.caches.write().remove(resource);
        if let Some(cache) = cell.as_ref().and_then(|c| c.get()) {
            cache.end(&Failure::Expired("the kind is no longer served as it was".into()));
        }
    }

    /// What to store for a document that is in its stored version.
    pub(crate) fn encode(&self, storage: &Storage, value: &mut Value) -> Result<Encoded, Failure> {
        document::encode(self.inner.options.media, &storage.gvk, value)
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.inner.options.clock.now()
    }

    pub(crate) async fn authorize(&self, caller: &Caller, verb: &str, target: &Target) -> Result<(), Failure> {
        let attributes = Attributes {
            caller,
            verb,
            group: &target.gvr.group,
            version: &target.gvr.version,
            resource: &target.gvr.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
        };
        match self.inner.options.authorize.authorize(&attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(refused(&attributes, &why)),
        }
    }

    fn audit_read(
        &self,
        caller: &Caller,
        verb: &'static str,
        target: &Target,
        (received, began): (jiff::Timestamp, Instant),
        outcome: Result<Option<&Object>, &Failure>,
    ) {
        self.audit(Audited {
            caller,
            verb,
            target,
            dry_run: false,
            received,
            began,
            body: None,
            outcome,
            annotations: &BTreeMap::new(),
        });
    }

    pub(crate) fn audit(&self, event: Audited<'_>) {
        self.inner.options.audit.record(&AuditEvent {
            caller: event.caller,
            verb: event.verb,
            target: event.target,
            dry_run: event.dry_run,
            received: event.received,
            took: event.began.elapsed(),
            body: event.body,
            outcome: event.outcome,
            annotations: event.annotations,
        });
    }
}

/// An [`AuditEvent`] before its duration is known.
pub(crate) struct Audited<'a> {
    pub caller: &'a Caller,
    pub verb: &'a str,
    pub target: &'a Target,
    pub dry_run: bool,
    pub received: jiff::Timestamp,
    pub began: Instant,
    pub body: Option<&'a [u8]>,
    pub outcome: Result<Option<&'a Object>, &'a Failure>,
    pub annotations: &'a BTreeMap<String, String>,
}

/// `pods "a" is forbidden: User "x" cannot get resource "pods" in API group "" in the namespace "default"`.
fn refused(what: &Attributes<'_>, why: &str) -> Failure {
    let mut reason = format!(
        "User {:?} cannot {} resource \"{}",
        what.caller.user().name,
        what.verb,
        what.resource
    );
    if !what.subresource.is_empty() {
        reason.push('/');
        reason.push_str(what.subresource);
    }
    reason.push_str(&format!("\" in API group {:?}", what.group));
    match what.namespace {
        "" => reason.push_str(" at the cluster scope"),
        namespace => reason.push_str(&format!(" in the namespace {namespace:?}")),
    }
    if !why.is_empty() {
        reason.push_str(": ");
        reason.push_str(why);
    }
    Failure::Forbidden {
        resource: GroupResource::new(what.group, what.resource),
        name: what.name.into(),
        reason,
    }
}

/// A collection as the target of a request.
fn whole(of: &Collection) -> Target {
    Target::new(of.gvr.clone(), of.namespace.as_deref().unwrap_or_default(), "")
}

#[async_trait]
impl Cluster for Registry {
    fn kinds(&self) -> Arc<Vec<Arc<Kind>>> {
        self.inner.catalog.load().kinds.clone()
    }

    /// Listens from the moment it is called, not from its first poll: call it, read [`Cluster::kinds`], then wait.
    fn kinds_changed<'a, 'f>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        let mut changed = self.inner.catalog_changed.subscribe();
        Box::pin(async move {
            // An error means that the registry is gone: then nothing changes any more.
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    async fn get(&self, caller: &Caller, target: &Target, at: ReadVersion) -> Result<Arc<Object>, Failure> {
        let begun = (self.now(), Instant::now());
        let result = crate::read::get(self, caller, target, at).await;
        self.audit_read(caller, "get", target, begun, result.as_ref().map(|o| Some(o.as_ref())));
        result
    }

    async fn list(&self, caller: &Caller, of: &Collection, options: &ListOptions) -> Result<List, Failure> {
        let begun = (self.now(), Instant::now());
        let result = crate::read::list(self, caller, of, options).await;
        self.audit_read(caller, "list", &whole(of), begun, result.as_ref().map(|_| None));
        result
    }

    async fn watch(&self, caller: &Caller, of: &Collection, options: &WatchOptions) -> Result<WatchStream, Failure> {
        let begun = (self.now(), Instant::now());
        let result = crate::watch::watch(self, caller, of, options).await;
        self.audit_read(caller, "watch", &whole(of), begun, result.as_ref().map(|_| None));
        result
    }

    async fn write(&self, caller: &Caller, write: Write) -> Result<Written, Failure> {
        crate::write::write(self, caller, write).await
    }
}
