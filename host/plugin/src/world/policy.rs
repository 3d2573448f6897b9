//! Scheduling policies: `pilotis:scheduler`.
//!
//! A policy has a mirror of the cluster in its memory, so unlike the other worlds it is one instance, owned by whoever
//! feeds it. After a fault the mirror is lost with the instance: [`Policy::successor`] makes an empty one to fill.
//! A swap is the same without the fault: fill the successor while the old one goes on answering, then put it in its place.

use std::sync::Arc;

use super::{Answer, Refusal};
use crate::bindings::exports::pilotis::scheduler::{about, filter, permit, what_if};
use crate::fault::{Fault, FaultKind};
use crate::instance::Instance;
use crate::plugin::Plugin;
use crate::reads::NoReads;
use crate::revision::Revision;

pub use crate::bindings::pilotis::scheduler::types::Pod;
pub use about::Description;
pub use filter::Verdict;
pub use permit::Decision;
pub use what_if::Change;

/// Bit `i % 64` of word `i / 64` is slot `i`.
pub type NodeSet = Vec<u64>;

/// One revision's instance with its mirror.
pub struct Policy {
    plugin: Arc<Plugin>,
    revision: Arc<Revision>,
    /// Gone after a fault.
    instance: Option<Instance>,
}

/// The extension points a policy has something to say at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Points {
    pub pre_enqueue: bool,
    pub filter: bool,
    pub score: bool,
    pub place: bool,
    pub what_if: bool,
    pub permit: bool,
    pub queueing_hint: bool,
    pub queue_sort: bool,
}

/// One call: fenced, counted, and the end of the instance if it faults.
macro_rules! ask {
    ($self:ident, $doing:literal, $field:ident, |$guest:ident, $store:ident| $call:expr) => {{
        let Policy {
            plugin,
            revision,
            instance: kept,
        } = $self;
        let mould = &revision.mould;
        // Taken out for the call: if the caller gives up in the middle, a half-run instance is not used again.
        let Some(mut instance) = kept.take() else {
            return Err(mould.fault(
                FaultKind::Load,
                $doing,
                "its mirror was lost by an earlier fault; it has to be filled anew".into(),
            ));
        };
        let Instance { store: $store, exports } = &mut instance;
        let Some($guest) = &exports.$field else {
            *kept = Some(instance);
            return Err(mould.fault(
                FaultKind::WrongWorld,
                $doing,
                concat!("it does not export ", stringify!($field)).into(),
            ));
        };
        let call = mould.begin($doing, $store, Box::new(NoReads));
        let answer = call.limit($call).await;
        match call.end($store, answer) {
            Ok(answer) => {
                plugin.succeeded();
                *kept = Some(instance);
                Ok(answer)
            }
            Err(fault) => {
                plugin.faulted(&fault);
                Err(fault)
            }
        }
    }};
}

#[expect(clippy::ptr_arg, reason = "the bindings lower vectors")]
impl Policy {
    /// An instance of the revision that serves now, its mirror empty: the first `sync` must hold everything.
    ///
    /// # Errors
    /// [`FaultKind::Open`] while the breaker is open; else whatever kept it from starting.
    pub async fn start(plugin: &Arc<Plugin>) -> Result<Self, Fault> {
        let mut visit = plugin.enter("start").await?;
        let revision = visit.revision().clone();
        if revision.about().policy.is_none() {
            return Err(visit.lacks("pilotis:scheduler/about"));
        }
        let instance = visit.instance().await?;
        visit.leave();
        Ok(Self {
            plugin: plugin.clone(),
            revision,
            instance: Some(instance),
        })
    }

    /// An empty one of the revision that serves now, to be filled and put in this one's place.
    ///
    /// # Errors
    /// As [`Policy::start`].
    pub async fn successor(&self) -> Result<Self, Fault> {
        Self::start(&self.plugin).await
    }

    /// A newer revision serves, or this instance is lost: time for a [`Policy::successor`].
    pub fn is_stale(&self) -> bool {
        let newer = self
            .plugin
            .current()
            .is_none_or(|current| !Arc::ptr_eq(&current, &self.revision));
        self.instance.is_none() || newer
    }

