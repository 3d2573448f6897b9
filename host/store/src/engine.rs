//! What `memory` and `embedded` share: one thread that makes all changes, and readers that never wait for it long.
//!
//! Transactions queue up while a group is on its way to the disk; then they are the next group. A group is decided
//! against the tree and its own earlier members, goes to the log as one frame, and only then shows in the tree, in the
//! watchers' history and in the answers, in this order: whoever has an answer finds it by reading.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use crate::embedded::log::{AppendError, Record};
use crate::hub::{End, Hub};
use crate::tree::{Change, Pins, Tree};
use crate::{
    Counted, Entry, MAX_KEY, MAX_VALUE, Outcome, Page, Range, Read, Revision, Store, StoreError,
    Txn, Watch, contract, snapshot,
};

/// Keys handled in one go while the tree is locked: bounds how long a write waits for a long list, and a read for a
/// large group.
const READ_STEP: usize = 1024;
const WRITE_STEP: usize = 256;
/// What may wait for the writer, in units of 1 KiB and at least one a transaction.
const QUEUE: u32 = 64 << 10;
const EXPIRE_STEP: usize = 1024;

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
    hub: Arc<Hub>,
    queue: Mutex<Queue>,
    filled: Condvar,
    room: Semaphore,
    pub(crate) syncs: AtomicU64,
    /// A snapshot that is being written is to be given up.
    pub(crate) stopping: AtomicBool,
}

#[derive(Default)]
struct Queue {
    txns: Vec<Waiting>,
    compactions: Vec<Compaction>,
    /// Answer what is here, then end.
    stop: bool,
    /// There is no writer any more.
    closed: bool,
}

type Compaction = (Revision, oneshot::Sender<Result<(), StoreError>>);
type Work = (Vec<Waiting>, Vec<Compaction>);

struct Waiting {
    txn: Txn,
    cost: u32,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
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
        let mut writer = Writer {
            shared: shared.clone(),
            journal,
            history,
            ages: VecDeque::new(),
            unfit: None,
        };
        writer.age(shared.hub.through());
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
        let most = if range.limit == 0 {
            usize::MAX
        } else {
            range.limit
        };
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
        let cursor = hub
            .watch(prefix, after)
            .ok_or_else(|| StoreError::Compacted {
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
                false => {
                    StoreError::unavailable(format!("the backup file {}", to.display()), error)
                }
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
                entries
                    .map(|entry| (tree.expires(entry.modified), entry))
                    .collect()
            };
            if self.stopping.load(Ordering::Relaxed) {
                return Err(io::Error::new(
                    io::ErrorKind::Interrupted,
                    "the store is being closed",
                ));
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
    txn.compare
        .iter()
        .try_for_each(|compare| key(&compare.key))?;
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

struct Writer {
    shared: Arc<Shared>,
    journal: Option<Box<dyn Journal>>,
    history: History,
    /// When changes were made, oldest first: how the age of the history is known.
    ages: VecDeque<Age>,
    /// Why nothing can be written any more.
    unfit: Option<(io::ErrorKind, String)>,
}

/// Some changes made at about the same time.
struct Age {
    first: Instant,
    last: Instant,
    revision: Revision,
}

/// A group while it is decided.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    /// What the group does to a key: its newest record.
    touched: AHashMap<Bytes, usize>,
}

impl Drop for Writer {
    /// Also after a panic: nobody waits for answers that will not come.
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        queue.txns.clear();
        queue.compactions.clear();
        self.shared.room.close();
    }
}

impl Writer {
    fn run(mut self) {
        // What a restart brought back may be more than is to be kept.
        if let Some(upto) = self.shared.hub.over(self.history.bytes) {
            self.raise_floor(upto);
        }
        loop {
            let Some((txns, compactions)) = self.wait() else {
                return;
            };
            let expired = self.shared.tree.read().expired(now(), EXPIRE_STEP);
            if !txns.is_empty() || !expired.is_empty() {
                self.commit(txns, expired);
            }
            for (through, answer) in compactions {
                let done = self.compact(through);
                let _ = answer.send(done);
            }
            self.forget_old();
            if let Some(journal) = &mut self.journal {
                journal.tend(&self.shared);
            }
        }
    }

