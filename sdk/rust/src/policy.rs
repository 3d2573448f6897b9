//! How a [`Policy`] is exported: one instance of it a component, behind the interfaces it says it has.

use crate::bindings::filter::exports::pilotis::scheduler::filter;
use crate::bindings::host::pilotis::core::types::{Failure, Reason};
use crate::bindings::host::pilotis::scheduler::types;
use crate::bindings::lifecycle::exports::pilotis::core::lifecycle;
use crate::bindings::policy::exports::pilotis::scheduler as wit;
use crate::bindings::score::exports::pilotis::scheduler::score;
use crate::bindings::what_if::exports::pilotis::scheduler::what_if;
use crate::scheduler::{Change, NodeSet, Pod, Policy};

/// What the macro says of a policy, and where its one instance is kept.
#[doc(hidden)]
pub trait Held: Policy + 'static {
    const WEIGHT: u32;
    const CONFIG_SCHEMA: &'static str;

    fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R;
}

#[doc(hidden)]
pub struct Exported<P>(std::marker::PhantomData<P>);

fn failure(message: String) -> Failure {
    Failure {
        reason: Reason::Internal,
        message,
    }
}

fn pod(pod: types::Pod) -> Pod {
    Pod {
        id: pod.id,
        class: pod.class,
    }
}

impl<P: Held> lifecycle::Guest for Exported<P> {
    fn configure(config: Vec<u8>) -> Result<(), Failure> {
        P::with(|policy| policy.configure(&config)).map_err(|message| Failure {
            reason: Reason::Invalid,
            message,
        })
    }
}

impl<P: Held> wit::about::Guest for Exported<P> {
    fn describe() -> wit::about::Description {
        wit::about::Description {
            asks: Vec::new(),
            config_schema: P::CONFIG_SCHEMA.to_owned(),
            weight: P::WEIGHT,
        }
    }
}

impl<P: Held> wit::mirror::Guest for Exported<P> {
    fn sync(deltas: Vec<u8>) -> Result<(), Failure> {
        P::with(|policy| policy.sync(&deltas)).map_err(failure)
    }
}

impl<P: Held> filter::Guest for Exported<P> {
    fn filter(asked: types::Pod, among: Vec<u64>, explain: bool) -> Result<filter::Verdict, Failure> {
        let verdict = P::with(|policy| policy.filter(pod(asked), &NodeSet(among), explain)).map_err(failure)?;
        Ok(filter::Verdict {
            passed: verdict.passed.0,
            reasons: verdict.reasons,
            texts: verdict.texts,
            unresolvable: verdict.unresolvable.0,
        })
    }
}

impl<P: Held> score::Guest for Exported<P> {
    fn score(asked: types::Pod, feasible: Vec<u64>) -> Result<Vec<i32>, Failure> {
        P::with(|policy| policy.score(pod(asked), &NodeSet(feasible))).map_err(failure)
    }
}

impl<P: Held> what_if::Guest for Exported<P> {
    fn what_if(changes: Vec<what_if::Change>, asked: types::Pod, among: Vec<u64>) -> Result<Vec<u64>, Failure> {
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|change| match change {
                what_if::Change::Removed(id) => Change::Removed(id),
                what_if::Change::Added((added, slot)) => Change::Added(pod(added), slot),
            })
            .collect();
        let fits = P::with(|policy| policy.what_if(&changes, pod(asked), &NodeSet(among)));
        fits.map(|set| set.0).map_err(failure)
    }

    fn without_lower(asked: types::Pod, among: Vec<u64>, below: i32) -> Result<Vec<u64>, Failure> {
        let fits = P::with(|policy| policy.without_lower(pod(asked), &NodeSet(among), below));
        fits.map(|set| set.0).map_err(failure)
    }
}
