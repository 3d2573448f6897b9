//! One kind: its objects, its indexes, its standing questions, and who waits for which answer.
//!
//! Everything a snapshot needs is persistent ([`Frozen`]); the rest ([`Live`]) is behind one lock that is held for
//! microseconds. A change touches the questions it is a candidate for, found by index value, never all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use model::{Failure, Kind, Object, ResourceVersion};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::answer;
use crate::fields::Wanted;
use crate::index::{self, Defined, Facts, Index};
use crate::member::{At, Map, Member, Members, Name, name_of};
use crate::order::{Ranked, SortKey};
use crate::question::{Ask, Effect, Kept, Question, select};
use crate::selection::{Chosen, IndexOn};
use crate::wake::{Reading, Why};

/// How many questions without a reader are kept for the next one, a kind.
const IDLE_QUESTIONS: usize = 1024;
/// How many indexes that no question stands on are kept, a kind.
const IDLE_INDEXES: usize = 8;

/// A kind at one version. Clones share everything and never change.
#[derive(Clone)]
pub(crate) struct Frozen {
    /// A first list has been taken in.
    pub(crate) synced: bool,
    pub(crate) version: ResourceVersion,
    /// The number of the last change in this process.
    pub(crate) seq: u64,
    pub(crate) objects: Members,
    pub(crate) indexes: Map<IndexOn, Index>,
    pub(crate) kept: Map<u64, Arc<Kept>>,
}

impl Frozen {
    pub(crate) fn object(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(&At(namespace, name)).map(|member| &member.0)
    }

    /// What is selected, in name order, by the best index there is.
    pub(crate) fn select<'a>(&'a self, chosen: &'a Chosen) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        let indexed = chosen
            .anchor
            .as_ref()
            .and_then(|(on, value)| Some((self.indexes.get(on)?, value)));
        match indexed {
            Some((index, value)) => match index.get(value.as_str()) {
                Some(members) => Box::new(select(chosen, members, true)),
                None => Box::new(std::iter::empty()),
            },
            None => Box::new(select(chosen, &self.objects, false)),
        }
    }
}

pub(crate) struct Slot {
    pub(crate) kind: Arc<Kind>,
    /// Tells this slot from every other of the process.
    pub(crate) number: usize,
    live: Mutex<Live>,
    published: ArcSwap<Frozen>,
    pub(crate) progress: watch::Sender<Progress>,
}

/// How far a kind is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) version: ResourceVersion,
    /// Why the last attempt to list or watch failed, if it did.
    pub(crate) trouble: Option<String>,
    /// Lists taken in so far.
    pub(crate) lists: u64,
}

struct Live {
    now: Frozen,
    indexes: Defined,
    /// For each index: what to ask when an object with that namespace (or any: the empty one) and value changes.
    anchored: Vec<HashMap<Name, SmallVec<[u64; 2]>, ahash::RandomState>>,
    /// By namespace, those that no index narrows.
    unanchored: HashMap<String, Vec<u64>, ahash::RandomState>,
    questions: HashMap<u64, Standing, ahash::RandomState>,
    by_ask: HashMap<Arc<Ask>, u64, ahash::RandomState>,
    next_question: u64,
    /// Questions that lost their last reader, oldest first, with the stamp they got then.
    idle: std::collections::VecDeque<(u64, u64)>,
    by_object: HashMap<Name, SmallVec<[ObjectReader; 2]>, ahash::RandomState>,
    followers: Vec<Arc<dyn Follow>>,
}

struct Standing {
    question: Arc<Question>,
    readers: HashMap<(u64, u32), QuestionReader, ahash::RandomState>,
    /// The last change that changed the whole answer.
    changed_at: u64,
    /// Of its place in `idle`; another one there is stale.
    stamp: u64,
}

struct QuestionReader {
    reading: Arc<Reading>,
    /// For a limited `find` that was full: where its last row stands.
    last: Option<Ranked>,
}

struct ObjectReader {
    reading: Arc<Reading>,
    wanted: Arc<Wanted>,
}

/// Told which objects of a kind there are: all at the start, then as they come and go. Called under the kind's lock.
pub trait Follow: Send + Sync + 'static {
    fn came(&self, object: &Arc<Object>);
    fn went(&self, object: &Arc<Object>);
}

