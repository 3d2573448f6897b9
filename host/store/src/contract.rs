//! The contract every engine keeps, in full.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{StoreError, Watch};

/// A store's clock: rises with every change and names exactly one of them.
pub type Revision = model::ResourceVersion;

/// The longest key, in bytes. The shortest has one.
pub const MAX_KEY: usize = 2048;

/// The largest value, in bytes: what etcd takes in its default configuration (1.5 MiB a request, key and comparisons
/// included).
pub const MAX_VALUE: usize = 1_500_000;

/// An ordered map of bytes to bytes with a history, a change at a time.
///
/// # Revisions
/// - Every change (a put, a deletion, an expiry) has a revision of its own, greater than any issued before, also across
///   restarts, crashes and restores. Not every number need be used. A transaction that changes nothing issues none.
/// - An empty store begins at revision 1. Revision 0 is never kept: to ask for it is answered `Compacted`.
/// - Two calls, one begun after the other was answered, see revisions in that order (linearizable), whichever store
///   handle on the same data they use.
///
/// # Writes
/// - [`Store::txn`] compares any number of keys and writes one, atomically. When it is answered `Done` the change is
///   durable: on the disk (fsync), or in etcd's quorum. (`memory` keeps it as long as the process lives.)
/// - A call that ends in an error other than `Unavailable` or `Closed` has written nothing. After those two, or when the
///   future is dropped, the change has happened once or not at all; reading the key tells.
///
/// # Reads
/// - A read names a revision or takes the newest. At a revision it sees precisely the changes through it, so pages read
///   at the revision of the first are one consistent list, whatever is written in between.
/// - Keys are ordered as bytes.
///
/// # Watches
/// - See [`Store::watch`]: every change once, in order, none left out; an error when that cannot be kept.
///
/// # Compaction
/// - The store forgets by itself what is older than its configured history (five minutes unless said otherwise; a store
///   that keeps its history in memory also when that grows over a number of bytes). Where several processes share a
///   store, one of them does it at a time. What is alive is never forgotten.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision: at least that of every change acknowledged before the call.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// One key, at `at` or now.
    ///
    /// # Errors
    /// `Compacted`, `Future`, `Unavailable`.
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError>;

    /// Keys with a prefix, in order, a page at a time.
    ///
    /// # Errors
    /// `Compacted`, `Future`, `Unavailable`.
    async fn range(&self, range: Range) -> Result<Page, StoreError>;

    /// How many keys begin with `prefix`, at `at` or now.
    ///
    /// # Errors
    /// `Compacted`, `Future`, `Unavailable`.
    async fn count(&self, prefix: &[u8], at: Option<Revision>) -> Result<Counted, StoreError>;

    /// Compares, and if all holds, writes. See [`Txn`].
    ///
    /// # Errors
    /// `Size`, `Full`: nothing was written. `Unavailable`, `Closed`: unknown.
    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// The changes after revision `after` to keys that begin with `prefix`: each once, in order, without a gap.
    ///
    /// `after` may lie ahead of the newest revision; nothing through `after` is delivered then. To go on after a list,
    /// pass the list's revision.
    ///
    /// # Errors
    /// `Compacted` when changes after `after` are forgotten; `Unavailable`.
    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<Watch, StoreError>;

    /// Asks that every watch of this handle deliver, soon (some milliseconds), a batch with [`Batch::through`] at least
    /// the newest revision at the time of the call, even if nothing changed under its prefix. Returns at once.
    ///
    /// With it a cache answers linearizable reads: take [`Store::revision`], request progress, wait for `through`.
    async fn request_progress(&self) -> Result<(), StoreError>;

    /// Forgets the history before `through`: reads at a lower revision and watches after a lower revision fail with
    /// `Compacted` from now on. Reads at `through` itself and watches after it stay possible. Compacting what is compacted
    /// already does nothing.
    ///
    /// # Errors
    /// `Future`, `Unavailable`.
    async fn compact(&self, through: Revision) -> Result<(), StoreError>;

    /// Writes everything alive at one revision to a new file, and says which revision that was. The file appears under
    /// its name only when it is whole and on the disk. `embedded::restore` makes a store of it.
    ///
    /// # Errors
    /// `Full`, `Unavailable`; an existing file is never overwritten.
    async fn backup(&self, to: &Path) -> Result<Revision, StoreError>;
}