    /// Sleeps until there is something to do; an idle store with nothing to forget or to expire sleeps for good.
    fn wait(&self) -> Option<Work> {
        let due = self.due();
        let mut queue = self.shared.queue.lock();
        while queue.txns.is_empty() && queue.compactions.is_empty() {
            if queue.stop {
                return None;
            }
            match due {
                None => self.shared.filled.wait(&mut queue),
                Some(due) => {
                    if self.shared.filled.wait_until(&mut queue, due).timed_out() {
                        break;
                    }
                }
            }
        }
        let (txns, compactions) = (
            std::mem::take(&mut queue.txns),
            std::mem::take(&mut queue.compactions),
        );
        Some((txns, compactions))
    }

    fn due(&self) -> Option<Instant> {
        let forget = self.ages.front().map(|age| age.last + self.history.age);
        // To the second, so that a thousand expiries within one wake us once; at most an hour ahead, since the wall
        // clock may be set.
        let expire = self.shared.tree.read().next_expiry().map(|at| {
            let wait = at.saturating_sub(now()).div_ceil(1000) * 1000;
            Instant::now() + Duration::from_millis(wait.min(3_600_000))
        });
        forget.into_iter().chain(expire).min()
    }

    fn commit(&mut self, waiting: Vec<Waiting>, expired: Vec<(Bytes, Revision)>) {
        let mut group = Group::default();
        let mut outcomes = Vec::with_capacity(waiting.len());
        let last = {
            let tree = self.shared.tree.read();
            let mut next = tree.revision;
            for waiting in &waiting {
                outcomes.push(group.decide(&waiting.txn, &mut next, &tree));
            }
            for (key, modified) in expired {
                if group.modified(&key, &tree) == modified {
                    group.add(key, None, 0, &mut next);
                }
            }
            next
        };
        let written = match (group.records.is_empty(), &self.unfit) {
            (true, _) => Ok(()),
            (false, Some((kind, text))) => {
                Err(AppendError::Broken(io::Error::new(*kind, text.clone())))
            }
            (false, None) => self.append(&group.records, last),
        };
        if let Err(error) = &written {
            self.complain(error);
        } else if !group.records.is_empty() {
            self.show(group.records, last);
        }
        let mut room = 0;
        for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
            room += waiting.cost as usize;
            let answer = match &written {
                Ok(()) => Ok(outcome),
                Err(error) => Err(self.refusal(error)),
            };
            // Nobody may be waiting any more; the change stands all the same.
            let _ = waiting.answer.send(answer);
        }
        self.shared.room.add_permits(room);
    }

    fn append(&mut self, records: &[Record], last: Revision) -> Result<(), AppendError> {
        match &mut self.journal {
            Some(journal) => {
                let appended = journal.append(records, last);
                self.shared.syncs.store(journal.syncs(), Ordering::Relaxed);
                appended
            }
            None => Ok(()),
        }
    }

    /// Makes a durable group visible.
    fn show(&mut self, records: Vec<Record>, last: Revision) {
        let mut events = Vec::with_capacity(records.len());
        let mut records = records.into_iter();
        while records.len() > 0 {
            let mut tree = self.shared.tree.write();
            for record in records.by_ref().take(WRITE_STEP) {
                if let Record::Change(change) = record {
                    events.push(Arc::new(tree.apply(change)));
                }
            }
        }
        self.shared.hub.publish(events, last);
        self.age(last);
        if let Some(upto) = self.shared.hub.over(self.history.bytes) {
            self.raise_floor(upto);
        }
    }

    fn age(&mut self, revision: Revision) {
        let now = Instant::now();
        match self.ages.back_mut() {
            Some(age) if now - age.first < self.history.age / 16 => {
                age.last = now;
                age.revision = revision;
            }
            _ => self.ages.push_back(Age {
                first: now,
                last: now,
                revision,
            }),
        }
    }

    /// Forgets on request: the log remembers that it was, so that it stays so.
    fn compact(&mut self, through: Revision) -> Result<(), StoreError> {
        let (floor, revision) = {
            let tree = self.shared.tree.read();
            (tree.floor, tree.revision)
        };
        if through > floor {
            let written = self.append(&[Record::Compacted(through)], revision);
            if let Err(error) = written {
                self.complain(&error);
                return Err(self.refusal(&error));
            }
            self.raise_floor(through);
        }
        Ok(())
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        let mut upto = None;
        while self
            .ages
            .front()
            .is_some_and(|age| now - age.last >= self.history.age)
        {
            upto = self.ages.pop_front().map(|age| age.revision);
        }
        if let Some(upto) = upto {
            self.raise_floor(upto);
        }
    }