/// One change as the informer hands it in.
pub(crate) enum Change {
    Put(Arc<Object>),
    Gone(Arc<Object>),
    /// Nothing happened up to here.
    Reached(ResourceVersion),
}

impl Slot {
    pub(crate) fn new(kind: Arc<Kind>) -> Arc<Self> {
        let now = Frozen {
            synced: false,
            version: ResourceVersion::default(),
            seq: 1,
            objects: Members::new(),
            indexes: Default::default(),
            kept: Default::default(),
        };
        let live = Live {
            now: now.clone(),
            indexes: Defined::none(),
            anchored: Vec::new(),
            unanchored: Default::default(),
            questions: Default::default(),
            by_ask: Default::default(),
            next_question: 0,
            idle: Default::default(),
            by_object: Default::default(),
            followers: Vec::new(),
        };
        let progress = watch::Sender::new(Progress::default());
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Arc::new(Self {
            kind,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            live: Mutex::new(live),
            published: ArcSwap::from_pointee(now),
            progress,
        })
    }

    /// A first list has been taken in.
    pub(crate) fn synced(&self) -> bool {
        self.published.load().synced
    }

    pub(crate) fn frozen(&self) -> Arc<Frozen> {
        self.published.load_full()
    }

    /// Takes changes in, shows them to new snapshots, then wakes who read what they changed.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut wakes = Vec::new();
        let mut live = self.live.lock();
        for change in changes {
            live.apply(change, &mut wakes);
        }
        self.show(live, wakes);
    }

    /// Takes a whole list in, as the changes that lead there from what is known.
    pub(crate) fn replace(&self, version: ResourceVersion, list: Vec<Arc<Object>>) {
        let mut wakes = Vec::new();
        let mut live = self.live.lock();
        let there: HashSet<Name, ahash::RandomState> = list.iter().map(|object| Name::of(object)).collect();
        let gone: Vec<_> = live
            .now
            .objects
            .iter()
            .filter(|m| !there.contains(&Name::of(&m.0)))
            .cloned()
            .collect();
        for member in gone {
            live.change(Some(member.0), None, &mut wakes);
        }
        for object in list {
            live.apply(Change::Put(object), &mut wakes);
        }
        live.now.version = live.now.version.max(version);
        live.now.synced = true;
        self.show(live, wakes);
        // Told after it is shown: whoever waits for a list then finds it.
        self.progress.send_modify(|progress| progress.lists += 1);
    }

    fn show(&self, live: parking_lot::MutexGuard<'_, Live>, wakes: Vec<(Arc<Reading>, Why)>) {
        let now = live.now.clone();
        let version = now.version;
        // Published under the lock: whoever installs reads afterwards compares with at least this.
        self.published.store(Arc::new(now));
        drop(live);
        self.progress.send_modify(|progress| progress.version = version);
        for (reading, why) in wakes {
            reading.wake(why);
        }
    }

    pub(crate) fn follow(&self, follower: Arc<dyn Follow>) {
        let mut live = self.live.lock();
        live.now.objects.iter().for_each(|member| follower.came(&member.0));
        live.followers.push(follower);
    }

    pub(crate) fn unfollow(&self, follower: &Arc<dyn Follow>) {
        self.live.lock().followers.retain(|known| !Arc::ptr_eq(known, follower));
    }

    /// The standing question for `ask`, made if it is new. The kept part is that of `pinned`, whatever came since.
    pub(crate) fn question(&self, ask: &Ask, pinned: &Frozen) -> Result<(Arc<Question>, Arc<Kept>), Failure> {
        let mut live = self.live.lock();
        let id = match live.by_ask.get(ask) {
            Some(id) => *id,
            None => {
                let id = live.add(ask)?;
                // New snapshots shall find it; this one may be older than it.
                self.published.store(Arc::new(live.now.clone()));
                id
            }
        };
        let question = live.questions[&id].question.clone();
        let kept = match pinned.kept.get(&id) {
            Some(kept) => Some(kept.clone()),
            None if pinned.seq == live.now.seq => live.now.kept.get(&id).cloned(),
            None => None,
        };
        drop(live);
        let kept = kept.unwrap_or_else(|| Arc::new(question.build(pinned.select(&question.chosen), pinned.seq)));
        Ok((question, kept))
    }

    /// `reading` depends on what `question` answered from `pinned`. Wakes at once if that is not the answer any more.
    pub(crate) fn subscribe(
        &self,
        reading: &Arc<Reading>,
        ask: &Ask,
        asked: answer::Asked,
        answered: &Bytes,
        pinned: &Frozen,
    ) -> Result<(), Failure> {
        let mut live = self.live.lock();
        let (id, fresh) = match live.by_ask.get(ask) {
            Some(id) => (*id, false),
            None => (live.add(ask)?, true),
        };
        let standing = &live.questions[&id];
        let doubtful = standing.changed_at > pinned.seq || (fresh && live.now.seq > pinned.seq);
        let question = standing.question.clone();
        let kept = &live.now.kept[&id];
        let same = !doubtful || answer::to(&question, kept, &live.now, asked).0 == *answered;
        let last = match asked {
            answer::Asked::First(limit) if limit > 0 => answer::to(&question, kept, &live.now, asked).1,
            _ => None,
        };
        let reader = QuestionReader {
            reading: reading.clone(),
            last,
        };
        let standing = live.questions.get_mut(&id).expect("found above");
        standing.readers.insert((reading.id, asked.limit()), reader);
        if fresh {
            self.published.store(Arc::new(live.now.clone()));
        }
        drop(live);
        if !same {
            reading.wake(Why::Meanwhile(question.text.clone()));
        }
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, reading: u64, ask: &Ask, limit: u32) {
        let mut live = self.live.lock();
        let Some(id) = live.by_ask.get(ask).copied() else {
            return;
        };
        let standing = live.questions.get_mut(&id).expect("by_ask and questions agree");
        standing.readers.remove(&(reading, limit));
        if standing.readers.is_empty() {
            live.rest(id);
        }
    }

    /// `reading` depends on these fields of one object, as `pinned` shows them.
    pub(crate) fn subscribe_object(&self, reading: &Arc<Reading>, at: &Name, wanted: &Arc<Wanted>, pinned: &Frozen) {
        let mut live = self.live.lock();
        let was = pinned.object(&at.namespace, &at.name);
        let is = live.now.object(&at.namespace, &at.name);
        let changed = match (was, is) {
            (Some(was), Some(is)) if !(Arc::ptr_eq(was, is) || wanted.same(was, is)) => Some((is.clone(), false)),
            (Some(was), None) => Some((was.clone(), true)),
            (None, Some(is)) => Some((is.clone(), false)),
            _ => None,
        };
        let reader = ObjectReader {
            reading: reading.clone(),
            wanted: wanted.clone(),
        };
        live.by_object.entry(at.clone()).or_default().push(reader);
        drop(live);
        if let Some((object, gone)) = changed {
            reading.wake(Why::Changed {
                object,
                gone,
                question: wanted.text.clone(),
            });
        }
    }

    pub(crate) fn unsubscribe_object(&self, reading: u64, at: &Name) {
        let mut live = self.live.lock();
        if let Some(readers) = live.by_object.get_mut(at) {
            readers.retain(|reader| reader.reading.id != reading);
            if readers.is_empty() {
                live.by_object.remove(at);
            }
        }
    }

    /// Questions and indexes that stand, and the readers of both.
    pub(crate) fn standing(&self) -> (usize, usize, usize) {
        let live = self.live.lock();
        let readers: usize = live.questions.values().map(|standing| standing.readers.len()).sum();
        let objects: usize = live.by_object.values().map(|readers| readers.len()).sum();
        (live.questions.len(), live.indexes.iter().count(), readers + objects)
    }
}

