//! The cluster as one decision sees it: informers, indexes, tallies and recorded reads.
//!
//! Start at [`View`]: it keeps one list and watch a kind, for everybody. [`View::open`] gives a [`RecordedView`], where
//! everything stands still for one call and each answer is noted; [`View::install`] makes those notes the reasons to run
//! again. Questions (`find`, `tally`, `changes`) stand: they are kept up to date change by change, at a cost that does not
//! depend on how many objects they select, nor on how many other questions there are.
//!
//! Does not know: plugins, queues, intents, HTTP.

mod answer;
mod changes;
pub mod columns;
#[cfg(test)]
mod exactness;
mod fields;
mod index;
mod informer;
#[cfg(test)]
mod live;
mod member;
mod order;
mod question;
mod read;
mod record;
/// The guests' decoder, as it is in the SDK: one file that depends on nothing.
#[cfg(test)]
#[path = "../../../sdk/rust/src/columns.rs"]
#[allow(dead_code)]
mod sdk_columns;
mod selection;
mod slot;
mod tally;
#[cfg(test)]
mod testing;
mod timers;
mod wake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use client::Cluster;
use hashbrown::HashMap;
use model::{Caller, Failure, Gvk, Kind, Object, ResourceVersion, Uid};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use changes::Delta;
pub use fields::Wanted;
pub use question::{Ask, What};
pub use read::{RecordedView, Scaling, Served};
pub use record::{Answer, Read, Recording, Refused};
pub use selection::{Selection, reads_as};
pub use slot::Follow;
pub use timers::{Now, system_time};
pub use wake::{Wake, Why};

use answer::Asked;
use member::Name;
use slot::Slot;
use timers::Timers;
use wake::Reading;

/// How long a first read of a kind waits for its first list.
const FIRST_LIST: Duration = Duration::from_secs(15);
/// How many parsed field texts are remembered.
const TEXTS: usize = 4096;

/// What the reads of one plugin are allowed to see.
pub trait Grants: Send + Sync + 'static {
    /// # Errors
    /// [`Failure::Forbidden`]. `namespace` is empty for all of them.
    fn may_read(&self, kind: &Kind, namespace: &str) -> Result<(), Failure>;
}

/// Everything may be read: for the host's own components and for tests.
pub struct AllGranted;

impl Grants for AllGranted {
    fn may_read(&self, _: &Kind, _: &str) -> Result<(), Failure> {
        Ok(())
    }
}

/// The shared view of one cluster. One in a process; a kind costs its objects once, whoever reads it.
pub struct View {
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    now: Now,
    slots: ArcSwap<HashMap<Gvk, Arc<Slot>, ahash::RandomState>>,
    /// Asks an informer to list again. Also the lock under which kinds are started.
    informers: Mutex<HashMap<Gvk, Arc<Notify>, ahash::RandomState>>,
    texts: Mutex<HashMap<String, Arc<Wanted>, ahash::RandomState>>,
    readers: Mutex<HashMap<u64, Installed, ahash::RandomState>>,
    kinds_readers: Mutex<HashMap<u64, (Arc<Reading>, bytes::Bytes), ahash::RandomState>>,
    timers: Arc<Timers>,
    next: AtomicU64,
}

/// What one reader's last call depends on.
struct Installed {
    reading: Arc<Reading>,
    reads: Vec<Read>,
}

/// Writes that a view must show before their writer runs again.
#[derive(Debug, Clone, Default)]
pub struct Floor {
    versions: HashMap<Gvk, ResourceVersion>,
    gone: Vec<(Gvk, String, String, Uid)>,
    /// Kinds to be listed again because nobody knows what became of a write, and after how many lists that is done.
    lists: HashMap<Gvk, u64>,
}

impl Floor {
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.gone.is_empty() && self.lists.is_empty()
    }

    /// The kind must be at least at `version`.
    pub fn at_least(&mut self, kind: &Gvk, version: ResourceVersion) {
        let known = self.versions.entry(kind.clone()).or_default();
        *known = version.max(*known);
    }

    /// The object with this uid must be gone.
    pub fn gone(&mut self, kind: &Gvk, namespace: &str, name: &str, uid: Uid) {
        self.gone.push((kind.clone(), namespace.into(), name.into(), uid));
    }
}

impl View {
    /// Reads as `caller`, who must be allowed to list and watch what is read. Call it in a tokio runtime.
    pub fn new(cluster: Arc<dyn Cluster>, caller: Caller, now: Now) -> Arc<Self> {
        let timers = Arc::new(Timers::default());
        let view = Arc::new(Self {
            cluster,
            caller,
            now: now.clone(),
            slots: ArcSwap::default(),
            informers: Mutex::default(),
            texts: Mutex::default(),
            readers: Mutex::default(),
            kinds_readers: Mutex::default(),
            timers: timers.clone(),
            next: AtomicU64::new(1),
        });
        tokio::spawn(Timers::run(Arc::downgrade(&timers), now));
        tokio::spawn(watch_kinds(Arc::downgrade(&view)));
        view
    }

