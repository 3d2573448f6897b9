//! Controllers: `pilotis:controller`.

use std::sync::Arc;

use super::Answer;
use crate::bindings::exports::pilotis::controller::{about, reconcile};
use crate::fault::FaultKind;
use crate::plugin::Plugin;
use crate::reads::Reads;

pub use about::Description;
pub use reconcile::{
    Event, Intent, Outcome, Patch, PatchFormat, Precondition, Propagation, Refusal as RefusedIntent, Request,
};

/// What a call may hand back for its next one.
pub const MEMO_BYTES: usize = 4096;
/// More than this in one answer is a mistake, not a plan.
pub const MOST_INTENTS: usize = 10_000;

/// A plugin seen as a controller. Cheap to clone; follows swaps by itself.
#[derive(Clone)]
pub struct Controller {
    plugin: Arc<Plugin>,
}

impl Controller {
    pub fn new(plugin: Arc<Plugin>) -> Self {
        Self { plugin }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Of the revision that serves now.
    pub fn description(&self) -> Option<Description> {
        self.plugin.current()?.about().controller.clone()
    }

    /// One run of one key on one view. May use an instance that earlier calls ran in; a controller that keeps state there
    /// is caught by [`Controller::replay`].
    ///
    /// # Errors
    /// A [`Fault`]; the key stays due, and nothing was changed.
    pub async fn reconcile(&self, request: &Request, reads: Box<dyn Reads>) -> Answer<Outcome> {
        self.run(request, reads, false).await
    }

    /// The same in an instance that no call ran in: with the same reads it must give the same bytes.
    ///
    /// # Errors
    /// As [`Controller::reconcile`].
    pub async fn replay(&self, request: &Request, reads: Box<dyn Reads>) -> Answer<Outcome> {
        self.run(request, reads, true).await
    }

    async fn run(&self, request: &Request, reads: Box<dyn Reads>, fresh: bool) -> Answer<Outcome> {
        let mut visit = self.plugin.enter("reconcile").await?;
        let mut instance = if fresh {
            visit.fresh().await?
        } else {
            visit.instance().await?
        };
        let Some(guest) = &instance.exports.reconcile else {
            return Err(visit.lacks("pilotis:controller/reconcile"));
        };
        let call = visit.begin("reconcile", &mut instance.store, reads);
        let answer = call.limit(guest.call_reconcile(&mut instance.store, request)).await;
        let answer = call.end(&mut instance.store, answer).and_then(|answer| match answer {
            Ok(outcome) => check(outcome)
                .map(Ok)
                .map_err(|wrong| visit.fault(FaultKind::Answer, "reconcile", wrong)),
            Err(refusal) => Ok(Err(refusal)),
        });
        visit.end(instance, answer, !fresh)
    }
}

fn check(outcome: Outcome) -> Result<Outcome, String> {
    if outcome.memo.len() > MEMO_BYTES {
        return Err(format!(
            "its memo has {} bytes; {MEMO_BYTES} is the limit",
            outcome.memo.len()
        ));
    }
    if outcome.intents.len() > MOST_INTENTS {
        return Err(format!(
            "it returns {} intents; {MOST_INTENTS} is the limit",
            outcome.intents.len()
        ));
    }
    Ok(outcome)
}
