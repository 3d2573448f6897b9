//! The watch cache: a kind's objects as they are now, the changes of late, and who waits for more of them.
//!
//! One store watch a kind feeds it (`pump`). Readers take a snapshot of the map, which costs nothing, and never hold the
//! lock while they work. Watchers are grouped into channels of equal filters (`channel.rs`); a change is judged once
//! for each channel it may concern.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use imbl::OrdMap;
use model::{Failure, GroupResource, Gvk, Object, ObjectKey, ResourceVersion};
use parking_lot::{Mutex, RwLock};
use schema::Schema;
use store::{Range, Revision, Store, StoreError};
use tokio::sync::watch;

use crate::channel::{Channel, Channels, Told};
use crate::document::{self, Picker};
use crate::resource::Resource;
use crate::select::Filter;

/// `NAMESPACE/NAME` or `NAME`: the part of the store key after the kind's prefix, in the store's order.
pub(crate) type Place = CompactString;

/// The state of a kind at one version. Cloning shares it.
pub(crate) type Snapshot = OrdMap<Place, Arc<Entry>>;

/// An object, with the fields that selectors ask for read once.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) object: Arc<Object>,
    fields: OnceLock<Box<[CompactString]>>,
}

impl Entry {
    pub(crate) fn new(object: Arc<Object>) -> Arc<Self> {
        Arc::new(Self {
            object,
            fields: OnceLock::new(),
        })
    }

    pub(crate) fn fields(&self, picker: &Picker) -> &[CompactString] {
        self.fields.get_or_init(|| picker.pick(&self.object.json))
    }
}

/// One change, as the window keeps it for watches that begin in the past.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: ResourceVersion,
    pub(crate) was: Option<Arc<Entry>>,
    /// `None`: deleted.
    pub(crate) now: Option<Arc<Entry>>,
    /// The last state of what is gone, at the version at which it went.
    pub(crate) gone: Option<Arc<Object>>,
}

/// How much a kind's cache keeps beside the objects themselves.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Changes of late, for watches that begin a little in the past.
    pub window: usize,
    /// Changes a watcher may be behind before its watch is ended with `Expired`.
    pub behind: usize,
    /// States kept for lists that are read page by page.
    pub pages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 8192,
            behind: 8192,
            pages: 64,
        }
    }
}

/// Pages of a list may be asked for this long after the first.
const PAGES_KEPT: Duration = Duration::from_secs(300);

/// How long a reader waits for a version before it is told that it lies in the future (kube-apiserver's three seconds).
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct Cache {
    pub(crate) resource: GroupResource,
    gvk: Arc<Gvk>,
    /// What fills in defaults that were declared after an object was stored.
    defaults: Option<Schema>,
    prefix: String,
    namespaced: bool,
    pub(crate) picker: Picker,
    limits: Limits,
    store: Arc<dyn Store>,
    state: RwLock<State>,
    /// What `state.through` is, for those who wait for it.
    through: watch::Sender<ResourceVersion>,
    pages: Mutex<VecDeque<Page>>,
    /// Objects that writers of this process have made already, by revision: the pump takes one instead of making it
    /// again. A place that is overwritten before costs a parse, nothing else.
    made: Box<[Mutex<Option<Arc<Object>>>]>,
    pump: OnceLock<tokio::task::AbortHandle>,
}

struct State {
    /// Every change through this version is in `objects` and has been told to the channels.
    through: ResourceVersion,
    objects: Snapshot,
    window: VecDeque<Change>,
    /// Every change after this version is in `window`.
    oldest: ResourceVersion,
    channels: Channels,
}

struct Page {
    version: ResourceVersion,
    objects: Snapshot,
    kept: Instant,
}