    /// A view that stands still from now on, for one call.
    pub fn open(self: &Arc<Self>, grants: Arc<dyn Grants>) -> RecordedView {
        RecordedView::open(self.clone(), grants, (self.now)())
    }

    pub fn now(&self) -> i64 {
        (self.now)()
    }

    /// Makes what was read in `view` the reasons for which `reader` is woken, instead of those of its last call. What
    /// changed while the call ran wakes it at once.
    pub fn install(&self, reader: u64, sink: Arc<dyn Wake>, view: &RecordedView) {
        let reading = Reading::new(self.next.fetch_add(1, Ordering::Relaxed), reader, sink);
        let mut reads = Vec::new();
        let mut soonest: Option<i64> = None;
        for (read, answer) in view.reads() {
            let Ok(answer) = answer else {
                // A read that failed has no answer that could change, but a kind that was not served may come.
                if let Read::Get { kind, .. } | Read::Ask { kind, .. } | Read::Scale { kind, .. } = &read
                    && !self.slots.load().contains_key(kind)
                {
                    self.await_kind(&reading, kind);
                    reads.push(Read::Kinds);
                }
                continue;
            };
            let known = match &read {
                Read::Reached(at) => {
                    if answer.first() == Some(&0) {
                        soonest = Some(soonest.map_or(*at, |known| known.min(*at)));
                    }
                    false
                }
                Read::Live { .. } | Read::Noted(_) => false,
                Read::Kinds => {
                    self.kinds_readers
                        .lock()
                        .insert(reading.id, (reading.clone(), answer.clone()));
                    if read::kinds_answer(&self.cluster.kinds()) != answer {
                        reading.wake(Why::Kinds);
                    }
                    true
                }
                Read::Get { kind, .. } | Read::Ask { kind, .. } | Read::Scale { kind, .. } => {
                    let slot = self.slots.load().get(kind).cloned();
                    let Some(slot) = slot else { continue };
                    let Some(pinned) = view.pin(&slot) else {
                        continue;
                    };
                    self.subscribe(&slot, &reading, &read, &answer, &pinned);
                    true
                }
            };
            if known {
                reads.push(read);
            }
        }
        if let Some(at) = soonest {
            self.timers.add(at, &reading);
            reads.push(Read::Reached(at));
        }
        let old = self.readers.lock().insert(reader, Installed { reading, reads });
        if let Some(old) = old {
            self.uninstall(old);
        }
    }

    fn await_kind(&self, reading: &Arc<Reading>, kind: &Gvk) {
        let now = read::kinds_answer(&self.cluster.kinds());
        self.kinds_readers
            .lock()
            .entry(reading.id)
            .or_insert_with(|| (reading.clone(), now));
        if self.served(kind).is_ok() {
            reading.wake(Why::Kinds);
        }
    }

    /// `reader` is woken no more.
    pub fn forget(&self, reader: u64) {
        let old = self.readers.lock().remove(&reader);
        if let Some(old) = old {
            self.uninstall(old);
        }
    }

    fn subscribe(
        &self,
        slot: &Arc<Slot>,
        reading: &Arc<Reading>,
        read: &Read,
        answer: &bytes::Bytes,
        pinned: &slot::Frozen,
    ) {
        match read {
            Read::Get {
                namespace,
                name,
                fields,
                ..
            } => {
                if let Ok(wanted) = self.wanted(fields) {
                    slot.subscribe_object(reading, &at(namespace, name), &wanted, pinned);
                }
            }
            Read::Scale { namespace, name, .. } => {
                // The answer holds the object's version, so any change of it is a change of the answer.
                if let Ok(wanted) = self.wanted(".metadata.resourceVersion") {
                    slot.subscribe_object(reading, &at(namespace, name), &wanted, pinned);
                }
            }
            Read::Ask { ask, limit, cursor, .. } => {
                let asked = match ask.what {
                    What::Find { .. } => Asked::First(*limit),
                    What::Tally { .. } | What::Distinct { .. } => Asked::Whole,
                    What::Changes { .. } => Asked::Since(*cursor),
                };
                // It parsed when it was answered.
                let _ = slot.subscribe(reading, ask, asked, answer, pinned);
            }
            Read::Live { .. } | Read::Kinds | Read::Reached(_) | Read::Noted(_) => {}
        }
    }