impl Live {
    fn apply(&mut self, change: Change, wakes: &mut Vec<(Arc<Reading>, Why)>) {
        match change {
            Change::Put(object) => {
                let (namespace, name) = name_of(&object);
                let old = self.now.object(namespace, name).cloned();
                let version = object.version;
                match old {
                    // A list may be newer than events that were on their way.
                    Some(old) if old.version >= version => {}
                    Some(old) if old.uid != object.uid => {
                        self.change(Some(old), None, wakes);
                        self.change(None, Some(object), wakes);
                    }
                    old => self.change(old, Some(object), wakes),
                }
                self.now.version = self.now.version.max(version);
            }
            Change::Gone(last) => {
                let (namespace, name) = name_of(&last);
                let old = self
                    .now
                    .object(namespace, name)
                    .filter(|old| old.uid == last.uid)
                    .cloned();
                if old.is_some() {
                    self.change(old, None, wakes);
                }
                self.now.version = self.now.version.max(last.version);
            }
            Change::Reached(version) => self.now.version = self.now.version.max(version),
        }
    }

    /// One change of one object: into the set, the indexes, the questions it concerns; notes who is to wake.
    fn change(&mut self, old: Option<Arc<Object>>, new: Option<Arc<Object>>, wakes: &mut Vec<(Arc<Reading>, Why)>) {
        let Some(any) = new.as_ref().or(old.as_ref()).cloned() else {
            return;
        };
        self.now.seq += 1;
        let (namespace, name) = name_of(&any);
        match &new {
            Some(object) => drop(self.now.objects.insert(Member(object.clone()))),
            None => drop(self.now.objects.remove(&At(namespace, name))),
        }
        match (&old, &new) {
            (None, Some(object)) => self.followers.iter().for_each(|follower| follower.came(object)),
            (Some(object), None) => self.followers.iter().for_each(|follower| follower.went(object)),
            _ => {}
        }
        let was = old.as_ref().map(|object| self.indexes.facts(object));
        let is = new.as_ref().map(|object| self.indexes.facts(object));
        for (i, on) in self.indexes.iter().enumerate() {
            let index = self.now.indexes.get_mut(on).expect("defined and kept together");
            let before = old
                .as_ref()
                .zip(was.as_ref())
                .map(|(object, facts)| (object, facts[i].as_slice()));
            let after = new
                .as_ref()
                .zip(is.as_ref())
                .map(|(object, facts)| (object, facts[i].as_slice()));
            index::replace(index, before, after);
        }
        for (id, maybe_was, maybe_is) in self.candidates(namespace, was.as_ref(), is.as_ref()) {
            let standing = self.questions.get_mut(&id).expect("listed while it stands");
            let question = standing.question.clone();
            let selected = |maybe: bool, object: &Option<Arc<Object>>| {
                object
                    .as_ref()
                    .filter(|object| maybe && question.chosen.selects_anchored(object))
                    .cloned()
            };
            let (was, is) = (selected(maybe_was, &old), selected(maybe_is, &new));
            if was.is_none() && is.is_none() {
                continue;
            }
            let kept = self.now.kept.get_mut(&id).expect("kept while it stands");
            let effect = question.update(Arc::make_mut(kept), was.as_ref(), is.as_ref(), self.now.seq);
            if effect.changed {
                standing.changed_at = self.now.seq;
            }
            let both = was.is_some() && is.is_some();
            for reader in standing.readers.values_mut() {
                if !reader.reading.is_done() && concerns(&mut reader.last, &effect, both, &any) {
                    let why = Why::Changed {
                        object: any.clone(),
                        gone: new.is_none(),
                        question: question.text.clone(),
                    };
                    wakes.push((reader.reading.clone(), why));
                }
            }
        }
        if let Some(readers) = self.by_object.get(&At(namespace, name)) {
            for reader in readers.iter().filter(|reader| !reader.reading.is_done()) {
                let same = old
                    .as_ref()
                    .zip(new.as_ref())
                    .is_some_and(|(old, new)| reader.wanted.same(old, new));
                if !same {
                    let question = reader.wanted.text.clone();
                    wakes.push((
                        reader.reading.clone(),
                        Why::Changed {
                            object: any.clone(),
                            gone: new.is_none(),
                            question,
                        },
                    ));
                }
            }
        }
    }

