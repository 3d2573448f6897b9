//! The keys and their versions, in memory: what `memory` and `embedded` answer reads from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Entry, Event, Previous, Revision, StoreError};

/// Every key with its newest version, and the older ones that can still be asked for.
///
/// An idle key costs, beside its own bytes and its value's, about 200 bytes.
#[derive(Default)]
pub(crate) struct Tree {
    keys: BTreeMap<Bytes, Chain>,
    /// The newest change in here.
    pub(crate) revision: Revision,
    /// The oldest revision that may be asked for.
    pub(crate) floor: Revision,
    /// Each change that left an older version (or a tombstone) behind, in order: what there is to forget.
    garbage: VecDeque<(Revision, Bytes)>,
    expiries: Expiries,
    /// The keys and values that are alive, in bytes.
    pub(crate) live_bytes: u64,
}

struct Chain {
    newest: Version,
    /// Oldest first. Most keys have none.
    #[allow(
        clippy::box_collection,
        reason = "a pointer in each of a hundred thousand idle keys, not three words"
    )]
    older: Option<Box<Vec<Version>>>,
}

#[derive(Clone)]
struct Version {
    modified: Revision,
    created: Revision,
    /// `None`: the key was deleted at `modified`.
    value: Option<Bytes>,
}

/// A change on its way into the log and the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub key: Bytes,
    pub revision: Revision,
    /// `None` deletes.
    pub value: Option<Bytes>,
    /// Milliseconds since 1970; 0: never.
    pub expires: u64,
}

impl Tree {
    /// Empty, at revision 1: as etcd begins, and since 0 means something else to Kubernetes' clients.
    pub(crate) fn new() -> Self {
        let first = model::ResourceVersion(1);
        Self {
            revision: first,
            floor: first,
            ..Self::default()
        }
    }

    /// Makes the change and tells it as watchers see it.
    pub(crate) fn apply(&mut self, change: Change) -> Event {
        let Change {
            key,
            revision,
            value,
            expires,
        } = change;
        debug_assert!(revision > self.revision, "revisions rise");
        self.revision = revision;
        if expires != 0 {
            self.expiries.insert(expires, revision, key.clone());
        }
        let weigh = |value: &Bytes| (key.len() + value.len()) as u64;
        self.live_bytes += value.as_ref().map_or(0, weigh);
        let Some(chain) = self.keys.get_mut(&key) else {
            let newest = Version {
                modified: revision,
                created: revision,
                value: value.clone(),
            };
            self.keys.insert(key.clone(), Chain { newest, older: None });
            return Event {
                key,
                revision,
                value,
                created: revision,
                previous: None,
            };
        };
        let before = &chain.newest;
        let created = if before.value.is_some() {
            before.created
        } else {
            revision
        };
        let previous = before.value.clone().map(|value| Previous {
            value,
            modified: before.modified,
        });
        if let Some(previous) = &previous {
            self.live_bytes -= weigh(&previous.value);
            self.expiries.remove(previous.modified);
        }
        let newest = Version {
            modified: revision,
            created,
            value: value.clone(),
        };
        let old = std::mem::replace(&mut chain.newest, newest);
        chain.older.get_or_insert_default().push(old);
        self.garbage.push_back((revision, key.clone()));
        Event {
            key,
            revision,
            value,
            created,
            previous,
        }
    }

    /// Puts back what a snapshot holds. Keys come in order.
    pub(crate) fn load(&mut self, entry: Entry, expires: u64) {
        if expires != 0 {
            self.expiries.insert(expires, entry.modified, entry.key.clone());
        }
        self.live_bytes += (entry.key.len() + entry.value.len()) as u64;
        let newest = Version {
            modified: entry.modified,
            created: entry.created,
            value: Some(entry.value),
        };
        self.keys.insert(entry.key, Chain { newest, older: None });
    }

    /// Which revision a read at `at` reads.
    pub(crate) fn at(&self, at: Option<Revision>) -> Result<Revision, StoreError> {
        match at {
            None => Ok(self.revision),
            Some(asked) if asked > self.revision => Err(StoreError::Future {
                asked,
                current: self.revision,
            }),
            Some(asked) if asked < self.floor => Err(StoreError::Compacted {
                asked,
                oldest: self.floor,
            }),
            Some(asked) => Ok(asked),
        }
    }

    /// The newest put of a key, 0 if it does not exist now.
    pub(crate) fn modified(&self, key: &[u8]) -> Revision {
        let newest = self.keys.get(key).map(|chain| &chain.newest);
        newest
            .filter(|version| version.value.is_some())
            .map_or(Revision::default(), |version| version.modified)
    }

    pub(crate) fn get(&self, key: &[u8], at: Revision) -> Option<Entry> {
        let (key, chain) = self.keys.get_key_value(key)?;
        chain.entry(key, at)
    }

