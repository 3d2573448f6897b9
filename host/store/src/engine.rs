//! What `memory` and `embedded` share: one thread that makes all changes (`writer.rs`), and readers that never wait for
//! it long.
//!
//! Transactions queue up while a group is on its way to the disk; then they are the next group. A group is decided
//! against the tree and its own earlier members, goes to the log as one frame, and only then shows in the tree, in the
//! watchers' history and in the answers, in this order: whoever has an answer finds it by reading.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use crate::embedded::log::{AppendError, Record};
use crate::hub::{End, Hub};
use crate::tree::{Pins, Tree};
use crate::writer::Writer;
use crate::{
    Counted, Entry, MAX_KEY, MAX_VALUE, Outcome, Page, Range, Read, Revision, Store, StoreError, Txn, Watch, contract,
    snapshot,
};

/// Keys read in one go while the tree is locked: bounds how long a write waits for a long list.
const READ_STEP: usize = 1024;
/// What may wait for the writer, in units of 1 KiB and at least one a transaction.
const QUEUE: u32 = 64 << 10;

/// How long the past can be read and watched.
#[derive(Debug, Clone)]
pub struct History {
    /// Older changes are forgotten.
    pub age: Duration,
    /// Above this many bytes the oldest changes are forgotten early, so that a busy store stays within its memory.
    pub bytes: usize,
}

impl Default for History {
    /// As kube-apiserver compacts etcd: five minutes. At most 64 MiB.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(300),
            bytes: 64 << 20,
        }
    }
}

/// Where changes go before they are acknowledged.
pub(crate) trait Journal: Send {
    fn append(&mut self, records: &[Record], last: Revision) -> Result<(), AppendError>;

    /// Called after each group, when nothing waits on it: time to begin a snapshot.
    fn tend(&mut self, shared: &Arc<Shared>);

    fn path(&self) -> &Path;

    /// How often it synced.
    fn syncs(&self) -> u64;
}

/// What the readers and the writer thread have in common.
pub(crate) struct Shared {
    pub(crate) tree: RwLock<Tree>,
    pub(crate) pins: Pins,
    pub(crate) hub: Arc<Hub>,
    pub(crate) queue: Mutex<Queue>,
    /// Something came into the queue.
    pub(crate) filled: Condvar,
    pub(crate) room: Semaphore,
    pub(crate) syncs: AtomicU64,
    /// A snapshot that is being written is to be given up.
    pub(crate) stopping: AtomicBool,
}

/// What the writer is to do next.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) txns: Vec<Waiting>,
    pub(crate) compactions: Vec<Compaction>,
    /// Answer what is here, then end.
    pub(crate) stop: bool,
    /// There is no writer any more.
    pub(crate) closed: bool,
}

pub(crate) type Compaction = (Revision, oneshot::Sender<Result<(), StoreError>>);

