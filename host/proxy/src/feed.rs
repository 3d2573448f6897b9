//! Services, EndpointSlices and the own Node, kept current by list and watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Cluster, Collection, ListOptions, ReadVersion, WatchEvent, WatchOptions};
use futures::StreamExt;
use model::{Caller, Failure, Gvr, Object, ObjectKey, ResourceVersion};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::facts::{EndpointSlice, Node, Service, World};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const PAGE: u64 = 500;

/// The newest known [`World`]. Dropping it, or `stop`, ends its watches.
pub struct Feed {
    services: Arc<Mirror<Service>>,
    slices: Arc<Mirror<EndpointSlice>>,
    node: Option<Arc<Mirror<Node>>>,
    changes: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl Feed {
    /// Starts to read as `caller`. With `node`, that Node is read too.
    pub fn start(cluster: Arc<dyn Cluster>, caller: &Caller, node: Option<&str>, stop: &CancellationToken) -> Self {
        let (changed, changes) = watch::channel(0);
        let stop = stop.child_token();
        let source = Source {
            cluster,
            caller: caller.clone(),
            changed,
            stop: stop.clone(),
        };
        Self {
            services: source.mirror(Gvr::new("", "v1", "services"), String::new()),
            slices: source.mirror(Gvr::new("discovery.k8s.io", "v1", "endpointslices"), String::new()),
            node: node.map(|name| source.mirror(Gvr::new("", "v1", "nodes"), format!("metadata.name={name}"))),
            changes,
            stop,
        }
    }

    /// Waits for a world that differs from the one seen last. The first comes once everything was listed: a plan made of
    /// half the world would cut off the other half. `None` after `stop`.
    pub async fn next(&mut self) -> Option<World> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
            }
            if let Some(world) = self.world() {
                return Some(world);
            }
        }
    }

    fn world(&self) -> Option<World> {
        let node = match &self.node {
            Some(node) => node.all()?.pop(),
            None => None,
        };
        Some(World {
            services: self.services.all()?,
            slices: self.slices.all()?,
            node,
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Source {
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Source {
    fn mirror<T: Mirrored>(&self, gvr: Gvr, fields: String) -> Arc<Mirror<T>> {
        let mirror = Arc::new(Mirror {
            objects: Mutex::new(None),
            changed: self.changed.clone(),
        });
        let reader = Reader {
            cluster: self.cluster.clone(),
            caller: self.caller.clone(),
            collection: Collection::all(gvr),
            fields,
            mirror: mirror.clone(),
        };
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(reader.keep()).await });
        mirror
    }
}

trait Mirrored: DeserializeOwned + PartialEq + Send + Sync + 'static {}
impl<T: DeserializeOwned + PartialEq + Send + Sync + 'static> Mirrored for T {}

/// The objects of one kind; `None` until the first list is complete.
struct Mirror<T> {
    objects: Mutex<Option<BTreeMap<ObjectKey, Arc<T>>>>,
    changed: watch::Sender<u64>,
}

impl<T: Mirrored> Mirror<T> {
    fn all(&self) -> Option<Vec<Arc<T>>> {
        self.lock().as_ref().map(|objects| objects.values().cloned().collect())
    }

    /// Puts a whole list in place of what was known.
    fn replace(&self, objects: BTreeMap<ObjectKey, Arc<T>>) {
        let mut known = self.lock();
        if known.as_ref() != Some(&objects) {
            *known = Some(objects);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// `None` takes the object away. A change to fields that are not read wakes nobody.
    fn set(&self, key: &ObjectKey, object: Option<Arc<T>>) {
        let mut known = self.lock();
        let known = known.get_or_insert_default();
        let differs = known.get(key) != object.as_ref();
        match object {
            Some(object) if differs => drop(known.insert(key.clone(), object)),
            Some(_) => {}
            None => drop(known.remove(key)),
        }
        if differs {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<BTreeMap<ObjectKey, Arc<T>>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reader<T> {
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    collection: Collection,
    fields: String,
    mirror: Arc<Mirror<T>>,
}

impl<T: Mirrored> Reader<T> {
    /// Lists, watches from there, and lists again when the version is too old to watch from.
    async fn keep(self) {
        let mut from = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let (before, began) = (from, Instant::now());
            match self.follow(&mut from).await {
                Ok(()) => {}
                Err(Failure::Expired(_)) => from = None,
                Err(error) => {
                    tracing::warn!(resource = %self.collection.gvr, %error, "cannot read; trying again");
                }
            }
            // A source that ends every watch at once must not make us spin.
            let was_good = (from.is_some() && from != before) || began.elapsed() > LONGEST_PAUSE;
            pause = if was_good {
                FIRST_PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Until the watch ends. `from` is what is known when it does.
    async fn follow(&self, from: &mut Option<ResourceVersion>) -> Result<(), Failure> {
        let start = match *from {
            Some(version) => version,
            None => self.list().await?,
        };
        *from = Some(start);
        let options = WatchOptions {
            fields: self.fields.clone(),
            from: Some(start),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let mut events = self.cluster.watch(&self.caller, &self.collection, &options).await?;
        while let Some(event) = events.next().await {
            let version = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.mirror.set(&object.key, self.read(&object));
                    object.version
                }
                WatchEvent::Deleted(object) => {
                    self.mirror.set(&object.key, None);
                    object.version
                }
                WatchEvent::Bookmark { version, .. } => version,
            };
            *from = Some(version);
        }
        Ok(())
    }

    async fn list(&self) -> Result<ResourceVersion, Failure> {
        let mut objects = BTreeMap::new();
        let mut options = ListOptions {
            fields: self.fields.clone(),
            limit: PAGE,
            version: ReadVersion::Latest,
            ..ListOptions::default()
        };
        loop {
            let page = self.cluster.list(&self.caller, &self.collection, &options).await?;
            let read = page
                .items
                .iter()
                .filter_map(|object| Some((object.key.clone(), self.read(object)?)));
            objects.extend(read);
            if page.continue_token.is_empty() {
                self.mirror.replace(objects);
                return Ok(page.version);
            }
            options.continue_token = page.continue_token;
        }
    }

    /// An object that does not read is as good as none: it must not stop the others.
    fn read(&self, object: &Object) -> Option<Arc<T>> {
        match object.parse() {
            Ok(read) => Some(Arc::new(read)),
            Err(error) => {
                tracing::warn!(object = %object.key, namespace = %object.key.namespace, %error, "left out: cannot be read");
                None
            }
        }
    }
}
