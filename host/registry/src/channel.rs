//! Watchers of one filter share a channel: the filter is judged once a change, and each watcher is a place in one ring.
//!
//! A slow watcher costs nothing and holds nobody up. When the ring has moved past its place, its watch ends.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use client::WatchEvent;
use compact_str::CompactString;
use model::{Failure, Object, ResourceVersion};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cache::{Cache, Change};
use crate::document::{self, Picker};
use crate::select::{Filter, Index};

/// A change as a filter sees it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) version: ResourceVersion,
    pub(crate) what: What,
    pub(crate) object: Arc<Object>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Added,
    Modified,
    Deleted,
}

impl Told {
    pub(crate) fn of(change: &Change, filter: &Filter, picker: &Picker) -> Option<Self> {
        let before = change.was.as_ref().filter(|e| filter.matches(e, picker));
        let after = change.now.as_ref().filter(|e| filter.matches(e, picker));
        let (what, object) = match (before, after) {
            (None, Some(now)) => (What::Added, now.object.clone()),
            (Some(_), Some(now)) => (What::Modified, now.object.clone()),
            // It lives on, but not for this filter: the last state that matched, at the version of the change.
            (Some(was), None) => {
                let gone = change.gone.clone();
                (
                    What::Deleted,
                    gone.unwrap_or_else(|| document::at_version(&was.object, change.version).into()),
                )
            }
            (None, None) => return None,
        };
        Some(Self {
            version: change.version,
            what,
            object,
        })
    }

    pub(crate) fn event(self) -> WatchEvent {
        match self.what {
            What::Added => WatchEvent::Added(self.object),
            What::Modified => WatchEvent::Modified(self.object),
            What::Deleted => WatchEvent::Deleted(self.object),
        }
    }
}

pub(crate) struct Channel {
    filter: Filter,
    ring: Mutex<Ring>,
    wake: watch::Sender<()>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Told>,
    /// The number of the first event in `events`; events are counted from 0.
    first: u64,
    /// Where each watcher stands: what all have read is let go.
    seats: Vec<(u64, u64)>,
    next_seat: u64,
    ended: Option<String>,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

/// With more watchers than this nobody looks for the slowest: the ring's length is bound enough.
const FEW: usize = 16;

impl Channel {
    pub(crate) fn wake(&self) {
        self.wake.send_replace(());
    }

    pub(crate) fn end(&self, why: &str) {
        self.ring.lock().ended = Some(why.to_owned());
        self.wake();
    }
}

/// A kind's channels, found by what a change can concern.
#[derive(Default)]
pub(crate) struct Channels {
    any: Vec<Arc<Channel>>,
    namespaces: AHashMap<CompactString, Vec<Arc<Channel>>>,
    fields: AHashMap<usize, AHashMap<CompactString, Vec<Arc<Channel>>>>,
}

impl Channels {
    /// Puts the change into every channel it matches, and those channels into `woken`.
    pub(crate) fn tell(&self, change: &Change, picker: &Picker, limit: usize, woken: &mut Vec<Arc<Channel>>) {
        let mut tell = |channels: &[Arc<Channel>]| {
            for channel in channels {
                let Some(told) = Told::of(change, &channel.filter, picker) else {
                    continue;
                };
                let mut ring = channel.ring.lock();
                ring.events.push_back(told);
                if ring.events.len() > limit {
                    ring.events.pop_front();
                    ring.first += 1;
                }
                drop(ring);
                if !woken.iter().any(|w| Arc::ptr_eq(w, channel)) {
                    woken.push(channel.clone());
                }
            }
        };
        tell(&self.any);
        let either = change.now.as_ref().or(change.was.as_ref());
        if let Some(channels) = either.and_then(|e| self.namespaces.get(&e.object.key.namespace)) {
            tell(channels);
        }
        for (&slot, by_value) in &self.fields {
            let was = change.was.as_ref().map(|e| &e.fields(picker)[slot]);
            let now = change.now.as_ref().map(|e| &e.fields(picker)[slot]);
            for value in was.into_iter().chain(now.filter(|n| Some(*n) != was)) {
                if let Some(channels) = by_value.get(value) {
                    tell(channels);
                }
            }
        }
    }

