//! One watch of all keys, for all watchers of this process.
//!
//! Where a watcher begins before what is kept here, a watch of its own fetches what came earlier.
//!
//! Progress needs no help from etcd's progress requests, which before 3.4.25 and 3.5.8 could overtake events: the one
//! watch covers a key of ours behind the root's own, and a put of that key arrives behind every event before it. It is
//! written only when somebody waits for progress past the newest event, that is when something outside the root was
//! written since.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{current, unavailable};
use crate::hub::{End, Hub};
use crate::{Batch, Event, Previous, Revision, StoreError, Watch};

/// How long events may be on their way before a write of ours chases them.
const PATIENCE: Duration = Duration::from_millis(20);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

pub(super) struct Follower {
    client: Client,
    root: Bytes,
    /// The key whose events only say how far the watch has come.
    marker: Vec<u8>,
    /// Replaced by a new one when etcd forgot what we had not seen.
    hub: Mutex<Arc<Hub>>,
    kept: usize,
    chasing: AtomicBool,
}

/// What a message of etcd's means.
enum Heard {
    Events {
        events: Vec<Arc<Event>>,
        through: Revision,
    },
    /// Some changes, or what they replaced, are compacted away.
    Gap {
        oldest: Revision,
    },
    Over(String),
}

impl Follower {
    pub(super) fn new(client: Client, root: Bytes, current: Revision, kept: usize) -> Arc<Self> {
        // `/registry/` is followed, in the order of bytes, by `/registry0`.
        let mut marker = super::prefix_end(&root);
        marker.extend_from_slice(b"pilotis.progress");
        let hub = Mutex::new(Hub::new(current));
        Arc::new(Self {
            client,
            root,
            marker,
            hub,
            kept,
            chasing: AtomicBool::new(false),
        })
    }

    fn hub(&self) -> Arc<Hub> {
        self.hub.lock().clone()
    }

    pub(super) fn close(&self) {
        self.hub().end(End::Closed);
    }

    pub(super) fn forget(&self, through: Revision) {
        self.hub().forget(through);
    }

    pub(super) fn through(&self) -> Revision {
        self.hub().through()
    }

    /// A watch after a revision that etcd still has.
    pub(super) fn watch(self: &Arc<Self>, prefix: Bytes, after: Revision) -> Watch {
        let hub = self.hub();
        if let Some(live) = hub.watch(prefix.clone(), after) {
            return Watch::new(live);
        }
        loop {
            let join = hub.through();
            // Only what is forgotten in between makes this turn again.
            if let Some(live) = hub.watch(prefix.clone(), join) {
                let (sender, past) = mpsc::channel(16);
                tokio::spawn(self.clone().fetch(prefix, after, join, sender));
                return Watch::with_past(past, live);
            }
        }
    }