    fn raise_floor(&mut self, floor: Revision) {
        {
            let mut tree = self.shared.tree.write();
            tree.floor = tree.floor.max(floor);
        }
        self.shared.hub.forget(floor);
        // Readers in the middle of a list keep what they see. What they hold up goes with the next compaction.
        let floor = self
            .shared
            .pins
            .oldest()
            .map_or(floor, |oldest| oldest.min(floor));
        while self.shared.tree.write().forget(floor, WRITE_STEP) {}
    }

    fn complain(&mut self, error: &AppendError) {
        match error {
            AppendError::Full(error) => {
                tracing::warn!(%error, "no room left for the store; writes are refused until there is")
            }
            AppendError::Broken(error) if self.unfit.is_none() => {
                tracing::error!(%error, "the store's disk failed; nothing is written any more until it is opened again");
                self.unfit = Some((error.kind(), error.to_string()));
            }
            AppendError::Broken(_) => {}
        }
    }

    fn refusal(&self, error: &AppendError) -> StoreError {
        let path = self
            .journal
            .as_ref()
            .map(|journal| journal.path().to_owned())
            .unwrap_or_default();
        let copy = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        match error {
            AppendError::Full(error) => StoreError::Full {
                path,
                source: copy(error),
            },
            AppendError::Broken(error) => {
                StoreError::unavailable(path.display().to_string(), copy(error))
            }
        }
    }
}

impl Group {
    fn decide(&mut self, txn: &Txn, next: &mut Revision, tree: &Tree) -> Outcome {
        for compare in &txn.compare {
            if self.modified(&compare.key, tree) != compare.modified {
                return self.refuse(&compare.key, tree);
            }
        }
        match &txn.change {
            contract::Change::Put { key, value, ttl } => {
                let expires = ttl.map_or(0, |ttl| now() + ttl.as_millis() as u64);
                self.add(key.clone(), Some(value.clone()), expires, next);
            }
            contract::Change::Delete { key } => {
                if self.modified(key, tree) == Revision::default() {
                    return self.refuse(key, tree);
                }
                self.add(key.clone(), None, 0, next);
            }
        }
        Outcome::Done { revision: *next }
    }

    fn add(&mut self, key: Bytes, value: Option<Bytes>, expires: u64, next: &mut Revision) {
        next.0 += 1;
        self.touched.insert(key.clone(), self.records.len());
        self.records.push(Record::Change(Change {
            key,
            revision: *next,
            value,
            expires,
        }));
    }

    /// The change this group makes to a key, so far.
    fn change(&self, key: &Bytes) -> Option<&Change> {
        match &self.records[*self.touched.get(key)?] {
            Record::Change(change) => Some(change),
            Record::Compacted(_) => None,
        }
    }

    fn modified(&self, key: &Bytes, tree: &Tree) -> Revision {
        match self.change(key) {
            Some(Change {
                value: Some(_),
                revision,
                ..
            }) => *revision,
            Some(Change { value: None, .. }) => Revision::default(),
            None => tree.modified(key),
        }
    }

    /// What is there instead. The answer waits for the group to be durable, since it may tell of it.
    fn refuse(&self, key: &Bytes, tree: &Tree) -> Outcome {
        let now = match self.change(key) {
            Some(Change {
                value, revision, ..
            }) => value.clone().map(|value| {
                let created = self.created(key, tree);
                Entry {
                    key: key.clone(),
                    value,
                    created,
                    modified: *revision,
                }
            }),
            None => tree.get(key, tree.revision),
        };
        Outcome::Refused {
            key: key.clone(),
            now,
        }
    }

    /// The put that made a key which this group has written.
    fn created(&self, key: &Bytes, tree: &Tree) -> Revision {
        let mut created = tree.get(key, tree.revision).map(|entry| entry.created);
        for record in &self.records {
            if let Record::Change(change) = record
                && change.key == key
            {
                created = change
                    .value
                    .as_ref()
                    .map(|_| created.unwrap_or(change.revision));
            }
        }
        created.unwrap_or_default()
    }
}