    /// Questions that the object may be in, before and after the change. Each once.
    fn candidates(&self, namespace: &str, was: Option<&Facts>, is: Option<&Facts>) -> SmallVec<[(u64, bool, bool); 8]> {
        let mut found: SmallVec<[(u64, bool, bool); 8]> = SmallVec::new();
        let mut note = |ids: &[u64], before: bool| {
            for id in ids {
                match found.iter_mut().find(|(known, ..)| known == id) {
                    Some((_, was, is)) => {
                        *was |= before;
                        *is |= !before;
                    }
                    None => found.push((*id, before, !before)),
                }
            }
        };
        let namespaces = if namespace.is_empty() {
            &[""][..]
        } else {
            &["", namespace]
        };
        for (facts, before) in [(was, true), (is, false)] {
            let Some(facts) = facts else { continue };
            for namespace in namespaces {
                if let Some(ids) = self.unanchored.get(*namespace) {
                    note(ids, before);
                }
                for (asks, values) in self.anchored.iter().zip(facts).filter(|(asks, _)| !asks.is_empty()) {
                    for value in values {
                        if let Some(ids) = asks.get(&At(namespace, value)) {
                            note(ids, before);
                        }
                    }
                }
            }
        }
        found
    }

    fn add(&mut self, ask: &Ask) -> Result<u64, Failure> {
        let question = Arc::new(Question::parse(ask)?);
        let id = self.next_question;
        self.next_question += 1;
        match &question.chosen.anchor {
            Some((on, value)) => {
                let at = match self.indexes.position(on) {
                    Some(at) => at,
                    None => self.add_index(on),
                };
                let name = Name {
                    namespace: question.chosen.namespace.as_str().into(),
                    name: value.as_str().into(),
                };
                self.anchored[at].entry(name).or_default().push(id);
            }
            None => self
                .unanchored
                .entry(question.chosen.namespace.clone())
                .or_default()
                .push(id),
        }
        let kept = question.build(self.now.select(&question.chosen), self.now.seq);
        self.now.kept.insert(id, Arc::new(kept));
        self.by_ask.insert(Arc::new(ask.clone()), id);
        let standing = Standing {
            question,
            readers: Default::default(),
            changed_at: 0,
            stamp: 0,
        };
        self.questions.insert(id, standing);
        self.rest(id);
        Ok(id)
    }