    /// The keys with a prefix from `start` on, as they were at `at`.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        start: &[u8],
        at: Revision,
    ) -> impl Iterator<Item = Entry> + 'a {
        self.chains(prefix, start)
            .filter_map(move |(key, chain)| chain.entry(key, at))
    }

    /// Counts at most `most` keys from `start` on, dead ones too, and says where to go on.
    pub(crate) fn count(&self, prefix: &[u8], start: &[u8], at: Revision, most: usize) -> (u64, Option<Bytes>) {
        let mut count = 0;
        for (nth, (key, chain)) in self.chains(prefix, start).enumerate() {
            if nth == most {
                return (count, Some(key.clone()));
            }
            count += u64::from(chain.at(at).is_some_and(|version| version.value.is_some()));
        }
        (count, None)
    }

    fn chains<'a>(&'a self, prefix: &'a [u8], start: &[u8]) -> impl Iterator<Item = (&'a Bytes, &'a Chain)> + 'a {
        let from = if start > prefix { start } else { prefix };
        let keys = self.keys.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        keys.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// When the put at `modified` expires; 0: never.
    pub(crate) fn expires(&self, modified: Revision) -> u64 {
        self.expiries.by_revision.get(&modified).map_or(0, |(at, _)| *at)
    }

    /// The next expiry, in milliseconds since 1970.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expiries.by_time.first().map(|(at, _)| *at)
    }

    /// What is due at `now`: the keys and the puts that are to go, `most` at a time.
    pub(crate) fn expired(&self, now: u64, most: usize) -> Vec<(Bytes, Revision)> {
        let due = self.expiries.by_time.iter().take_while(|(at, _)| *at <= now).take(most);
        due.map(|(_, revision)| (self.expiries.by_revision[revision].1.clone(), *revision))
            .collect()
    }

    /// Drops up to `most` old versions that no read at `floor` or later can see. True when there are more.
    pub(crate) fn forget(&mut self, floor: Revision, most: usize) -> bool {
        for _ in 0..most {
            if self.garbage.front().is_none_or(|(revision, _)| *revision > floor) {
                return false;
            }
            let (_, key) = self.garbage.pop_front().expect("just seen");
            let Some(chain) = self.keys.get_mut(&key) else {
                continue;
            };
            if chain.newest.modified <= floor {
                chain.older = None;
                if chain.newest.value.is_none() {
                    self.keys.remove(&key);
                }
            } else if let Some(older) = &mut chain.older {
                // The last one at or before the floor is still what a read at the floor sees.
                let visible = older.partition_point(|version| version.modified <= floor);
                older.drain(..visible.saturating_sub(1));
                // A tombstone that nothing older hides behind says nothing.
                if older
                    .first()
                    .is_some_and(|version| version.value.is_none() && version.modified <= floor)
                {
                    older.remove(0);
                }
                if older.is_empty() {
                    chain.older = None;
                }
            }
        }
        self.garbage.front().is_some_and(|(revision, _)| *revision <= floor)
    }
}

impl Chain {
    fn at(&self, at: Revision) -> Option<&Version> {
        if self.newest.modified <= at {
            return Some(&self.newest);
        }
        let older = self.older.as_deref()?;
        older[..older.partition_point(|version| version.modified <= at)].last()
    }

    fn entry(&self, key: &Bytes, at: Revision) -> Option<Entry> {
        let version = self.at(at)?;
        let value = version.value.clone()?;
        Some(Entry {
            key: key.clone(),
            value,
            created: version.created,
            modified: version.modified,
        })
    }
}

#[derive(Default)]
struct Expiries {
    by_time: BTreeSet<(u64, Revision)>,
    by_revision: AHashMap<Revision, (u64, Bytes)>,
}

impl Expiries {
    fn insert(&mut self, at: u64, revision: Revision, key: Bytes) {
        self.by_time.insert((at, revision));
        self.by_revision.insert(revision, (at, key));
    }

    fn remove(&mut self, revision: Revision) {
        if let Some((at, _)) = self.by_revision.remove(&revision) {
            self.by_time.remove(&(at, revision));
        }
    }
}

/// Revisions that are being read a piece at a time: compaction leaves the versions they see alone until they are done.
#[derive(Default)]
pub(crate) struct Pins(Mutex<BTreeMap<Revision, usize>>);

impl Pins {
    /// Call with the tree locked, so that no compaction comes between reading the revision and pinning it.
    pub(crate) fn pin(&self, revision: Revision) -> Pin<'_> {
        *self.0.lock().entry(revision).or_default() += 1;
        Pin { pins: self, revision }
    }

    pub(crate) fn oldest(&self) -> Option<Revision> {
        self.0.lock().keys().next().copied()
    }
}

pub(crate) struct Pin<'a> {
    pins: &'a Pins,
    pub(crate) revision: Revision,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock();
        let count = pins.get_mut(&self.revision).expect("a pin is counted");
        *count -= 1;
        if *count == 0 {
            pins.remove(&self.revision);
        }
    }
}