/// One key's value and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    /// The revision of the put that made the key out of nothing.
    pub created: Revision,
    /// The revision of the newest put: what a [`Compare`] is compared with.
    pub modified: Revision,
}

/// The answer of [`Store::get`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub entry: Option<Entry>,
    /// The revision read at.
    pub revision: Revision,
}

/// A page to read: the first `limit` keys that begin with `prefix` and are not less than `start`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    pub prefix: Bytes,
    /// Empty: from the prefix's first key. To continue after key `k` pass `k` followed by a zero byte.
    pub start: Bytes,
    /// 0: all.
    pub limit: usize,
    /// `None`: now.
    pub at: Option<Revision>,
}

impl Range {
    /// Everything under `prefix`, now.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    pub fn at(self, revision: Revision) -> Self {
        Self {
            at: Some(revision),
            ..self
        }
    }

    /// Goes on after `key`.
    pub fn after(self, key: &[u8]) -> Self {
        let mut start = Vec::with_capacity(key.len() + 1);
        start.extend_from_slice(key);
        start.push(0);
        Self {
            start: start.into(),
            ..self
        }
    }
}

/// The answer of [`Store::range`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision read at; read the next page at it.
    pub revision: Revision,
    /// How many keys of the range come after the last entry.
    pub remaining: u64,
}

/// The answer of [`Store::count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub count: u64,
    pub revision: Revision,
}

/// One atomic step: if every comparison holds, the change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// All must hold. Empty: the change is made whatever there is.
    pub compare: Vec<Compare>,
    pub change: Change,
}

impl Txn {
    /// Writes a key that must not exist.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::update(key, value, Revision::default())
    }

    /// Writes a key that must be at `expected`; revision 0 means that it must not exist.
    pub fn update(key: impl Into<Bytes>, value: impl Into<Bytes>, expected: Revision) -> Self {
        let key = key.into();
        let compare = vec![Compare {
            key: key.clone(),
            modified: expected,
        }];
        Self {
            compare,
            change: Change::Put {
                key,
                value: value.into(),
                ttl: None,
            },
        }
    }

    /// Writes a key, whatever is there.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            compare: Vec::new(),
            change: Change::Put {
                key: key.into(),
                value: value.into(),
                ttl: None,
            },
        }
    }

    /// Deletes a key that must be at `expected`.
    pub fn delete(key: impl Into<Bytes>, expected: Revision) -> Self {
        let key = key.into();
        Self {
            compare: vec![Compare {
                key: key.clone(),
                modified: expected,
            }],
            change: Change::Delete { key },
        }
    }

    /// Adds a comparison with another key.
    pub fn when(mut self, key: impl Into<Bytes>, modified: Revision) -> Self {
        self.compare.push(Compare {
            key: key.into(),
            modified,
        });
        self
    }

    /// Makes a put expire.
    pub fn ttl(mut self, after: Duration) -> Self {
        if let Change::Put { ttl, .. } = &mut self.change {
            *ttl = Some(after);
        }
        self
    }
}

/// Holds when `key` was last put at `modified`; at 0 when it does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: Bytes,
    pub modified: Revision,
}

/// What a [`Txn`] does to its one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        key: Bytes,
        value: Bytes,
        /// The store deletes the key this long after the write, or a few seconds later, as a change like any other. The
        /// next put of the key decides anew; one without a `ttl` makes it stay.
        ttl: Option<Duration>,
    },
    /// Deletes a key that exists: an absent key refuses the transaction, as if it had been compared.
    Delete { key: Bytes },
}

impl Change {
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}

/// What came of a [`Txn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Written and durable.
    Done { revision: Revision },
    /// Nothing was written: the first comparison that did not hold (a deletion's own key comes last), and what is there.
    Refused { key: Bytes, now: Option<Entry> },
}

/// A change somebody made, shared by all who watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub key: Bytes,
    pub revision: Revision,
    /// What was put; `None` for a deletion or an expiry.
    pub value: Option<Bytes>,
    /// The revision that made the key out of nothing: equal to `revision` if this put did.
    pub created: Revision,
    /// What the key held just before; `None` if it did not exist.
    pub previous: Option<Previous>,
}

/// A key's state before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    pub value: Bytes,
    pub modified: Revision,
}

/// Some consecutive changes under a watch's prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of their revisions. Empty in a progress notification.
    pub events: Vec<Arc<Event>>,
    /// Everything through this revision has been delivered: a watch may be taken up after it.
    pub through: Revision,
}