    fn add_index(&mut self, on: &IndexOn) -> usize {
        let unused: Vec<usize> = (0..self.anchored.len())
            .filter(|at| self.anchored[*at].is_empty())
            .collect();
        if unused.len() >= IDLE_INDEXES {
            let on = self.indexes.remove(unused[0]);
            self.anchored.remove(unused[0]);
            self.now.indexes.remove(&on);
        }
        self.now.indexes.insert(on.clone(), index::build(on, &self.now.objects));
        self.indexes.add(on.clone());
        self.anchored.push(Default::default());
        self.anchored.len() - 1
    }

    /// Nobody reads it now: kept for a while, as the next call mostly asks what the last one did.
    fn rest(&mut self, id: u64) {
        self.next_question += 1;
        let stamp = self.next_question;
        self.questions.get_mut(&id).expect("the caller has it").stamp = stamp;
        self.idle.push_back((id, stamp));
        while self.idle.len() > IDLE_QUESTIONS {
            let (id, stamp) = self.idle.pop_front().expect("longer than the limit");
            let stale = self
                .questions
                .get(&id)
                .is_none_or(|s| s.stamp != stamp || !s.readers.is_empty());
            if !stale {
                self.drop_question(id);
            }
        }
    }

    fn drop_question(&mut self, id: u64) {
        let Some(standing) = self.questions.remove(&id) else {
            return;
        };
        self.by_ask.remove(&standing.question.ask);
        self.now.kept.remove(&id);
        let chosen = &standing.question.chosen;
        match &chosen.anchor {
            Some((on, value)) => {
                let Some(at) = self.indexes.position(on) else {
                    return;
                };
                let name = Name {
                    namespace: chosen.namespace.as_str().into(),
                    name: value.as_str().into(),
                };
                if let Some(ids) = self.anchored[at].get_mut(&name) {
                    ids.retain(|known| *known != id);
                    if ids.is_empty() {
                        self.anchored[at].remove(&name);
                    }
                }
            }
            None => {
                if let Some(ids) = self.unanchored.get_mut(&chosen.namespace) {
                    ids.retain(|known| *known != id);
                    if ids.is_empty() {
                        self.unanchored.remove(&chosen.namespace);
                    }
                }
            }
        }
    }
}

/// Whether a reader whose answer ends at `last` (or has all rows) sees this effect.
fn concerns(last: &mut Option<Ranked>, effect: &Effect, both: bool, object: &Arc<Object>) -> bool {
    let Some(end) = last else {
        return effect.changed;
    };
    let inside = |key: &Option<SortKey>| {
        key.as_ref().is_some_and(|key| {
            Ranked {
                key: key.clone(),
                object: object.clone(),
            } <= *end
        })
    };
    let (was, is) = (inside(&effect.was), inside(&effect.is));
    if !was && !is {
        return false;
    }
    if both && !effect.changed {
        // It kept its place and looks the same; if it is the last row, the end moves with it.
        if name_of(object) == name_of(&end.object) {
            end.key = effect.is.clone().unwrap_or_default();
            end.object = object.clone();
        }
        return false;
    }
    true
}
