//! Events that controllers tell about objects: equal ones are folded into one with a count.

use std::collections::VecDeque;

use bytes::Bytes;
use client::{Action, PatchKind, Preconditions, Target};
use hashbrown::HashMap;
use model::{Failure, Gvk};
use parking_lot::Mutex;
use serde_json::json;
use view::Floor;

use crate::carry::Carrier;
use crate::intent::Event;

/// How many are remembered for folding. The oldest are forgotten; then a new Event begins its own count.
const REMEMBERED: usize = 1024;

/// The events one controller has told lately.
#[derive(Default)]
pub(crate) struct Events {
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    known: HashMap<Event, (String, u64)>,
    order: VecDeque<Event>,
}

impl Events {
    /// Never refused and never waited for twice: an event that cannot be written is logged and dropped.
    pub(crate) async fn record(&self, carrier: &Carrier, event: &Event) {
        let known = self.told.lock().known.get_mut(event).map(|(name, count)| {
            *count += 1;
            (name.clone(), *count)
        });
        let done = match known {
            Some((name, count)) => match self.count(carrier, event, &name, count).await {
                // It was deleted or aged out: it begins again.
                Err(Failure::NotFound(_)) => self.create(carrier, event).await,
                done => done,
            },
            None => self.create(carrier, event).await,
        };
        if let Err(failure) = done {
            tracing::debug!(about = %event.about, reason = event.reason, %failure, "an event was not written");
        }
    }

    async fn create(&self, carrier: &Carrier, event: &Event) -> Result<(), Failure> {
        let now = carrier.view.now();
        let namespace = namespace(event);
        // Kubernetes' own form: the object's name and a number that two controllers will not both pick.
        let name = format!("{}.{:016x}", event.about.name, fingerprint(event, now));
        let stamp = stamp(now);
        let about = &event.about;
        let document = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": about.kind.api_version(), "kind": about.kind.kind,
                "namespace": about.namespace, "name": about.name, "uid": event.uid,
            },
            "type": if event.warning { "Warning" } else { "Normal" },
            "reason": event.reason, "message": event.message, "count": 1,
            "firstTimestamp": stamp, "lastTimestamp": stamp,
            "source": {"component": carrier.caller.agent()}, "reportingComponent": carrier.caller.agent(),
        });
        self.write(carrier, namespace, "", Action::Create(document.to_string().into()))
            .await?;
        let mut told = self.told.lock();
        if told.known.insert(event.clone(), (name, 1)).is_none() {
            told.order.push_back(event.clone());
        }
        while told.order.len() > REMEMBERED {
            if let Some(oldest) = told.order.pop_front() {
                told.known.remove(&oldest);
            }
        }
        Ok(())
    }

    async fn count(&self, carrier: &Carrier, event: &Event, name: &str, count: u64) -> Result<(), Failure> {
        let patch = json!({"count": count, "lastTimestamp": stamp(carrier.view.now())});
        let body: Bytes = patch.to_string().into();
        let action = Action::Patch {
            kind: PatchKind::Merge,
            body,
            preconditions: Preconditions::default(),
        };
        self.write(carrier, namespace(event), name, action).await
    }

    async fn write(&self, carrier: &Carrier, namespace: &str, name: &str, action: Action) -> Result<(), Failure> {
        let kind = carrier.kind(&Gvk::new("", "v1", "Event"))?;
        // Nobody decides by events, so no view waits for them.
        carrier
            .write(
                &kind,
                Target::new(kind.gvr(), namespace, name),
                action,
                &mut Floor::default(),
            )
            .await
    }
}

/// Events about cluster-scoped objects live in `default`.
fn namespace(event: &Event) -> &str {
    if event.about.namespace.is_empty() {
        "default"
    } else {
        &event.about.namespace
    }
}

fn stamp(now: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
    model::time::seconds(at)
}

fn fingerprint(event: &Event, now: i64) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((event, now))
}
