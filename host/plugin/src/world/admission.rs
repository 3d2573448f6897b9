//! Admission: `pilotis:admission`.

use std::sync::Arc;

use super::Answer;
use crate::bindings::exports::pilotis::admission::{about, review};
use crate::fault::FaultKind;
use crate::plugin::Plugin;
use crate::reads::Reads;

pub use about::{Description, MatchRule, Occasion, Operation, Phase};
pub use review::{Answer as Verdict, Charge, Denial, Request, User};

/// A plugin seen as an admission rule. Cheap to clone; follows swaps by itself.
#[derive(Clone)]
pub struct Admission {
    plugin: Arc<Plugin>,
}

impl Admission {
    pub fn new(plugin: Arc<Plugin>) -> Self {
        Self { plugin }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Of the revision that serves now.
    pub fn description(&self) -> Option<Description> {
        self.plugin.current()?.about().admission.clone()
    }

    /// Asks about one request, in an instance that no call ran in before: nothing can be carried from one request to the
    /// next. The next instance is made ready after the answer, so that nobody waits for it.
    ///
    /// `reads`: [`crate::reads::NoReads`] for rules that decide from the request alone.
    ///
    /// # Errors
    /// A [`crate::Fault`]; `spec.failurePolicy` says what that means for the request.
    pub async fn review(&self, request: &Request, reads: Box<dyn Reads>) -> Answer<Verdict> {
        let mut visit = self.plugin.enter("review").await?;
        let mut instance = visit.instance().await?;
        let Some(guest) = &instance.exports.review else {
            return Err(visit.lacks("pilotis:admission/review"));
        };
        let call = visit.begin("review", &mut instance.store, reads);
        let answer = call.limit(guest.call_review(&mut instance.store, request)).await;
        let answer = call.end(&mut instance.store, answer).and_then(|answer| match answer {
            Ok(verdict) => {
                check(&verdict, request.phase).map_err(|wrong| visit.fault(FaultKind::Answer, "review", wrong))?;
                Ok(Ok(verdict))
            }
            Err(refusal) => Ok(Err(refusal)),
        });
        visit.stock();
        visit.end(instance, answer, false)
    }
}

fn check(verdict: &Verdict, phase: Phase) -> Result<(), String> {
    if verdict.patch.is_some() && phase == Phase::Validating {
        return Err("it answers with a patch in the validating phase, where the object is final".into());
    }
    match &verdict.denied {
        Some(denial) if !(400..600).contains(&denial.code) => Err(format!(
            "it denies with HTTP status {}; 400 to 599 are for that",
            denial.code
        )),
        _ => Ok(()),
    }
}
