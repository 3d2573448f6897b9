//! The recent changes, kept once for all watchers, and who is to be woken by which.
//!
//! A watcher is a place in this history, not a queue: it reads on from where it stands whenever its prefix changes. So
//! a slow one costs no memory and holds up nobody; when the history it has not read is let go, it gets an error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch as signal;

use crate::{Batch, Event, Revision, StoreError};

/// The most events in one [`Batch`], and the most looked at for one: bounds the time under the lock.
const BATCH: usize = 512;
const SCAN: usize = 8192;

pub(crate) struct Hub {
    inner: RwLock<Inner>,
}

struct Inner {
    events: VecDeque<Arc<Event>>,
    /// Every change after this one is in `events`.
    floor: Revision,
    /// The newest revision that is known to be complete, with or without an event here.
    through: Revision,
    /// What the events' keys and values weigh, in bytes.
    weight: usize,
    groups: AHashMap<Bytes, Arc<Group>>,
    /// The lengths of the prefixes in `groups`, so that a key's groups are found by a look-up for each.
    lengths: Vec<usize>,
    /// Watches are to say when they have come to `asked`; all were woken for it through `answered`.
    asked: Revision,
    answered: Revision,
    end: Option<End>,
}

/// All watches of one prefix.
pub(crate) struct Group {
    prefix: Bytes,
    wake: signal::Sender<()>,
    /// The newest change under the prefix that is no longer in the history.
    lost: AtomicU64,
}

/// Why no more events will come.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Closed,
    /// The source of the events skipped some (etcd compacted while we were cut off from it).
    Gap {
        oldest: Revision,
    },
}

impl Hub {
    /// A history that begins after `floor`.
    pub(crate) fn new(floor: Revision) -> Arc<Self> {
        let inner = Inner {
            events: VecDeque::new(),
            floor,
            through: floor,
            weight: 0,
            groups: AHashMap::new(),
            lengths: Vec::new(),
            asked: Revision::default(),
            answered: Revision::default(),
            end: None,
        };
        Arc::new(Self {
            inner: RwLock::new(inner),
        })
    }

    /// Adds changes, in order, and wakes whom they concern. `through` is the newest revision they make complete.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = Arc<Event>>, through: Revision) {
        let mut woken: Vec<Arc<Group>> = Vec::new();
        {
            let mut inner = self.inner.write();
            for event in events {
                debug_assert!(event.revision >= inner.through, "events come in order");
                inner.each_group(&event.key, |group| {
                    if !woken.iter().any(|g| Arc::ptr_eq(g, group)) {
                        woken.push(group.clone());
                    }
                });
                inner.weight += weight(&event);
                inner.events.push_back(event);
            }
            inner.through = inner.through.max(through);
            if inner.asked > inner.answered && inner.through >= inner.asked {
                inner.answered = inner.asked;
                woken = inner.groups.values().cloned().collect();
            }
        }
        for group in woken {
            group.wake.send_replace(());
        }
    }

    /// Lets go of the changes through `floor`.
    pub(crate) fn forget(&self, floor: Revision) {
        let mut inner = self.inner.write();
        // What has not come yet cannot be forgotten: watchers are still to see it.
        let floor = floor.min(inner.through);
        while inner.events.front().is_some_and(|event| event.revision <= floor) {
            let event = inner.events.pop_front().expect("just seen");
            inner.weight -= weight(&event);
            inner.each_group(&event.key, |group| {
                group.lost.store(event.revision.0, Ordering::Relaxed)
            });
        }
        inner.floor = inner.floor.max(floor);
    }

    /// Up to which revision to forget so that no more than `limit` bytes stay; `None` if it is so already.
    pub(crate) fn over(&self, limit: usize) -> Option<Revision> {
        let inner = self.inner.read();
        let mut weight_left = inner.weight;
        let mut upto = None;
        for event in &inner.events {
            if weight_left <= limit {
                break;
            }
            weight_left -= weight(event);
            upto = Some(event.revision);
        }
        upto
    }

    pub(crate) fn weight(&self) -> usize {
        self.inner.read().weight
    }

    pub(crate) fn floor(&self) -> Revision {
        self.inner.read().floor
    }

    pub(crate) fn through(&self) -> Revision {
        self.inner.read().through
    }

    /// Every watch is to tell its reader when it has come to `revision`.
    pub(crate) fn request_progress(&self, revision: Revision) {
        let mut inner = self.inner.write();
        inner.asked = inner.asked.max(revision);
        if inner.through >= inner.asked {
            inner.answered = inner.asked;
            inner.wake_all();
        }
    }

    /// No more events: every watch reads what there is and then ends.
    pub(crate) fn end(&self, end: End) {
        let mut inner = self.inner.write();
        inner.end = Some(end);
        inner.wake_all();
    }

    /// A watch of the changes after `after`; `None` if some of them are gone.
    pub(crate) fn watch(self: &Arc<Self>, prefix: Bytes, after: Revision) -> Option<Cursor> {
        let mut inner = self.inner.write();
        if after < inner.floor {
            return None;
        }
        let group = match inner.groups.get(&prefix) {
            Some(group) => group.clone(),
            None => {
                let group = Arc::new(Group {
                    prefix: prefix.clone(),
                    wake: signal::Sender::new(()),
                    lost: AtomicU64::new(0),
                });
                if !inner.lengths.contains(&prefix.len()) {
                    inner.lengths.push(prefix.len());
                }
                inner.groups.insert(prefix, group.clone());
                group
            }
        };
        let woken = group.wake.subscribe();
        Some(Cursor {
            hub: self.clone(),
            group,
            woken,
            seen: after,
            told: after,
        })
    }
}

