//! One plugin by name: which revision serves, how it fares, and the exchange of one for another.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;
use wasmtime::Store;

use crate::breaker::{Breaker, BreakerState};
use crate::fault::{Fault, FaultKind};
use crate::figures::{Figures, Snapshot};
use crate::instance::{Call, Instance};
use crate::reads::Reads;
use crate::revision::{Inside, Revision};
use crate::state::State;
use crate::{Digest, PluginName};

/// A revision that trips the breaker before this many good calls is taken back, if there is one to go back to.
const PROVEN: u64 = 100;

/// Lives as long as its `Plugin` object; revisions come and go in it.
pub struct Plugin {
    name: PluginName,
    current: ArcSwapOption<Revision>,
    /// What served before, and how many calls had been good when it was replaced.
    previous: Mutex<Option<Previous>>,
    breaker: Breaker,
    figures: Arc<Figures>,
    good: std::sync::atomic::AtomicU64,
    /// Rises with every exchange.
    generation: watch::Sender<u64>,
}

struct Previous {
    revision: Arc<Revision>,
    good_before: u64,
}

impl Plugin {
    pub fn new(name: PluginName) -> Arc<Self> {
        Arc::new(Self {
            name,
            current: ArcSwapOption::empty(),
            previous: Mutex::default(),
            breaker: Breaker::default(),
            figures: Arc::default(),
            good: Default::default(),
            generation: watch::Sender::new(0),
        })
    }

    pub fn name(&self) -> &PluginName {
        &self.name
    }

    pub fn current(&self) -> Option<Arc<Revision>> {
        self.current.load_full()
    }

    /// The digest that would serve again if this revision were taken back.
    pub fn previous(&self) -> Option<Digest> {
        self.previous.lock().as_ref().map(|p| p.revision.digest())
    }

    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    pub fn read_figures(&self) -> Snapshot {
        self.figures.read()
    }

    pub fn breaker(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    /// Counts exchanges; whoever keeps something per revision (a mirror, a started view) waits for its changes.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The cut: calls that begin from now on go to `next`, calls under way end where they began. Returns what served
    /// before; wait for its [`Revision::drained`] to know that it is done.
    pub fn swap(&self, next: Arc<Revision>) -> Option<Arc<Revision>> {
        let old = self.exchange(Some(next));
        if let Some(old) = &old {
            let good_before = self.good.load(std::sync::atomic::Ordering::Relaxed);
            *self.previous.lock() = Some(Previous {
                revision: old.clone(),
                good_before,
            });
        }
        old
    }

    /// No call begins any more.
    pub fn unload(&self) -> Option<Arc<Revision>> {
        *self.previous.lock() = None;
        self.exchange(None)
    }

    fn exchange(&self, next: Option<Arc<Revision>>) -> Option<Arc<Revision>> {
        let old = self.current.swap(next);
        self.breaker.reset();
        if let Some(old) = &old {
            old.retire();
        }
        self.generation.send_modify(|generation| *generation += 1);
        old
    }

    /// A place for one call in the revision that serves now.
    ///
    /// # Errors
    /// [`FaultKind::Open`] while the breaker is open, [`FaultKind::Load`] when nothing is loaded.
    pub(crate) async fn enter(&self, doing: &'static str) -> Result<Visit<'_>, Fault> {
        if let Err(wait) = self.breaker.admit(Instant::now()) {
            let last = self
                .figures
                .last_fault()
                .map_or_else(String::new, |f| format!("; the last time: {}", f.message));
            return Err(self.fault(
                FaultKind::Open,
                doing,
                format!("it faulted too often; tried again in {wait:.1?}{last}"),
            ));
        }
        let mut visit = Visit {
            plugin: self,
            inside: None,
            settled: false,
        };
        let Some(revision) = self.current.load_full() else {
            return Err(self.fault(
                FaultKind::Load,
                doing,
                "no revision of it is loaded; its Plugin object says why".into(),
            ));
        };
        visit.inside = Some(revision.enter(doing).await?);
        Ok(visit)
    }

    fn fault(&self, kind: FaultKind, doing: &'static str, message: String) -> Fault {
        let digest = self.current.load().as_ref().map(|r| r.digest());
        Fault {
            plugin: self.name.clone(),
            digest,
            kind,
            doing,
            message,
            backtrace: Vec::new(),
        }
    }

    pub(crate) fn succeeded(&self) {
        self.good.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.breaker.succeeded();
    }

    pub(crate) fn faulted(&self, fault: &Fault) {
        self.figures.faulted(fault);
        if fault.kind.counts() && self.breaker.faulted(Instant::now()) {
            tracing::warn!(plugin = %self.name, %fault, "a plugin keeps faulting; it rests for a while");
            self.take_back(fault.digest);
        }
    }

    /// A revision that never worked makes way for the one that did.
    fn take_back(&self, culprit: Option<Digest>) {
        let good = self.good.load(std::sync::atomic::Ordering::Relaxed);
        let mut previous = self.previous.lock();
        let unproven = previous.as_ref().is_some_and(|p| good - p.good_before < PROVEN);
        // Only if the culprit still serves: a fault of a revision that is already gone says nothing about this one.
        if unproven
            && self.current.load().as_ref().map(|r| r.digest()) == culprit
            && let Some(Previous { revision, .. }) = previous.take()
        {
            tracing::warn!(plugin = %self.name, back_to = %revision.digest().short(), "taking back a revision that never worked");
            revision.revive();
            drop(previous);
            self.exchange(Some(revision));
        }
    }
}

/// One call's stay in a revision.
pub(crate) struct Visit<'p> {
    plugin: &'p Plugin,
    inside: Option<Inside>,
    settled: bool,
}

impl Visit<'_> {
    pub(crate) fn revision(&self) -> &Arc<Revision> {
        &self
            .inside
            .as_ref()
            .expect("a visit is handed out inside a revision")
            .revision
    }

