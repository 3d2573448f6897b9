//! Services, EndpointSlices and the own Node, kept current by list and watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use client::{Cluster, Collection, News};
use futures::StreamExt;
use model::{Caller, Gvr, Object, ObjectKey};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::facts::{EndpointSlice, Node, Service, World};

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
            services: source.mirror(Gvr::new("", "v1", "services"), ""),
            slices: source.mirror(Gvr::new("discovery.k8s.io", "v1", "endpointslices"), ""),
            node: node.map(|name| source.mirror(Gvr::new("", "v1", "nodes"), &format!("metadata.name={name}"))),
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
    fn mirror<T: Mirrored>(&self, gvr: Gvr, fields: &str) -> Arc<Mirror<T>> {
        let mirror = Arc::new(Mirror {
            objects: Mutex::new(None),
            changed: self.changed.clone(),
        });
        let mut news = client::follow(self.cluster.clone(), self.caller.clone(), Collection::all(gvr), fields);
        let (stop, to) = (self.stop.clone(), mirror.clone());
        tokio::spawn(async move {
            while let Some(Some(news)) = stop.run_until_cancelled(news.next()).await {
                to.hear(news);
            }
        });
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

    fn hear(&self, news: News) {
        match news {
            News::Restarted { objects, .. } => {
                let read = objects
                    .iter()
                    .filter_map(|object| Some((object.key.clone(), read(object)?)));
                self.replace(read.collect());
            }
            News::Changed(object) => self.set(&object.key, read(&object)),
            News::Removed(object) => self.set(&object.key, None),
            News::UpTo(_) | News::Failed(_) => {}
        }
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

/// An object that does not read is as good as none: it must not stop the others.
fn read<T: Mirrored>(object: &Object) -> Option<Arc<T>> {
    match object.parse() {
        Ok(read) => Some(Arc::new(read)),
        Err(error) => {
            tracing::warn!(object = %object.key, namespace = %object.key.namespace, %error, "left out: cannot be read");
            None
        }
    }
}