/// A transaction, what it holds of the queue's room, and who waits for it.
pub(crate) struct Waiting {
    pub(crate) txn: Txn,
    pub(crate) cost: u32,
    pub(crate) answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// What [`crate::memory::open`] and [`crate::embedded::open`] open.
pub struct LocalStore {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl LocalStore {
    /// Starts on what `tree` and `recent` (its newest changes, after its floor) say.
    pub(crate) fn start(
        tree: Tree,
        recent: Vec<Arc<crate::Event>>,
        journal: Option<Box<dyn Journal>>,
        history: History,
    ) -> io::Result<Self> {
        let hub = Hub::new(tree.floor);
        hub.publish(recent, tree.revision);
        let shared = Arc::new(Shared {
            tree: RwLock::new(tree),
            pins: Pins::default(),
            hub,
            queue: Mutex::default(),
            filled: Condvar::new(),
            room: Semaphore::new(QUEUE as usize),
            syncs: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let writer = Writer::new(shared.clone(), journal, history);
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run())?;
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// What the history that is kept for watchers weighs, in bytes; at most [`History::bytes`] once a write is answered.
    pub fn history_bytes(&self) -> usize {
        self.shared.hub.weight()
    }

    /// How often the log was synced to the disk since the store was opened: once for each group of writes.
    pub fn log_syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for LocalStore {
    /// Waits for what is queued to be answered, a sync or two. Every acknowledged change is on the disk already.
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.filled.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
        self.shared.hub.end(End::Closed);
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.tree.read().revision)
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        let tree = self.shared.tree.read();
        let revision = tree.at(at)?;
        Ok(Read {
            entry: tree.get(key, revision),
            revision,
        })
    }

    async fn range(&self, range: Range) -> Result<Page, StoreError> {
        let most = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut entries: Vec<Entry> = Vec::new();
        let mut start = range.start;
        let pin = {
            let tree = self.shared.tree.read();
            self.shared.pins.pin(tree.at(range.at)?)
        };
        loop {
            // A long list lets writers and other tasks in now and then; the pinned revision keeps it one list.
            let step = READ_STEP.min(most - entries.len());
            let before = entries.len();
            {
                let tree = self.shared.tree.read();
                entries.extend(tree.range(&range.prefix, &start, pin.revision).take(step));
            }
            if entries.len() - before < step {
                return Ok(Page {
                    entries,
                    revision: pin.revision,
                    remaining: 0,
                });
            }
            if let Some(last) = entries.last() {
                start = successor(&last.key);
            }
            if entries.len() == most {
                break;
            }
            tokio::task::yield_now().await;
        }
        let remaining = self.shared.count(&range.prefix, start, pin.revision);
        Ok(Page {
            entries,
            revision: pin.revision,
            remaining,
        })
    }

    async fn count(&self, prefix: &[u8], at: Option<Revision>) -> Result<Counted, StoreError> {
        let pin = {
            let tree = self.shared.tree.read();
            self.shared.pins.pin(tree.at(at)?)
        };
        let count = self.shared.count(prefix, Bytes::new(), pin.revision);
        Ok(Counted {
            count,
            revision: pin.revision,
        })
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let cost = check(&txn)?;
        let room = self
            .shared
            .room
            .acquire_many(cost)
            .await
            .map_err(|_| StoreError::Closed)?;
        // Given back by the writer once the transaction is answered, whether or not anyone still waits here.
        room.forget();
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(StoreError::Closed);
            }
            queue.txns.push(Waiting { txn, cost, answer });
        }
        self.shared.filled.notify_one();
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<Watch, StoreError> {
        let hub = &self.shared.hub;
        let cursor = hub.watch(prefix, after).ok_or_else(|| StoreError::Compacted {
            asked: after,
            oldest: hub.floor(),
        })?;
        Ok(Watch::new(cursor))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        let revision = self.shared.tree.read().revision;
        self.shared.hub.request_progress(revision);
        Ok(())
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        let current = self.shared.tree.read().revision;
        if through > current {
            return Err(StoreError::Future {
                asked: through,
                current,
            });
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(StoreError::Closed);
            }
            queue.compactions.push((through, answer));
        }
        self.shared.filled.notify_one();
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn backup(&self, to: &Path) -> Result<Revision, StoreError> {
        let (shared, to) = (self.shared.clone(), to.to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let written = shared.snapshot(|revision| snapshot::Writer::create(&to, revision));
            written.map_err(|error| match crate::embedded::log::is_full(&error) {
                true => StoreError::Full {
                    path: to,
                    source: error,
                },
                false => StoreError::unavailable(format!("the backup file {}", to.display()), error),
            })
        });
        written
            .await
            .map_err(|error| StoreError::unavailable("the backup", error))?
    }
}

impl Shared {
    fn count(&self, prefix: &[u8], mut start: Bytes, at: Revision) -> u64 {
        let mut count = 0;
        loop {
            // Counting is quick: a step is larger than one that copies entries out.
            let (some, next) = self.tree.read().count(prefix, &start, at, READ_STEP * 4);
            count += some;
            match next {
                Some(next) => start = next,
                None => return count,
            }
        }
    }

    /// Writes what is alive now, a piece at a time, so that writers go on meanwhile.
    pub(crate) fn snapshot(
        &self,
        create: impl FnOnce(Revision) -> io::Result<snapshot::Writer>,
    ) -> io::Result<Revision> {
        let pin = {
            let tree = self.tree.read();
            self.pins.pin(tree.revision)
        };
        let mut writer = create(pin.revision)?;
        let mut start = Bytes::new();
        loop {
            let step: Vec<_> = {
                let tree = self.tree.read();
                let entries = tree.range(b"", &start, pin.revision).take(READ_STEP);
                entries.map(|entry| (tree.expires(entry.modified), entry)).collect()
            };
            if self.stopping.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the store is being closed"));
            }
            for (expires, entry) in &step {
                writer.add(entry, *expires)?;
            }
            match step.last() {
                Some((_, last)) => start = successor(&last.key),
                None => break,
            }
        }
        writer.finish()?;
        Ok(pin.revision)
    }
}

/// Refuses what no engine takes; says what the rest costs in the queue.
pub(crate) fn check(txn: &Txn) -> Result<u32, StoreError> {
    let key = |key: &Bytes| match key.len() {
        1..=MAX_KEY => Ok(()),
        size => Err(StoreError::Size {
            what: "key",
            size,
            limit: MAX_KEY,
        }),
    };
    key(txn.change.key())?;
    txn.compare.iter().try_for_each(|compare| key(&compare.key))?;
    let size = match &txn.change {
        contract::Change::Put { value, .. } => value.len(),
        contract::Change::Delete { .. } => 0,
    };
    if size > MAX_VALUE {
        return Err(StoreError::Size {
            what: "value",
            size,
            limit: MAX_VALUE,
        });
    }
    Ok(1 + (size / 1024) as u32)
}

/// The least key after this one.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