    fn group(&mut self, index: Index) -> &mut Vec<Arc<Channel>> {
        match index {
            Index::Any => &mut self.any,
            Index::Namespace(namespace) => self.namespaces.entry(namespace).or_default(),
            Index::Field(slot, value) => self.fields.entry(slot).or_default().entry(value).or_default(),
        }
    }

    /// A watcher of `filter` that is told everything from now on.
    pub(crate) fn join(&mut self, filter: Filter, cache: &Arc<Cache>, after: ResourceVersion) -> Subscription {
        let group = self.group(filter.index());
        let channel = match group.iter().find(|c| c.filter == filter) {
            Some(channel) => channel.clone(),
            None => {
                let channel = Arc::new(Channel {
                    filter,
                    ring: Mutex::default(),
                    wake: watch::Sender::new(()),
                });
                group.push(channel.clone());
                channel
            }
        };
        let mut ring = channel.ring.lock();
        let place = ring.end();
        let seat = ring.next_seat;
        ring.next_seat += 1;
        ring.seats.push((seat, place));
        drop(ring);
        let wake = channel.wake.subscribe();
        Subscription {
            cache: cache.clone(),
            channel,
            wake,
            seat,
            place,
            after,
        }
    }

    pub(crate) fn leave(&mut self, channel: &Arc<Channel>, seat: u64) {
        let empty = {
            let mut ring = channel.ring.lock();
            ring.seats.retain(|(s, _)| *s != seat);
            ring.seats.is_empty()
        };
        if !empty {
            return;
        }
        let index = channel.filter.index();
        let group = self.group(index.clone());
        group.retain(|c| !Arc::ptr_eq(c, channel));
        if group.is_empty() {
            match index {
                Index::Any => {}
                Index::Namespace(namespace) => drop(self.namespaces.remove(&namespace)),
                Index::Field(slot, value) => {
                    if let Some(values) = self.fields.get_mut(&slot) {
                        values.remove(&value);
                        if values.is_empty() {
                            self.fields.remove(&slot);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn take_all(&mut self) -> Vec<Arc<Channel>> {
        let all = std::mem::take(self);
        let namespaces = all.namespaces.into_values().flatten();
        let fields = all.fields.into_values().flat_map(AHashMap::into_values).flatten();
        all.any.into_iter().chain(namespaces).chain(fields).collect()
    }
}

/// One watcher's place in a channel.
pub(crate) struct Subscription {
    cache: Arc<Cache>,
    channel: Arc<Channel>,
    wake: watch::Receiver<()>,
    seat: u64,
    place: u64,
    /// Nothing through this version is wanted (a watch may begin in the future).
    after: ResourceVersion,
}

impl Subscription {
    /// Takes what has come since, at most `most`. What is returned is complete through the version read before the call.
    ///
    /// # Errors
    /// `Expired` when the ring has moved on without us, or the cache had to start over.
    pub(crate) fn take(&mut self, most: usize) -> Result<Vec<Told>, Failure> {
        let mut ring = self.channel.ring.lock();
        if let Some(why) = ring.ended.as_ref().filter(|_| self.place >= ring.end()) {
            return Err(Failure::Expired(why.clone()));
        }
        if self.place < ring.first {
            return Err(Failure::Expired(
                "too old resource version: the watcher was too slow to keep up".into(),
            ));
        }
        let start = (self.place - ring.first) as usize;
        let end = (start + most).min(ring.events.len());
        let taken: Vec<Told> = ring
            .events
            .range(start..end)
            .filter(|t| t.version > self.after)
            .cloned()
            .collect();
        self.place = ring.first + end as u64;
        if ring.seats.len() <= FEW {
            if let Some(seat) = ring.seats.iter_mut().find(|(s, _)| *s == self.seat) {
                seat.1 = self.place;
            }
            let slowest = ring.seats.iter().map(|(_, place)| *place).min().unwrap_or(self.place);
            while ring.first < slowest {
                ring.events.pop_front();
                ring.first += 1;
            }
        }
        Ok(taken)
    }

    pub(crate) fn through(&self) -> ResourceVersion {
        self.cache.through()
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Resolves when something may have come since the last call.
    pub(crate) async fn changed(&mut self) {
        // The sender lives in the channel that we hold.
        let _ = self.wake.changed().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cache.leave(&self.channel, self.seat);
    }
}