    pub(crate) async fn instance(&mut self) -> Result<Instance, Fault> {
        let made = self.revision().instance().await;
        made.inspect_err(|fault| self.settle(Err(fault)))
    }

    /// One that no call ran in.
    pub(crate) async fn fresh(&mut self) -> Result<Instance, Fault> {
        let made = self.revision().fresh().await;
        made.inspect_err(|fault| self.settle(Err(fault)))
    }

    pub(crate) fn begin(&self, doing: &'static str, store: &mut Store<State>, reads: Box<dyn Reads>) -> Call<'_> {
        self.revision().mould.begin(doing, store, reads)
    }

    pub(crate) fn fault(&self, kind: FaultKind, doing: &'static str, message: String) -> Fault {
        self.revision().mould.fault(kind, doing, message)
    }

    pub(crate) fn lacks(&self, interface: &str) -> Fault {
        self.fault(FaultKind::WrongWorld, "call", format!("it does not export {interface}"))
    }

    /// Has the next instance made ready, behind this call's back.
    pub(crate) fn stock(&self) {
        let revision = self.revision().clone();
        if revision.wants_warm() {
            tokio::spawn(async move {
                // What keeps it from starting is told to the next call, which will try as well.
                if let Ok(instance) = revision.fresh().await {
                    revision.keep(instance);
                }
            });
        }
    }

    /// Tells the plugin how the call ended; the instance is kept only after a good one.
    pub(crate) fn end<T>(mut self, instance: Instance, answer: Result<T, Fault>, keep: bool) -> Result<T, Fault> {
        self.settle(answer.as_ref().map(drop));
        if keep && answer.is_ok() {
            self.revision().keep(instance);
        }
        answer
    }

    /// Without a word on how the plugin fares.
    pub(crate) fn leave(self) {}

    fn settle(&mut self, end: Result<(), &Fault>) {
        self.settled = true;
        match end {
            Ok(()) => self.plugin.succeeded(),
            Err(fault) => self.plugin.faulted(fault),
        }
    }
}

impl Drop for Visit<'_> {
    /// Given up by its caller: neither good nor bad.
    fn drop(&mut self) {
        if !self.settled {
            self.plugin.breaker.abandoned();
        }
    }
}