impl Cache {
    /// Reads the kind's objects and goes on following them.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        resource: &Resource,
        limits: Limits,
    ) -> Result<Arc<Self>, Failure> {
        let storage = &resource.storage;
        let cache = Arc::new(Self {
            resource: storage.resource.clone(),
            gvk: storage.gvk.clone(),
            defaults: resource.stored_defaults.clone(),
            prefix: storage.prefix.clone(),
            namespaced: resource.kind.namespaced(),
            picker: Picker::new(&resource.selectable)?,
            limits,
            store: store.clone(),
            state: RwLock::new(State {
                through: ResourceVersion::default(),
                objects: Snapshot::new(),
                window: VecDeque::new(),
                oldest: ResourceVersion::default(),
                channels: Channels::default(),
            }),
            through: watch::Sender::new(ResourceVersion::default()),
            pages: Mutex::default(),
            made: (0..256).map(|_| Mutex::default()).collect(),
            pump: OnceLock::new(),
        });
        let from = cache.reload().await?;
        let weak = Arc::downgrade(&cache);
        let prefix = cache.prefix.clone();
        let task = tokio::spawn(async move {
            let mut from = from;
            loop {
                let error = match store.watch(prefix.clone().into(), from).await {
                    Ok(mut changes) => loop {
                        match changes.next().await {
                            Ok(batch) => {
                                let Some(cache) = weak.upgrade() else { return };
                                from = batch.through;
                                cache.apply(batch);
                            }
                            Err(error) => break error,
                        }
                    },
                    Err(error) => error,
                };
                let Some(cache) = weak.upgrade() else { return };
                match error {
                    StoreError::Closed => {
                        return cache.end(&Failure::Timeout("the store is closed".into()));
                    }
                    // Our place is still known: go on from it.
                    StoreError::Lagged { .. } => {}
                    StoreError::Compacted { .. } => match cache.reload().await {
                        Ok(reloaded) => from = reloaded,
                        Err(error) => {
                            tracing::warn!(%prefix, %error, "cannot read the store; trying again")
                        }
                    },
                    error => {
                        tracing::warn!(%prefix, %error, "the store's watch broke; trying again");
                        drop(cache);
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                }
            }
        });
        let _ = cache.pump.set(task.abort_handle());
        Ok(cache)
    }

    /// Reads everything anew. Watchers are sent away, since what happened in between is not known.
    async fn reload(&self) -> Result<Revision, Failure> {
        let mut objects = Snapshot::new();
        let mut range = Range::prefix(self.prefix.clone()).limit(2000);
        let version = loop {
            let page = self.store.range(range.clone()).await?;
            for entry in &page.entries {
                if let Some((place, key)) = self.place(&entry.key) {
                    let object = self.make(key, &entry.value, entry.modified)?;
                    objects.insert(place, Entry::new(object.into()));
                }
            }
            match page.entries.last() {
                Some(last) if page.remaining > 0 => range = range.at(page.revision).after(&last.key),
                _ => break page.revision,
            }
        };
        let channels = {
            let mut state = self.state.write();
            state.objects = objects;
            state.through = version;
            state.oldest = version;
            state.window.clear();
            state.channels.take_all()
        };
        for channel in channels {
            channel.end("too old resource version: the history before it is no longer known");
        }
        self.through.send_replace(version);
        Ok(version)
    }

    pub(crate) fn end(&self, why: &Failure) {
        let channels = self.state.write().channels.take_all();
        for channel in channels {
            channel.end(&why.to_string());
        }
    }

    /// Where a store key's object lies, or `None` for a key that is none of ours.
    fn place(&self, key: &[u8]) -> Option<(Place, ObjectKey)> {
        let place = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        let (namespace, name) = match self.namespaced {
            true => place.split_once('/')?,
            false => ("", place),
        };
        (!name.contains('/')).then(|| (place.into(), ObjectKey::new(self.resource.clone(), namespace, name)))
    }

    pub(crate) fn store_key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(self.resource.clone(), namespace, name)
    }

    /// An object as the store has it, with the defaults that its kind has by now.
    fn make(&self, key: ObjectKey, bytes: &[u8], version: ResourceVersion) -> Result<Object, Failure> {
        let object = document::stored(&self.gvk, key, bytes, version)?;
        let Some(schema) = self.defaults.as_ref().filter(|_| *object.gvk == *self.gvk) else {
            return Ok(object);
        };
        let was = object.value();
        let mut value = was.clone();
        schema.default(&mut value);
        if value == was {
            return Ok(object);
        }
        Object::from_value(self.gvk.clone(), object.key, &value)
    }

    /// An object from a store entry; the cache's own if it has that revision.
    pub(crate) fn object(&self, entry: &store::Entry) -> Result<Arc<Object>, Failure> {
        let Some((place, key)) = self.place(&entry.key) else {
            return Err(Failure::Internal(format!(
                "{:?} is no key of {}",
                entry.key, self.resource
            )));
        };
        if let Some(have) = self
            .state
            .read()
            .objects
            .get(&place)
            .filter(|e| e.object.version == entry.modified)
        {
            return Ok(have.object.clone());
        }
        self.make(key, &entry.value, entry.modified).map(Arc::new)
    }

    /// A writer's object, so that the pump need not make it again.
    pub(crate) fn offer(&self, object: &Arc<Object>) {
        *self.made[object.version.0 as usize % self.made.len()].lock() = Some(object.clone());
    }

    fn taken(&self, version: ResourceVersion, key: &ObjectKey) -> Option<Arc<Object>> {
        let mut slot = self.made[version.0 as usize % self.made.len()].lock();
        slot.take_if(|o| o.version == version && o.key == *key)
    }

    fn apply(&self, batch: store::Batch) {
        // Parsing comes before the lock.
        let mut changes = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let Some((place, key)) = self.place(&event.key) else {
                continue;
            };
            let made = match &event.value {
                Some(value) => match self.taken(event.revision, &key) {
                    Some(object) => Ok(object),
                    None => self.make(key, value, event.revision).map(Arc::new),
                }
                .map(|object| Some(Entry::new(object))),
                None => Ok(None),
            };
            match made {
                Ok(now) => changes.push((place, event.revision, now)),
                Err(error) => tracing::error!(%error, "an object in the store is left out"),
            }
        }
        let mut woken: Vec<Arc<Channel>> = Vec::new();
        let mut old = Vec::new();
        {
            let mut state = self.state.write();
            let state = &mut *state;
            for (place, version, now) in changes {
                if version <= state.through {
                    continue;
                }
                let was = match &now {
                    Some(entry) => state.objects.insert(place, entry.clone()),
                    None => state.objects.remove(&place),
                };
                let gone = match (&now, &was) {
                    (None, Some(was)) => Some(Arc::new(document::at_version(&was.object, version))),
                    (None, None) => continue,
                    _ => None,
                };
                let change = Change {
                    version,
                    was,
                    now,
                    gone,
                };
                state
                    .channels
                    .tell(&change, &self.picker, self.limits.behind, &mut woken);
                state.window.push_back(change);
                if state.window.len() > self.limits.window
                    && let Some(first) = state.window.pop_front()
                {
                    state.oldest = first.version;
                    old.push(first);
                }
            }
            state.through = state.through.max(batch.through);
        }
        self.through.send_replace(batch.through);
        for channel in woken {
            channel.wake();
        }
        // Freed outside the lock.
        drop(old);
    }

    /// The state now, and its version.
    pub(crate) fn snapshot(&self) -> (Snapshot, ResourceVersion) {
        let state = self.state.read();
        (state.objects.clone(), state.through)
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let place = self.place_of(namespace, name);
        self.state.read().objects.get(&place).map(|entry| entry.object.clone())
    }

    fn place_of(&self, namespace: &str, name: &str) -> Place {
        if self.namespaced {
            compact_str::format_compact!("{namespace}/{name}")
        } else {
            name.into()
        }
    }

    pub(crate) fn through(&self) -> ResourceVersion {
        *self.through.borrow()
    }

    /// Waits until the cache has `version`; asks the store for progress where nothing else would bring it there.
    ///
    /// # Errors
    /// `TooLargeVersion` when that version is not reached in three seconds.
    pub(crate) async fn reach(&self, version: ResourceVersion) -> Result<(), Failure> {
        if self.through() >= version {
            return Ok(());
        }
        let mut through = self.through.subscribe();
        let ask = async {
            self.store.request_progress().await?;
            // The channel lives as long as `self`.
            let _ = through.wait_for(|t| *t >= version).await;
            Ok::<_, Failure>(())
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(done) => done,
            Err(_) => Err(Failure::TooLargeVersion {
                asked: version,
                current: self.through(),
            }),
        }
    }

    /// Waits until every write acknowledged before the call is in the cache.
    pub(crate) async fn catch_up(&self) -> Result<(), Failure> {
        let newest = self.store.revision().await?;
        self.reach(newest).await
    }

    /// Keeps a state for the pages after the first.
    pub(crate) fn keep_page(&self, version: ResourceVersion, objects: &Snapshot) {
        let mut pages = self.pages.lock();
        let now = Instant::now();
        pages.retain(|p| now.duration_since(p.kept) < PAGES_KEPT && p.version != version);
        if pages.len() >= self.limits.pages {
            pages.pop_front();
        }
        pages.push_back(Page {
            version,
            objects: objects.clone(),
            kept: now,
        });
    }

    /// The state at a version, from what is kept or from the store's history.
    ///
    /// # Errors
    /// `Expired` when the store has forgotten it.
    pub(crate) async fn at(&self, version: ResourceVersion) -> Result<Snapshot, Failure> {
        {
            let state = self.state.read();
            let last = state.window.back().map_or(state.oldest, |c| c.version);
            if version >= last && version <= state.through {
                return Ok(state.objects.clone());
            }
        }
        if let Some(page) = self.pages.lock().iter().find(|p| p.version == version) {
            return Ok(page.objects.clone());
        }
        let mut objects = Snapshot::new();
        let mut range = Range::prefix(self.prefix.clone()).limit(2000).at(version);
        loop {
            let page = self.store.range(range.clone()).await?;
            for entry in &page.entries {
                if let Some((place, _)) = self.place(&entry.key) {
                    objects.insert(place, Entry::new(self.object(entry)?));
                }
            }
            match page.entries.last() {
                Some(last) if page.remaining > 0 => range = range.after(&last.key),
                _ => return Ok(objects),
            }
        }
    }

    /// Opens a watch after `from`, or from now with the state where `from` is `None`: what is to be sent first, and the
    /// place in the channel where it goes on without gap or repetition.
    ///
    /// # Errors
    /// `Expired` when changes after `from` are no longer known.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        filter: Filter,
        from: Option<ResourceVersion>,
    ) -> Result<Opened, Failure> {
        let mut state = self.state.write();
        let state = &mut *state;
        let mut first = Vec::new();
        let mut snapshot = None;
        match from {
            Some(from) if from < state.oldest => {
                return Err(Failure::Expired(format!(
                    "too old resource version: {from} ({})",
                    state.oldest
                )));
            }
            Some(from) => {
                let start = state.window.partition_point(|change| change.version <= from);
                first.extend(
                    state
                        .window
                        .range(start..)
                        .filter_map(|change| Told::of(change, &filter, &self.picker)),
                );
            }
            None => snapshot = Some(state.objects.clone()),
        }
        let subscription = state.channels.join(filter, self, from.unwrap_or_default());
        Ok(Opened {
            snapshot,
            first,
            through: state.through,
            subscription,
        })
    }

    pub(crate) fn leave(&self, channel: &Arc<Channel>, seat: u64) {
        self.state.write().channels.leave(channel, seat);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.get() {
            pump.abort();
        }
    }
}

/// A watch as it begins.
pub(crate) struct Opened {
    /// The whole state, where it is to be sent first; not yet filtered.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) first: Vec<Told>,
    /// The version that `snapshot` and `first` reach.
    pub(crate) through: ResourceVersion,
    pub(crate) subscription: crate::channel::Subscription,
}
