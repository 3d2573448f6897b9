//! What changed since a cursor: a log of the last change of each selected object, and of those that are gone.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use model::{FieldValue, Object, Uid};

use crate::columns::Packer;
use crate::fields::Wanted;
use crate::member::{Map, Name, name_of};

/// How many of the gone are remembered beyond the number of those that are there.
const GONE_KEPT: usize = 1024;

/// Persistent, like everything a snapshot holds.
#[derive(Clone)]
pub(crate) struct Log {
    /// Each selected object once, by its last change in a wanted field.
    by_change: imbl::OrdSet<Entry>,
    /// The number of that change, by name.
    last: Map<Name, u64>,
    gone: imbl::OrdMap<u64, Gone>,
    gone_at: Map<Uid, u64>,
    /// Cursors before this are too old: not everything after them is known.
    floor: u64,
    /// The last change: the cursor that goes with the answer.
    at: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    seq: u64,
    object: Arc<Object>,
}

#[derive(Debug, Clone)]
struct Gone {
    name: Name,
    uid: Uid,
}

impl Entry {
    fn rank(&self) -> (u64, &str, &str) {
        let (namespace, name) = name_of(&self.object);
        (self.seq, namespace, name)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// Everything after a change: what a range is searched with.
struct After(u64);

impl equivalent::Equivalent<Entry> for After {
    fn equivalent(&self, _: &Entry) -> bool {
        false
    }
}

impl equivalent::Comparable<Entry> for After {
    fn compare(&self, entry: &Entry) -> Ordering {
        // Greater than every entry of its own number, less than those of later ones.
        if entry.seq <= self.0 {
            Ordering::Greater
        } else {
            Ordering::Less
        }
    }
}

/// An answer to `changes`, unpacked as far as the wall wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub cursor: u64,
    pub complete: bool,
    /// Namespace, name, uid, and the wanted fields.
    pub rows: Bytes,
    /// Namespace, name, uid.
    pub gone: Bytes,
}

impl Log {
    pub(crate) fn build<'a>(selected: impl Iterator<Item = &'a Arc<Object>>, seq: u64) -> Self {
        let by_change: imbl::OrdSet<Entry> = selected
            .map(|object| Entry {
                seq,
                object: object.clone(),
            })
            .collect();
        let last = by_change.iter().map(|entry| (Name::of(&entry.object), seq)).collect();
        Self {
            by_change,
            last,
            gone: Default::default(),
            gone_at: Default::default(),
            floor: seq,
            at: seq,
        }
    }

    /// `seq`: the number of this change, if a reader of the wanted fields sees it.
    pub(crate) fn update(&mut self, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>, seq: Option<u64>) {
        let before = old.and_then(|object| {
            let seq = self.last.get(&Name::of(object)).copied()?;
            self.by_change.remove(&Entry {
                seq,
                object: object.clone(),
            });
            Some(seq)
        });
        if let Some(seq) = seq {
            self.at = seq;
        }
        match (old, new) {
            (_, Some(new)) => {
                // Unseen changes keep their place, but the new revision replaces the old one.
                let Some(seq) = seq.or(before) else { return };
                self.by_change.insert(Entry {
                    seq,
                    object: new.clone(),
                });
                self.last.insert(Name::of(new), seq);
                if let Some(at) = self.gone_at.remove(&new.uid) {
                    self.gone.remove(&at);
                }
            }
            (Some(old), None) => {
                let (name, seq) = (Name::of(old), seq.unwrap_or(self.at));
                self.last.remove(&name);
                self.gone_at.insert(old.uid.clone(), seq);
                self.gone.insert(
                    seq,
                    Gone {
                        name,
                        uid: old.uid.clone(),
                    },
                );
                if self.gone.len() > GONE_KEPT + self.by_change.len() {
                    self.forget_oldest();
                }
            }
            (None, None) => {}
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((seq, gone)) = self.gone.get_min().cloned() {
            self.gone.remove(&seq);
            self.gone_at.remove(&gone.uid);
            self.floor = self.floor.max(seq);
        }
    }

    /// `cursor`: the change after which to tell, if the asker has one of this question.
    pub(crate) fn since(&self, wanted: &Wanted, cursor: Option<u64>) -> (u64, bool, Bytes, Bytes) {
        let known = cursor.filter(|cursor| (self.floor..=self.at).contains(cursor));
        let after = known.map_or(0, |cursor| cursor);
        let mut rows: Vec<&Arc<Object>> = match known {
            Some(_) => self
                .by_change
                .range::<_, After>(After(after)..)
                .map(|entry| &entry.object)
                .collect(),
            None => self.by_change.iter().map(|entry| &entry.object).collect(),
        };
        rows.sort_by(|a, b| name_of(a).cmp(&name_of(b)));
        let mut packed = Packer::new(3 + wanted.columns());
        for object in rows {
            let head = head(&object.key.namespace, &object.key.name, &object.uid);
            let row = wanted.row(object);
            packed.row(head.iter().chain(&row));
        }
        let mut gone = Packer::new(3);
        if known.is_some() {
            for (_, entry) in self.gone.range(after + 1..) {
                gone.row(&head(&entry.name.namespace, &entry.name.name, &entry.uid));
            }
        }
        (self.at, known.is_none(), packed.finish(), gone.finish())
    }
}

fn head<'a>(namespace: &'a str, name: &'a str, uid: &'a Uid) -> [FieldValue<'a>; 3] {
    [namespace, name, uid.0.as_str()].map(|text| FieldValue::Str(text.into()))
}