    fn uninstall(&self, old: Installed) {
        old.reading.retire();
        let id = old.reading.id;
        for read in old.reads {
            match &read {
                Read::Reached(at) => self.timers.remove(*at, id),
                Read::Kinds => drop(self.kinds_readers.lock().remove(&id)),
                Read::Live { .. } | Read::Noted(_) => {}
                Read::Get {
                    kind, namespace, name, ..
                }
                | Read::Scale { kind, namespace, name } => {
                    if let Some(slot) = self.slots.load().get(kind) {
                        slot.unsubscribe_object(id, &at(namespace, name));
                    }
                }
                Read::Ask { kind, ask, limit, .. } => {
                    if let Some(slot) = self.slots.load().get(kind) {
                        slot.unsubscribe(id, ask, *limit);
                    }
                }
            }
        }
    }

    /// Tells `follower` which objects of a kind there are, now and from now on.
    ///
    /// # Errors
    /// Those of a first read: [`Failure::NoSuchResource`], [`Failure::Forbidden`], [`Failure::Timeout`].
    pub async fn follow(self: &Arc<Self>, kind: &Gvk, follower: Arc<dyn Follow>) -> Result<(), Failure> {
        self.slot(kind).await?.follow(follower);
        Ok(())
    }

    pub fn unfollow(&self, kind: &Gvk, follower: &Arc<dyn Follow>) {
        if let Some(slot) = self.slots.load().get(kind) {
            slot.unfollow(follower);
        }
    }