impl Inner {
    fn each_group(&self, key: &Bytes, mut f: impl FnMut(&Arc<Group>)) {
        for &length in &self.lengths {
            if let Some(group) = key.get(..length).and_then(|prefix| self.groups.get(prefix)) {
                f(group);
            }
        }
    }

    fn wake_all(&self) {
        for group in self.groups.values() {
            group.wake.send_replace(());
        }
    }
}

/// Where one watch stands.
pub(crate) struct Cursor {
    hub: Arc<Hub>,
    group: Arc<Group>,
    woken: signal::Receiver<()>,
    /// Everything through here has been looked at.
    seen: Revision,
    /// The reader knows that it has everything through here.
    told: Revision,
}

impl Cursor {
    /// The next changes under the prefix, or news of progress. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            // Marked as seen before looking: what is published after the look wakes us again.
            self.woken.borrow_and_update();
            if let Some(batch) = self.read()? {
                return Ok(batch);
            }
            if self.woken.changed().await.is_err() {
                return Err(StoreError::Closed);
            }
        }
    }

    fn read(&mut self) -> Result<Option<Batch>, StoreError> {
        let inner = self.hub.inner.read();
        loop {
            if self.group.lost.load(Ordering::Relaxed) > self.seen.0 {
                return Err(StoreError::Lagged { seen: self.told });
            }
            // What was forgotten beyond here was not for us.
            self.seen = self.seen.max(inner.floor);
            let from = inner.events.partition_point(|event| event.revision <= self.seen);
            let mut events = Vec::new();
            let mut looked = 0;
            for event in inner.events.range(from..) {
                // Events of one revision (an etcd lease that held several keys) are never parted.
                if (looked >= SCAN || events.len() >= BATCH) && event.revision > self.seen {
                    break;
                }
                looked += 1;
                self.seen = event.revision;
                if event.key.starts_with(&self.group.prefix) {
                    events.push(event.clone());
                }
            }
            let all = from + looked == inner.events.len();
            if all {
                self.seen = self.seen.max(inner.through);
            }
            if !events.is_empty() || (all && inner.asked > self.told && self.seen >= inner.asked) {
                self.told = self.seen;
                return Ok(Some(Batch {
                    events,
                    through: self.seen,
                }));
            }
            if all {
                return match inner.end {
                    None => Ok(None),
                    Some(End::Closed) => Err(StoreError::Closed),
                    Some(End::Gap { oldest }) => Err(StoreError::Compacted {
                        asked: self.told,
                        oldest,
                    }),
                };
            }
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.write();
        // The map's and ours: the last watch of this prefix takes the group with it.
        if Arc::strong_count(&self.group) == 2 {
            inner.groups.remove(&self.group.prefix);
            inner.lengths = inner.groups.keys().map(Bytes::len).collect();
            inner.lengths.sort_unstable();
            inner.lengths.dedup();
        }
    }
}

