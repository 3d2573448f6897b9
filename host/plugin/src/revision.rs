//! A component with its configuration, ready to be called: what a swap exchanges.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::Digest;
use crate::bindings::exports::pilotis::{admission, controller, scheduler};
use crate::cache::Origin;
use crate::engine::EngineKind;
use crate::fault::{Fault, FaultKind};
use crate::grants::{Grants, Rule};
use crate::instance::{Instance, Mould};

/// Instances kept ready when nothing is called.
const WARM: usize = 4;
/// Calls of one plugin at a time; more wait. Keeps one busy plugin from taking every slot of the pool.
const AT_ONCE: usize = 32;

/// What a component says about itself, for each world it is in.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub controller: Option<controller::about::Description>,
    pub policy: Option<scheduler::about::Description>,
    pub admission: Option<admission::about::Description>,
    asks: Vec<Rule>,
}

/// Never changes once loaded. Calls that are under way when it is replaced end in it.
pub struct Revision {
    pub(crate) mould: Mould,
    about: About,
    /// As it crosses.
    config: Vec<u8>,
    grants: Grants,
    interfaces: Vec<&'static str>,
    engine: EngineKind,
    origin: Origin,
    load_time: OnceLock<Duration>,
    warm: Mutex<Vec<Instance>>,
    at_once: Semaphore,
    calls: AtomicUsize,
    retired: AtomicBool,
    drained: Notify,
}

impl Revision {
    pub(crate) fn new(
        mould: Mould,
        about: About,
        config: Arc<str>,
        grants: Grants,
        interfaces: Vec<&'static str>,
        engine: EngineKind,
        origin: Origin,
    ) -> Arc<Self> {
        Arc::new(Self {
            mould,
            about,
            config: config.as_bytes().to_vec(),
            grants,
            interfaces,
            engine,
            origin,
            load_time: OnceLock::new(),
            warm: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            calls: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            drained: Notify::new(),
        })
    }

    pub fn digest(&self) -> Digest {
        self.mould.digest
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    /// `spec.config` as JSON.
    pub fn config(&self) -> &str {
        std::str::from_utf8(&self.config).expect("it was made of a text")
    }

    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Names of the known interfaces it exports, without versions: `pilotis:controller/reconcile`.
    pub fn interfaces(&self) -> &[&'static str] {
        &self.interfaces
    }

    /// `controller`, `policy`, `admission`: the worlds it is in.
    pub fn worlds(&self) -> Vec<&'static str> {
        let about = &self.about;
        let all = [
            ("controller", about.controller.is_some()),
            ("policy", about.policy.is_some()),
            ("admission", about.admission.is_some()),
        ];
        all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect()
    }