    /// Lost by a fault, or because a call was given up.
    pub fn is_lost(&self) -> bool {
        self.instance.is_none()
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    pub fn revision(&self) -> &Arc<Revision> {
        &self.revision
    }

    pub fn description(&self) -> &Description {
        self.revision.about().policy.as_ref().expect("`start` has looked")
    }

    pub fn points(&self) -> Points {
        let at = &self.revision.mould.indices;
        Points {
            pre_enqueue: at.pre_enqueue.is_some(),
            filter: at.filter.is_some(),
            score: at.score.is_some(),
            place: at.place.is_some(),
            what_if: at.what_if.is_some(),
            permit: at.permit.is_some(),
            queueing_hint: at.queueing_hint.is_some(),
            queue_sort: at.queue_sort.is_some(),
        }
    }

    /// # Errors
    /// A [`Fault`]; the instance is lost with it. The same for every question below.
    pub async fn sync(&mut self, deltas: &Vec<u8>) -> Answer<()> {
        ask!(self, "sync", mirror, |guest, store| guest
            .call_sync(&mut *store, deltas))
    }

    pub async fn admit(&mut self, pod: Pod) -> Answer<Option<String>> {
        ask!(self, "pre-enqueue", pre_enqueue, |guest, store| guest
            .call_admit(&mut *store, pod))
    }

    pub async fn filter(&mut self, pod: Pod, among: &NodeSet, explain: bool) -> Answer<Verdict> {
        let verdict: Result<Result<Verdict, Refusal>, Fault> = ask!(self, "filter", filter, |guest, store| guest
            .call_filter(&mut *store, pod, among, explain));
        let outside = |verdict: &Verdict| {
            verdict
                .passed
                .iter()
                .zip(among.iter().chain(std::iter::repeat(&0)))
                .any(|(p, a)| p & !a != 0)
        };
        match verdict {
            Ok(Ok(verdict)) if outside(&verdict) => Err(self.bad("filter", "it passes nodes it was not asked about")),
            Ok(Ok(verdict)) if verdict.reasons.iter().any(|at| usize::from(*at) >= verdict.texts.len()) => {
                Err(self.bad("filter", "a reason points behind its texts"))
            }
            verdict => verdict,
        }
    }

    pub async fn score(&mut self, pod: Pod, feasible: &NodeSet) -> Answer<Vec<i32>> {
        let scores: Result<Result<Vec<i32>, Refusal>, Fault> = ask!(self, "score", score, |guest, store| guest
            .call_score(&mut *store, pod, feasible));
        let wanted: usize = feasible.iter().map(|word| word.count_ones() as usize).sum();
        match scores {
            Ok(Ok(scores)) if scores.len() != wanted => {
                Err(self.bad("score", "it must answer one score for each feasible node"))
            }
            scores => scores,
        }
    }

    pub async fn place(&mut self, pods: &Vec<Pod>, among: &NodeSet, seed: u64) -> Answer<Vec<Option<u32>>> {
        let slots: Result<Result<Vec<Option<u32>>, Refusal>, Fault> = ask!(self, "place", place, |guest, store| guest
            .call_place(&mut *store, pods, among, seed));
        let inside = |slot: &u32| {
            among
                .get(*slot as usize / 64)
                .is_some_and(|word| word >> (slot % 64) & 1 == 1)
        };
        match slots {
            Ok(Ok(slots)) if slots.len() != pods.len() || !slots.iter().flatten().all(inside) => {
                Err(self.bad("place", "it must answer for each pod, with nodes it was asked about"))
            }
            slots => slots,
        }
    }

    pub async fn what_if(&mut self, changes: &Vec<Change>, pod: Pod, among: &NodeSet) -> Answer<NodeSet> {
        ask!(self, "what-if", what_if, |guest, store| guest.call_what_if(
            &mut *store,
            changes,
            pod,
            among
        ))
    }

    pub async fn without_lower(&mut self, pod: Pod, among: &NodeSet, below: i32) -> Answer<NodeSet> {
        ask!(self, "what-if", what_if, |guest, store| guest.call_without_lower(
            &mut *store,
            pod,
            among,
            below
        ))
    }

    pub async fn permit(&mut self, pod: Pod, slot: u32) -> Answer<Decision> {
        ask!(self, "permit", permit, |guest, store| guest.call_permit(
            &mut *store,
            pod,
            slot
        ))
    }

    pub async fn worth_another_try(&mut self, waiting: &Vec<u64>) -> Answer<Vec<u64>> {
        ask!(self, "queueing-hint", queueing_hint, |guest, store| guest
            .call_worth_another_try(&mut *store, waiting))
    }

    pub async fn rank(&mut self, pod: Pod) -> Answer<i64> {
        ask!(self, "queue-sort", queue_sort, |guest, store| guest
            .call_rank(&mut *store, pod))
    }

    /// An answer that breaks a promise: believed no more, and neither is the mirror it came from.
    fn bad(&mut self, doing: &'static str, what: &str) -> Fault {
        self.instance = None;
        let fault = self.revision.mould.fault(FaultKind::Answer, doing, what.into());
        self.plugin.faulted(&fault);
        fault
    }
}