fn weight(event: &Event) -> usize {
    // The Arc, its place in the queue and the allocations behind the three `Bytes`, as the allocator rounds them.
    const FIXED: usize = 280;
    let value = event.value.as_ref().map_or(0, Bytes::len);
    let previous = event.previous.as_ref().map_or(0, |previous| previous.value.len());
    FIXED + event.key.len() + value.max(previous)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &'static str, revision: u64) -> Arc<Event> {
        let revision = model::ResourceVersion(revision);
        Arc::new(Event {
            key: key.into(),
            revision,
            value: Some("v".into()),
            created: revision,
            previous: None,
        })
    }

    fn publish(hub: &Hub, key: &'static str, revision: u64) {
        hub.publish([event(key, revision)], model::ResourceVersion(revision));
    }

    /// What a cursor would answer now, without waiting.
    fn read(cursor: &mut Cursor) -> Vec<u64> {
        let batch = cursor.read().expect("it goes on");
        batch
            .into_iter()
            .flat_map(|batch| batch.events)
            .map(|event| event.revision.0)
            .collect()
    }

    #[test]
    fn what_is_forgotten_too_early_is_still_delivered() {
        let hub = Hub::new(model::ResourceVersion(1));
        let mut cursor = hub.watch("/a".into(), model::ResourceVersion(1)).unwrap();
        publish(&hub, "/a", 2);
        assert_eq!(read(&mut cursor), [2]);
        // Compacted elsewhere, before the changes came here.
        hub.forget(model::ResourceVersion(4));
        publish(&hub, "/a", 3);
        publish(&hub, "/a", 4);
        assert_eq!(read(&mut cursor), [3, 4]);
    }

    #[test]
    fn only_who_missed_something_is_lagging() {
        let hub = Hub::new(model::ResourceVersion(1));
        let mut loud = hub.watch("/loud/".into(), model::ResourceVersion(1)).unwrap();
        let mut quiet = hub.watch("/quiet/".into(), model::ResourceVersion(1)).unwrap();
        for revision in 2..100 {
            publish(&hub, "/loud/k", revision);
        }
        hub.forget(model::ResourceVersion(50));
        assert!(matches!(loud.read(), Err(StoreError::Lagged { .. })));
        publish(&hub, "/quiet/k", 100);
        assert_eq!(read(&mut quiet), [100]);
    }

    #[test]
    fn a_watch_that_ends_leaves_nothing() {
        let hub = Hub::new(model::ResourceVersion(1));
        let first = hub.watch("/a".into(), model::ResourceVersion(1)).unwrap();
        let second = hub.watch("/a".into(), model::ResourceVersion(1)).unwrap();
        drop(first);
        assert_eq!(hub.inner.read().groups.len(), 1);
        drop(second);
        assert!(hub.inner.read().groups.is_empty() && hub.inner.read().lengths.is_empty());
    }

    #[test]
    fn a_batch_is_bounded_and_misses_nothing() {
        let hub = Hub::new(model::ResourceVersion(1));
        let mut cursor = hub.watch("/a".into(), model::ResourceVersion(1)).unwrap();
        let last = 3 * SCAN as u64;
        for revision in 2..=last {
            publish(&hub, if revision % 10 == 0 { "/a" } else { "/b" }, revision);
        }
        let mut seen = Vec::new();
        loop {
            let some = read(&mut cursor);
            assert!(some.len() <= BATCH);
            if some.is_empty() {
                break;
            }
            seen.extend(some);
        }
        assert_eq!(
            seen,
            (2..=last).filter(|revision| revision % 10 == 0).collect::<Vec<_>>()
        );
    }
}