    /// Every watch is to say when it has come to `revision`.
    pub(super) fn request_progress(self: &Arc<Self>, revision: Revision) {
        let hub = self.hub();
        hub.request_progress(revision);
        if hub.through() >= revision || self.chasing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            // Mostly the events are on their way and nothing need be written.
            tokio::time::sleep(PATIENCE).await;
            this.chasing.store(false, Ordering::Release);
            if this.through() < revision
                && let Err(error) = this.mark().await
            {
                tracing::debug!(%error, "no progress could be written to etcd");
            }
        });
    }

    async fn mark(&self) -> Result<(), etcd_client::Error> {
        self.client.kv_client().put(&self.marker[..], "", None).await.map(drop)
    }

    /// Feeds the hub for as long as the store is open.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut retry = FIRST_RETRY;
        loop {
            let hub = self.hub();
            let ended = match self.open(hub.through()).await {
                Ok(stream) => self.feed(&hub, stream, &mut retry).await,
                Err(error) => Heard::Over(error.to_string()),
            };
            if let Heard::Gap { oldest } = ended {
                tracing::warn!(seen = %hub.through(), %oldest, "etcd was compacted past what we had seen; watches begin anew");
                if let Ok(current) = current(&self.client.kv_client(), &self.root).await {
                    // New watches go to the new one before the old ones learn that theirs is over.
                    *self.hub.lock() = Hub::new(current);
                    hub.end(End::Gap { oldest });
                    continue;
                }
            } else if let Heard::Over(reason) = ended {
                tracing::debug!(reason, "the watch of etcd was interrupted");
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn feed(&self, hub: &Hub, mut stream: WatchStream, retry: &mut Duration) -> Heard {
        loop {
            match self.hear(&mut stream).await {
                Heard::Events { events, through } => {
                    *retry = FIRST_RETRY;
                    hub.publish(events, through);
                    if let Some(upto) = hub.over(self.kept) {
                        hub.forget(upto);
                    }
                }
                ended => return ended,
            }
        }
    }

    /// Fetches the changes after `after` through `join`, where the shared history takes over.
    async fn fetch(
        self: Arc<Self>,
        prefix: Bytes,
        after: Revision,
        join: Revision,
        to: mpsc::Sender<Result<Batch, StoreError>>,
    ) {
        let fetched = async {
            let mut stream = self.open(after).await?;
            // The newest revision may be one that this watch will not see; after this put there is one that it will.
            self.mark().await.map_err(unavailable)?;
            loop {
                match self.hear(&mut stream).await {
                    Heard::Events { mut events, through } => {
                        events.retain(|event| event.revision <= join && event.key.starts_with(&prefix));
                        let batch = Batch {
                            events,
                            through: through.min(join),
                        };
                        if !batch.events.is_empty() && to.send(Ok(batch)).await.is_err() {
                            return Ok(());
                        }
                        if through >= join {
                            return Ok(());
                        }
                    }
                    Heard::Gap { oldest } => {
                        return Err(StoreError::Compacted { asked: after, oldest });
                    }
                    Heard::Over(reason) => return Err(StoreError::unavailable("etcd", reason)),
                }
            }
        };
        if let Err(error) = fetched.await {
            let _ = to.send(Err(error)).await;
        }
    }

    async fn open(&self, after: Revision) -> Result<WatchStream, StoreError> {
        let mut end = self.marker.clone();
        end.push(0);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(after.0 as i64 + 1)
            .with_prev_key();
        let mut client = self.client.watch_client().max_decoding_message_size(usize::MAX);
        client.watch(&self.root[..], Some(options)).await.map_err(unavailable)
    }

    async fn hear(&self, stream: &mut WatchStream) -> Heard {
        match stream.message().await {
            Ok(Some(message)) => self.interpret(&message),
            Ok(None) => Heard::Over("the server ended the stream".into()),
            Err(error) => Heard::Over(error.to_string()),
        }
    }

    fn interpret(&self, message: &WatchResponse) -> Heard {
        if message.compact_revision() > 0 {
            return Heard::Gap {
                oldest: model::ResourceVersion(message.compact_revision() as u64),
            };
        }
        if message.canceled() {
            return Heard::Over(message.cancel_reason().to_owned());
        }
        let mut events = Vec::with_capacity(message.events().len());
        let mut through = Revision::default();
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = model::ResourceVersion(kv.mod_revision() as u64);
            through = revision;
            if !kv.key().starts_with(&self.root) {
                continue;
            }
            let is_put = event.event_type() == EventType::Put;
            let previous = event.prev_kv();
            // etcd leaves out what was there before when that is compacted; half an event is no use to anybody.
            if previous.is_none() && (!is_put || kv.version() > 1) {
                return Heard::Gap { oldest: revision };
            }
            let created = if is_put {
                kv.create_revision()
            } else {
                previous.map_or(0, |kv| kv.create_revision())
            };
            events.push(Arc::new(Event {
                key: Bytes::copy_from_slice(kv.key()),
                revision,
                value: is_put.then(|| Bytes::copy_from_slice(kv.value())),
                created: model::ResourceVersion(created as u64),
                previous: previous.map(|kv| Previous {
                    value: Bytes::copy_from_slice(kv.value()),
                    modified: model::ResourceVersion(kv.mod_revision() as u64),
                }),
            }));
        }
        Heard::Events { events, through }
    }
}