    /// One object as it stands now, for the host's own components.
    ///
    /// # Errors
    /// As [`View::follow`].
    pub async fn object(
        self: &Arc<Self>,
        kind: &Gvk,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Failure> {
        Ok(self.slot(kind).await?.frozen().object(namespace, name).cloned())
    }

    /// All objects of a kind as they stand now, in name order.
    ///
    /// # Errors
    /// As [`View::follow`].
    pub async fn objects(self: &Arc<Self>, kind: &Gvk) -> Result<Vec<Arc<Object>>, Failure> {
        Ok(self
            .slot(kind)
            .await?
            .frozen()
            .objects
            .iter()
            .map(|member| member.0.clone())
            .collect())
    }

    /// How far the view of a kind is; 0 if nobody reads it.
    pub fn version(&self, kind: &Gvk) -> ResourceVersion {
        self.slots
            .load()
            .get(kind)
            .map_or(ResourceVersion::default(), |slot| slot.frozen().version)
    }

    /// Standing questions, indexes and readers of all kinds: what the view costs beside its objects.
    pub fn standing(&self) -> (usize, usize, usize) {
        let all = self.slots.load();
        all.values()
            .map(|slot| slot.standing())
            .fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2))
    }

    /// Nobody knows what became of a write of this kind (it timed out): list it again, and hold `floor` until that is done.
    pub fn doubt(&self, kind: &Gvk, floor: &mut Floor) {
        let (Some(slot), informers) = (self.slots.load().get(kind).cloned(), self.informers.lock()) else {
            return;
        };
        // One list may be under way since before the write, so the next one counts.
        floor.lists.insert(kind.clone(), slot.progress.borrow().lists + 1);
        if let Some(again) = informers.get(kind) {
            again.notify_one();
        }
    }

    /// Whether a view opened now shows all of `floor`.
    pub fn shows(&self, floor: &Floor) -> bool {
        let slots = self.slots.load();
        // A kind that nobody reads is listed when somebody does, and that list is newer than any write before it.
        let version = floor.versions.iter().all(|(kind, version)| {
            slots
                .get(kind)
                .is_none_or(|slot| !slot.synced() || slot.frozen().version >= *version)
        });
        let lists = floor.lists.iter().all(|(kind, lists)| {
            slots
                .get(kind)
                .is_none_or(|slot| slot.progress.borrow().lists >= *lists)
        });
        let gone = |(kind, namespace, name, uid): &(Gvk, String, String, Uid)| {
            slots
                .get(kind)
                .is_none_or(|slot| slot.frozen().object(namespace, name).is_none_or(|o| o.uid != *uid))
        };
        version && lists && floor.gone.iter().all(gone)
    }

    /// Waits until a view opened now shows all of `floor`. Without limit: acting on an older one is never right.
    pub async fn reach(&self, floor: &Floor) {
        let kinds = floor
            .versions
            .keys()
            .chain(floor.gone.iter().map(|(kind, ..)| kind))
            .chain(floor.lists.keys());
        for kind in kinds {
            let Some(slot) = self.slots.load().get(kind).cloned() else {
                continue;
            };
            let mut progress = slot.progress.subscribe();
            let of_kind = |map: &HashMap<Gvk, ResourceVersion>| map.get(kind).copied().unwrap_or_default();
            let part = Floor {
                versions: [(kind.clone(), of_kind(&floor.versions))].into_iter().collect(),
                gone: floor.gone.iter().filter(|(of, ..)| of == kind).cloned().collect(),
                lists: floor.lists.get(kind).map(|n| (kind.clone(), *n)).into_iter().collect(),
            };
            while !self.shows(&part) {
                if progress.changed().await.is_err() {
                    break;
                }
            }
        }
    }

    pub(crate) fn served(&self, kind: &Gvk) -> Result<Arc<Kind>, Failure> {
        let kinds = self.cluster.kinds();
        let served = kinds.iter().find(|served| served.gvk == *kind).cloned();
        served.ok_or_else(|| Failure::NoSuchResource {
            asked: kind.to_string(),
        })
    }

    pub(crate) fn wanted(&self, fields: &str) -> Result<Arc<Wanted>, Failure> {
        let mut texts = self.texts.lock();
        if let Some(wanted) = texts.get(fields) {
            return Ok(wanted.clone());
        }
        let wanted = Wanted::parse(fields)?;
        if texts.len() >= TEXTS {
            texts.clear();
        }
        texts.insert(fields.into(), wanted.clone());
        Ok(wanted)
    }

    /// Whether there is an object of a kind, in this namespace if the kind has them. `None`: nobody has read the kind yet.
    pub fn any(&self, kind: &Gvk, namespace: &str) -> Option<bool> {
        let slots = self.slots.load();
        let frozen = slots.get(kind).filter(|slot| slot.synced())?.frozen();
        // Objects of a kind without namespaces are in the namespace "", which is the first.
        let without = frozen
            .objects
            .get_min()
            .is_some_and(|first| first.0.key.namespace.is_empty());
        Some(without || member::within(&frozen.objects, namespace).next().is_some())
    }

    /// Waits until these kinds have taken in their first list.
    ///
    /// # Errors
    /// [`Failure::NoSuchResource`], or [`Failure::Timeout`] with what keeps the list from coming.
    pub async fn fill(&self, kinds: &[Gvk]) -> Result<(), Failure> {
        for kind in kinds {
            self.slot(kind).await?;
        }
        Ok(())
    }

    /// The kind's slot, started if nobody read it before, with its first list taken in.
    pub(crate) async fn slot(&self, kind: &Gvk) -> Result<Arc<Slot>, Failure> {
        let slot = self.start(kind)?;
        if slot.synced() {
            return Ok(slot);
        }
        let mut progress = slot.progress.subscribe();
        let ready = progress.wait_for(|progress| progress.lists > 0);
        if tokio::time::timeout(FIRST_LIST, ready).await.is_ok() {
            return Ok(slot);
        }
        let state = slot.progress.borrow().clone();
        let trouble = state.trouble.as_deref().unwrap_or("the first list has not come");
        Err(Failure::Timeout(format!(
            "the view of {kind} is not filled after 15 s: {trouble}"
        )))
    }

    pub(crate) fn start(&self, kind: &Gvk) -> Result<Arc<Slot>, Failure> {
        if let Some(slot) = self.slots.load().get(kind) {
            return Ok(slot.clone());
        }
        let served = self.served(kind)?;
        let mut informers = self.informers.lock();
        if let Some(slot) = self.slots.load().get(kind) {
            return Ok(slot.clone());
        }
        let slot = Slot::new(served);
        let again = Arc::new(Notify::new());
        informers.insert(kind.clone(), again.clone());
        let mut slots = (**self.slots.load()).clone();
        slots.insert(kind.clone(), slot.clone());
        self.slots.store(Arc::new(slots));
        tokio::spawn(informer::run(
            self.cluster.clone(),
            self.caller.clone(),
            Arc::downgrade(&slot),
            again,
        ));
        Ok(slot)
    }
}

fn at(namespace: &str, name: &str) -> Name {
    Name {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// Wakes those who asked which kinds there are.
async fn watch_kinds(view: std::sync::Weak<View>) {
    loop {
        let Some(strong) = view.upgrade() else { return };
        let cluster = strong.cluster.clone();
        // Waiting begins before the look, so that a change between the two is not missed.
        let mut changed = std::pin::pin!(cluster.kinds_changed());
        let _ = futures::poll!(&mut changed);
        let now = read::kinds_answer(&cluster.kinds());
        for (reading, answer) in strong.kinds_readers.lock().values() {
            if *answer != now {
                reading.wake(Why::Kinds);
            }
        }
        drop(strong);
        changed.await;
    }
}