    pub fn engine(&self) -> EngineKind {
        self.engine
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// From bytes to configured, code from the cache or compiled.
    pub fn load_time(&self) -> Duration {
        self.load_time.get().copied().unwrap_or_default()
    }

    /// Calls under way now.
    pub fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    pub(crate) fn loaded(&self, took: Duration) {
        let _ = self.load_time.set(took);
    }

    /// Configures the instance it was asked with and keeps it.
    pub(crate) async fn admit_first(&self, mut first: Instance) -> Result<(), Fault> {
        self.configure(&mut first).await?;
        self.warm.lock().push(first);
        Ok(())
    }

    /// A configured instance: a warm one, or a new one.
    pub(crate) async fn instance(&self) -> Result<Instance, Fault> {
        // In its own statement: the lock must not be held while one is made.
        let warm = self.warm.lock().pop();
        match warm {
            Some(instance) => Ok(instance),
            None => self.fresh().await,
        }
    }

    /// A configured instance that no call has run in.
    pub(crate) async fn fresh(&self) -> Result<Instance, Fault> {
        let mut instance = self.mould.instantiate().await?;
        self.configure(&mut instance).await?;
        Ok(instance)
    }

    /// Keeps an instance for the next call, unless there are enough or this revision is on its way out.
    pub(crate) fn keep(&self, instance: Instance) {
        let mut warm = self.warm.lock();
        if warm.len() < WARM && !self.retired.load(SeqCst) {
            warm.push(instance);
        }
    }

    pub(crate) fn wants_warm(&self) -> bool {
        self.warm.lock().is_empty() && !self.retired.load(SeqCst)
    }

    async fn configure(&self, instance: &mut Instance) -> Result<(), Fault> {
        let Some(lifecycle) = &instance.exports.lifecycle else {
            return Ok(());
        };
        let call = self.mould.prepare("configure", &mut instance.store);
        let answer = call
            .limit(lifecycle.call_configure(&mut instance.store, &self.config))
            .await;
        match call.end(&mut instance.store, answer)? {
            Ok(()) => Ok(()),
            Err(refused) => Err(self.mould.fault(
                FaultKind::Configure,
                "configure",
                format!("it refuses spec.config: {}", refused.message),
            )),
        }
    }

    /// One of the places for calls. Waits while all are taken, but no longer than a call may take: whoever asks behind a
    /// plugin that is too slow for its callers is told so, and no queue grows without end.
    pub(crate) async fn enter(self: &Arc<Self>, doing: &'static str) -> Result<Inside, Fault> {
        // Counted before anything is awaited: whoever replaces this revision now waits for this call too.
        self.calls.fetch_add(1, SeqCst);
        let mut inside = Inside {
            revision: self.clone(),
            place: false,
        };
        let place = match self.at_once.try_acquire() {
            Ok(place) => Some(place),
            Err(_) => {
                let free = self.at_once.acquire();
                let waited = tokio::time::timeout(self.mould.limits.deadline, free).await;
                waited.ok().and_then(Result::ok)
            }
        };
        let Some(place) = place else {
            let says = format!("{AT_ONCE} calls of it are under way, and none has ended in time");
            return Err(self.mould.fault(FaultKind::Host, doing, says));
        };
        place.forget();
        inside.place = true;
        Ok(inside)
    }

    /// No new instances are kept from now on; memory is given back as calls end.
    pub(crate) fn retire(&self) {
        self.retired.store(true, SeqCst);
        self.warm.lock().clear();
        if self.calls() == 0 {
            self.drained.notify_waiters();
        }
    }

    /// It serves again after it was replaced.
    pub(crate) fn revive(&self) {
        self.retired.store(false, SeqCst);
    }

    /// Resolves once no call is under way in it. Meaningful after it was replaced.
    pub async fn drained(&self) {
        loop {
            // Registered before looking, so that an end in between is not missed.
            let notified = self.drained.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.calls() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// A call is inside: counted and given a place until dropped.
pub(crate) struct Inside {
    pub(crate) revision: Arc<Revision>,
    place: bool,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.place {
            self.revision.at_once.add_permits(1);
        }
        if self.revision.calls.fetch_sub(1, SeqCst) == 1 && self.revision.retired.load(SeqCst) {
            self.revision.drained.notify_waiters();
        }
    }
}

impl About {
    /// Calls each `about` there is.
    pub(crate) async fn ask(mould: &Mould, instance: &mut Instance) -> Result<Self, Fault> {
        let mut about = About::default();
        let Instance { store, exports } = instance;
        let begin = |store: &mut _| mould.prepare("describe", store);
        if let Some(guest) = &exports.controller_about {
            let call = begin(store);
            let answer = call.limit(guest.call_describe(&mut *store)).await;
            let said = call.end(store, answer)?;
            about.asks.extend(said.asks.iter().cloned().map(Rule::from));
            about.controller = Some(said);
        }
        if let Some(guest) = &exports.policy_about {
            let call = begin(store);
            let answer = call.limit(guest.call_describe(&mut *store)).await;
            let said = call.end(store, answer)?;
            about.asks.extend(said.asks.iter().cloned().map(Rule::from));
            about.policy = Some(said);
        }
        if let Some(guest) = &exports.admission_about {
            let call = begin(store);
            let answer = call.limit(guest.call_describe(&mut *store)).await;
            let said = call.end(store, answer)?;
            about.asks.extend(said.asks.iter().cloned().map(Rule::from));
            about.admission = Some(said);
        }
        Ok(about)
    }

    /// Of all its worlds together.
    pub fn asks(&self) -> &[Rule] {
        &self.asks
    }

    /// The first that is declared; a component in several worlds has one configuration.
    pub fn config_schema(&self) -> &str {
        let all = [
            self.controller.as_ref().map(|c| &c.config_schema),
            self.policy.as_ref().map(|p| &p.config_schema),
            self.admission.as_ref().map(|a| &a.config_schema),
        ];
        all.into_iter()
            .flatten()
            .find(|schema| !schema.is_empty())
            .map_or("", String::as_str)
    }
}
