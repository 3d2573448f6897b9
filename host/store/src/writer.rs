//! The thread that makes all changes of a `LocalStore`.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;

use crate::embedded::log::{AppendError, Record};
use crate::engine::{Compaction, History, Journal, Shared, Waiting, now};
use crate::tree::{Change, Tree};
use crate::{Entry, Outcome, Revision, StoreError, Txn, contract};

/// Changes made visible in one go while the tree is locked: bounds how long a reader waits for a large group.
const STEP: usize = 256;
/// Expiries carried out at a time.
const EXPIRE_STEP: usize = 8192;

/// The writer thread's own.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    journal: Option<Box<dyn Journal>>,
    history: History,
    /// When changes were made, oldest first: how the age of the history is known.
    ages: VecDeque<Age>,
    /// Why nothing can be written any more.
    unfit: Option<(io::ErrorKind, String)>,
    /// The last write found no room: told once, not at every write.
    full: bool,
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
    pub(crate) fn new(shared: Arc<Shared>, journal: Option<Box<dyn Journal>>, history: History) -> Self {
        let mut writer = Self {
            shared,
            journal,
            history,
            ages: VecDeque::new(),
            unfit: None,
            full: false,
        };
        writer.age(writer.shared.hub.through());
        writer
    }

    /// Until the store is dropped.
    pub(crate) fn run(mut self) {
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
    fn wait(&self) -> Option<(Vec<Waiting>, Vec<Compaction>)> {
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
        let (txns, compactions) = (std::mem::take(&mut queue.txns), std::mem::take(&mut queue.compactions));
        Some((txns, compactions))
    }

    fn due(&self) -> Option<Instant> {
        let forget = self.ages.front().map(|age| age.last + self.history.age);
        // Whole seconds, at least one: a thousand expiries within one wake us once, and a full disk that keeps us from
        // carrying them out does not keep us busy. At most an hour: the wall clock may be set.
        let expire = self.shared.tree.read().next_expiry().map(|at| {
            let wait = at.saturating_sub(now()).div_ceil(1000).clamp(1, 3600);
            Instant::now() + Duration::from_secs(wait)
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
            (false, Some((kind, text))) => Err(AppendError::Broken(io::Error::new(*kind, text.clone()))),
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
                if appended.is_ok() && std::mem::take(&mut self.full) {
                    tracing::info!("there is room for the store again");
                }
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
            for record in records.by_ref().take(STEP) {
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
        while self.ages.front().is_some_and(|age| now - age.last >= self.history.age) {
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
        let floor = self.shared.pins.oldest().map_or(floor, |oldest| oldest.min(floor));
        while self.shared.tree.write().forget(floor, STEP) {}
    }

    fn complain(&mut self, error: &AppendError) {
        match error {
            AppendError::Full(error) if !self.full => {
                tracing::warn!(%error, "no room left for the store; writes are refused until there is");
                self.full = true;
            }
            AppendError::Full(_) => {}
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
            AppendError::Broken(error) => StoreError::unavailable(path.display().to_string(), copy(error)),
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
            Some(Change { value, revision, .. }) => value.clone().map(|value| {
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
        Outcome::Refused { key: key.clone(), now }
    }

    /// The put that made a key which this group has written.
    fn created(&self, key: &Bytes, tree: &Tree) -> Revision {
        let mut created = tree.get(key, tree.revision).map(|entry| entry.created);
        for record in &self.records {
            if let Record::Change(change) = record
                && change.key == key
            {
                created = change.value.as_ref().map(|_| created.unwrap_or(change.revision));
            }
        }
        created.unwrap_or_default()
    }
}
