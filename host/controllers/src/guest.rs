//! A controller plugin as a [`Reconciler`]: words of the house to words of the wall, and back.

use std::sync::Arc;

use async_trait::async_trait;
use model::{Failure, Gvk, Kind};
use plugin::reads;
use plugin::world::controller as wall;
use plugin::{Rule, reason};
use tokio::sync::watch;
use view::RecordedView;

use crate::intent::{Event, Intent, Key, Outcome, PatchFormat, Precondition, Propagation, Request};
use crate::reconciler::Reconciler;

/// A plugin that decides.
pub struct Guest {
    controller: plugin::Controller,
}

impl Guest {
    pub fn new(plugin: Arc<plugin::Plugin>) -> Arc<Self> {
        Arc::new(Self {
            controller: plugin::Controller::new(plugin),
        })
    }

    /// Calls a fresh instance on a recorded call: it must answer what the recorded call answered.
    ///
    /// # Errors
    /// As [`Reconciler::reconcile`].
    pub async fn replay(&self, request: &Request, view: Arc<RecordedView>) -> Result<Outcome, Failure> {
        let answer = self.controller.replay(&to_wall(request), Box::new(view)).await;
        self.answered(answer)
    }

    fn answered(&self, answer: plugin::world::Answer<wall::Outcome>) -> Result<Outcome, Failure> {
        match answer {
            Ok(Ok(outcome)) => from_wall(outcome),
            Ok(Err(refusal)) => Err(plugin::refusal(
                self.controller.plugin().name().as_str(),
                "reconcile",
                refusal,
            )),
            Err(fault) => Err(fault.into()),
        }
    }
}

#[async_trait]
impl Reconciler for Guest {
    fn subject(&self) -> Option<Gvk> {
        Gvk::parse(&self.controller.description()?.subject)
    }

    fn revision(&self) -> watch::Receiver<u64> {
        self.controller.plugin().generation()
    }

    async fn reconcile(&self, request: &Request, view: Arc<RecordedView>) -> Result<Outcome, Failure> {
        let answer = self.controller.reconcile(&to_wall(request), Box::new(view)).await;
        self.answered(answer)
    }
}

/// What a plugin asked to be allowed when it was loaded, as far as reading goes: `get` on a resource grants its reads.
pub struct Asked(pub Arc<plugin::Plugin>);

impl view::Grants for Asked {
    fn may_read(&self, kind: &Kind, _: &str) -> Result<(), Failure> {
        let granted = self.0.current().is_some_and(|revision| {
            let may = |rule: &Rule| rule.covers(&kind.gvk.group, &kind.plural, "get");
            revision.about().asks().iter().any(may)
        });
        if granted {
            return Ok(());
        }
        let reason = format!(
            "plugin {} did not ask for get on it; add a rule to what its describe() asks and to spec.grants",
            self.0.name().as_str()
        );
        Err(Failure::Forbidden {
            resource: kind.group_resource(),
            name: String::new(),
            reason,
        })
    }
}

fn kind(text: &str) -> Result<Gvk, Failure> {
    Gvk::parse(text)
        .ok_or_else(|| Failure::BadRequest(format!("{text:?} is not a kind; write it like apps/v1/ReplicaSet")))
}

fn selection(which: &reads::Selection) -> view::Selection {
    let reads::Selection {
        namespace,
        labels,
        equals,
    } = which.clone();
    view::Selection {
        namespace,
        labels,
        equals,
    }
}

fn to_wall(request: &Request) -> wall::Request {
    let refused = request.refused.as_ref().map(|refusal| wall::RefusedIntent {
        intent: refusal.intent,
        why: plugin::Refusal {
            reason: reason(&refusal.why.reason),
            message: refusal.why.message.clone(),
        },
        times: refusal.times,
    });
    wall::Request {
        key: key_to_wall(&request.key),
        refused,
        memo: request.memo.to_vec(),
        now: request.now,
    }
}

fn key_to_wall(key: &Key) -> reads::ObjectKey {
    reads::ObjectKey {
        kind: key.kind.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

fn key(key: reads::ObjectKey) -> Result<Key, Failure> {
    Ok(Key {
        kind: kind(&key.kind)?,
        namespace: key.namespace,
        name: key.name,
    })
}

fn from_wall(outcome: wall::Outcome) -> Result<Outcome, Failure> {
    let intents = outcome.intents.into_iter().map(intent).collect::<Result<_, _>>()?;
    Ok(Outcome {
        intents,
        memo: outcome.memo.into(),
    })
}

fn intent(from: wall::Intent) -> Result<Intent, Failure> {
    Ok(match from {
        wall::Intent::Apply((body, when)) => Intent::Apply {
            body: body.into(),
            when: precondition(when)?,
        },
        wall::Intent::Create(body) => Intent::Create { body: body.into() },
        wall::Intent::SetStatus((body, when)) => Intent::SetStatus {
            body: body.into(),
            when: precondition(when)?,
        },
        wall::Intent::Patch(patch) => Intent::Patch {
            key: key(patch.key)?,
            when: precondition(patch.when)?,
            format: match patch.format {
                wall::PatchFormat::JsonPatch => PatchFormat::Json,
                wall::PatchFormat::Merge => PatchFormat::Merge,
                wall::PatchFormat::Strategic => PatchFormat::Strategic,
            },
            body: patch.body.into(),
            subresource: patch.subresource,
        },
        wall::Intent::Remove((of, when, propagation)) => Intent::Remove {
            key: key(of)?,
            when: precondition(when)?,
            propagation: match propagation {
                wall::Propagation::Background => Propagation::Background,
                wall::Propagation::Foreground => Propagation::Foreground,
                wall::Propagation::Orphan => Propagation::Orphan,
            },
        },
        wall::Intent::RemoveAll((of, which)) => Intent::RemoveAll {
            kind: kind(&of)?,
            which: selection(&which),
        },
        wall::Intent::SetScale((of, replicas, when)) => Intent::SetScale {
            key: key(of)?,
            replicas,
            when: precondition(when)?,
        },
        wall::Intent::RemoveFinalizer((of, finalizer, when)) => Intent::RemoveFinalizer {
            key: key(of)?,
            finalizer,
            when: precondition(when)?,
        },
        wall::Intent::Evict((of, when)) => Intent::Evict {
            key: key(of)?,
            when: precondition(when)?,
        },
        wall::Intent::Event(event) => Intent::Event(Event {
            about: key(event.about)?,
            uid: event.uid,
            warning: event.warning,
            reason: event.reason,
            message: event.message,
        }),
        wall::Intent::Other((step, _)) => Intent::Other(step),
    })
}

fn precondition(from: wall::Precondition) -> Result<Precondition, Failure> {
    Ok(match from {
        wall::Precondition::Uid(uid) => Precondition::Uid(uid),
        wall::Precondition::Version(version) => Precondition::Version(version),
        wall::Precondition::FieldsAsRead((uid, fields)) => Precondition::FieldsAsRead { uid, fields },
        wall::Precondition::Absent => Precondition::Absent,
        wall::Precondition::None => Precondition::None,
        wall::Precondition::Other((form, _)) => {
            let says = format!("this host does not know precondition {form}; it is older than the plugin");
            return Err(Failure::BadRequest(says));
        }
    })
}
