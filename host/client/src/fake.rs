//! A small cluster in memory, for tests of whoever talks to a [`Cluster`].
//!
//! It keeps versions, uids, finalizers, preconditions, selectors and watches as the real one does, and leaves out what
//! its users never ask about: schemas, defaulting, authorization, `managedFields`. Server-side apply and strategic merge
//! are done as RFC 7386 merges (lists are replaced). What it adds is trouble on demand: see [`Fake::refuse_first_writes`],
//! [`Fake::before_write`], [`Fake::hold_watches`], [`Fake::break_watches`], [`Fake::end_watches`], [`Fake::refuse_lists`].

mod document;
mod kinds;
mod state;
mod watcher;

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::StreamExt;
use model::{Caller, Failure, Kind, Object, ObjectKey, ResourceVersion};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::document::selected;
use self::state::{State, verb};
use self::watcher::Watcher;
use crate::{
    Cluster, Collection, List, ListOptions, ReadVersion, Target, WatchEvent, WatchOptions, WatchStream, Write, Written,
};

/// Looks at a write before it is done; `Some` refuses it with that failure.
pub type BeforeWrite = Box<dyn FnMut(&Caller, &Write) -> Option<Failure> + Send>;

/// The cluster in memory. Clones are the same cluster.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// Rises with every change, every hold and every release: what watchers wait on.
    moved: watch::Sender<u64>,
}

impl Fake {
    /// Empty, with the built-in kinds of [`kinds::built_in`].
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new())),
            moved: watch::Sender::new(0),
        }
    }

    /// The same cluster as components take it.
    pub fn cluster(&self) -> Arc<dyn Cluster> {
        Arc::new(self.clone())
    }

    /// Serves one more kind, as a CRD would.
    pub fn add_kind(&self, kind: Kind) {
        let mut state = self.lock();
        let mut kinds = (*state.kinds).clone();
        kinds.push(Arc::new(kind));
        state.kinds = Arc::new(kinds);
        state.kinds_epoch += 1;
        drop(state);
        self.wake();
    }

    /// Stores a document as it is, status included: creates it or puts it in place of the one of that name, which keeps
    /// its uid. `metadata` may lack everything but `name`. Goes past every refusal.
    ///
    /// # Panics
    /// If the document names no kind that is served: the test is wrong.
    pub fn put(&self, mut document: Value) -> Arc<Object> {
        let mut state = self.lock();
        let gvk = model::Gvk::from_api_version(
            document["apiVersion"].as_str().unwrap_or_default(),
            document["kind"].as_str().unwrap_or_default(),
        );
        let kind = state.kinds.iter().find(|k| k.gvk == gvk).cloned();
        let kind = kind.unwrap_or_else(|| panic!("the fake serves no {gvk}; see Fake::add_kind"));
        if kind.namespaced() && document["metadata"]["namespace"].is_null() {
            document["metadata"]["namespace"] = json!("default");
        }
        let text = |field: &str| document["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey::new(kind.group_resource(), &text("namespace"), &text("name"));
        let old = state.objects.get(&key).cloned();
        if let (Some(old), true) = (&old, document["metadata"]["uid"].is_null()) {
            document["metadata"]["uid"] = json!(old.uid.0);
            document["metadata"]["creationTimestamp"] = old.value()["metadata"]["creationTimestamp"].clone();
        }
        let object = state
            .commit(&kind, key, document, old)
            .expect("a document with metadata");
        drop(state);
        self.wake();
        object
    }

    /// Takes an object away at once, whatever its finalizers say. `false` if it was not there.
    pub fn remove(&self, key: &ObjectKey) -> bool {
        let mut state = self.lock();
        let removed = state.objects.get(key).cloned().map(|old| state.erase(old)).is_some();
        drop(state);
        self.wake();
        removed
    }

    pub fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.lock().objects.get(key).cloned()
    }

    /// All objects of one resource (`pods`, `deployments.apps`), in key order.
    pub fn objects(&self, resource: &str) -> Vec<Arc<Object>> {
        self.lock()
            .objects
            .values()
            .filter(|o| o.key.resource.to_string() == resource)
            .cloned()
            .collect()
    }

    pub fn version(&self) -> ResourceVersion {
        ResourceVersion(self.lock().version)
    }

    /// Every write that was carried out or tried, in order.
    pub fn writes(&self) -> Vec<(Caller, Write)> {
        self.lock().writes.clone()
    }

    /// Refuses the first write of each verb to each target with `Conflict`, so that the path after a refusal is walked.
    pub fn refuse_first_writes(&self) {
        self.lock().refuse_first = true;
    }

    /// Asks `hook` before each write; replaces an earlier hook.
    pub fn before_write(&self, hook: impl FnMut(&Caller, &Write) -> Option<Failure> + Send + 'static) {
        self.lock().before_write = Some(Box::new(hook));
    }

    /// From now on watches of `resource` (`pods`, `deployments.apps`) deliver nothing, as on a slow network; reads and
    /// writes go on.
    pub fn hold_watches(&self, resource: &str) {
        let mut state = self.lock();
        let version = state.version;
        state.held_at.insert(resource.to_owned(), version);
    }

    /// Watches of `resource` deliver what was held back.
    pub fn release_watches(&self, resource: &str) {
        self.lock().held_at.remove(resource);
        self.wake();
    }

    /// Ends every running watch with `Expired` and forgets all history: who wants to go on must list again.
    pub fn break_watches(&self) {
        let mut state = self.lock();
        state.compacted = state.version;
        drop(state);
        self.end_watches(Some(|| Failure::Expired("the fake ended its watches".into())));
    }

    /// Ends every running watch, with a failure or in good order. Nothing is forgotten: it can be begun again where it stood.
    pub fn end_watches(&self, failure: Option<fn() -> Failure>) {
        let mut state = self.lock();
        state.ending = failure;
        state.broken += 1;
        drop(state);
        self.wake();
    }

    /// Answers the next lists with these.
    pub fn refuse_lists(&self, failures: impl IntoIterator<Item = Failure>) {
        self.lock().refused_lists.extend(failures);
    }

    /// Waits until `holds` is true of the cluster. Checked after every change; waits as long as the test may run.
    pub async fn until(&self, mut holds: impl FnMut(&Fake) -> bool) {
        let mut moved = self.moved.subscribe();
        while !holds(self) {
            moved.changed().await.expect("the sender is self");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wake(&self) {
        self.moved.send_modify(|n| *n += 1);
    }
}

/// A test that panicked elsewhere must not hide its own message behind a poisoned lock.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Cluster for Fake {
    fn kinds(&self) -> Arc<Vec<Arc<Kind>>> {
        self.lock().kinds.clone()
    }

    async fn kinds_changed(&self) {
        let mut moved = self.moved.subscribe();
        let before = self.lock().kinds_epoch;
        while self.lock().kinds_epoch == before {
            moved.changed().await.expect("the sender is self");
        }
    }

    async fn get(&self, _: &Caller, target: &Target, _: ReadVersion) -> Result<Arc<Object>, Failure> {
        let state = self.lock();
        let key = state.key(target)?;
        state.objects.get(&key).cloned().ok_or(Failure::NotFound(key))
    }

    async fn list(&self, _: &Caller, of: &Collection, options: &ListOptions) -> Result<List, Failure> {
        let mut state = self.lock();
        if let Some(failure) = state.refused_lists.pop_front() {
            return Err(failure);
        }
        let kind = state.kind(&of.gvr)?;
        let after: usize = options.continue_token.parse().unwrap_or(0);
        let mut found = Vec::new();
        for object in state.within(&kind, of) {
            if selected(object, &options.labels, &options.fields)? {
                found.push(object.clone());
            }
        }
        let total = found.len();
        let end = if options.limit == 0 {
            total
        } else {
            total.min(after + options.limit as usize)
        };
        Ok(List {
            version: ResourceVersion(state.version),
            items: found.get(after..end).unwrap_or_default().to_vec(),
            continue_token: if end < total { end.to_string() } else { String::new() },
            remaining: (end < total).then_some((total - end) as u64),
        })
    }

    async fn watch(&self, _: &Caller, of: &Collection, options: &WatchOptions) -> Result<WatchStream, Failure> {
        let state = self.lock();
        let kind = state.kind(&of.gvr)?;
        if options.from.is_some_and(|from| from.0 < state.compacted) {
            return Err(Failure::Expired(format!(
                "too old resource version: {}",
                options.from.unwrap_or_default()
            )));
        }
        let mut first = Vec::new();
        if options.from.is_none() {
            for object in state.within(&kind, of) {
                if selected(object, &options.labels, &options.fields)? {
                    first.push(Ok(WatchEvent::Added(object.clone())));
                }
            }
            if options.send_initial_events {
                let version = ResourceVersion(state.version);
                first.push(Ok(WatchEvent::Bookmark {
                    version,
                    initial_events_end: true,
                }));
            }
        }
        let from = options.from.map_or(state.version, |v| v.0);
        let place = Watcher {
            told: from,
            at: state.log.partition_point(|change| change.version <= from),
            broken: state.broken,
            ended: false,
            resource: kind.group_resource(),
            of: of.clone(),
            options: options.clone(),
            state: self.state.clone(),
            moved: self.moved.subscribe(),
        };
        drop(state);
        let rest = futures::stream::unfold(place, |mut place| async move { Some((place.next().await?, place)) });
        Ok(futures::stream::iter(first).chain(rest).boxed())
    }

    async fn write(&self, caller: &Caller, write: Write) -> Result<Written, Failure> {
        let mut state = self.lock();
        state.writes.push((caller.clone(), write.clone()));
        if let Some(hook) = &mut state.before_write {
            let mut hook = std::mem::replace(hook, Box::new(|_, _| None));
            let verdict = hook(caller, &write);
            state.before_write = Some(hook);
            if let Some(failure) = verdict {
                drop(state);
                self.wake();
                return Err(failure);
            }
        }
        let first = state.refuse_first && state.refused.insert((write.target.clone(), verb(&write.action)));
        let done = if first {
            state.key(&write.target).and_then(|key| Err(Failure::modified(key)))
        } else {
            state.write(write)
        };
        drop(state);
        self.wake();
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, DeleteOptions, PatchKind, Preconditions};
    use model::Gvr;

    fn caller() -> Caller {
        Caller::component("system:test", &[])
    }

    fn pods() -> Gvr {
        Gvr::new("", "v1", "pods")
    }

    fn write(target: Target, action: Action) -> Write {
        Write {
            target,
            action,
            options: Default::default(),
        }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(pods().group_resource(), "default", name)
    }

    #[tokio::test]
    async fn a_watch_from_a_list_misses_nothing_and_repeats_nothing() {
        let fake = Fake::new();
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"app": "x"}}}));
        let of = Collection::all(pods());
        let list = fake.list(&caller(), &of, &ListOptions::default()).await.unwrap();
        let options = WatchOptions {
            from: Some(list.version),
            labels: "app=x".into(),
            ..Default::default()
        };
        let mut watch = fake.watch(&caller(), &of, &options).await.unwrap();
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "labels": {"app": "y"}}}));
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"app": "y"}}}));
        // It left the selection: deleted to this watcher, still there to everyone else.
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Deleted(o))) if o.key.name == "a"));
        assert!(fake.object(&key("a")).is_some());
        fake.break_watches();
        assert!(matches!(watch.next().await, Some(Err(Failure::Expired(_)))));
        assert!(watch.next().await.is_none());
        assert!(matches!(
            fake.watch(&caller(), &of, &options).await.err(),
            Some(Failure::Expired(_))
        ));
    }

    #[tokio::test]
    async fn finalizers_keep_an_object_until_the_last_is_gone() {
        let fake = Fake::new();
        let meta = json!({"name": "a", "finalizers": ["x/y"]});
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta}));
        let target = Target::new(pods(), "default", "a");
        fake.write(
            &caller(),
            write(target.clone(), Action::Delete(DeleteOptions::default())),
        )
        .await
        .unwrap();
        assert!(fake.object(&key("a")).unwrap().value()["metadata"]["deletionTimestamp"].is_string());
        let body = json!({"metadata": {"finalizers": null}}).to_string().into();
        let patch = Action::Patch {
            kind: PatchKind::Merge,
            body,
            preconditions: Preconditions::default(),
        };
        fake.write(&caller(), write(target, patch)).await.unwrap();
        assert!(fake.object(&key("a")).is_none());
    }

    #[tokio::test]
    async fn a_pod_is_bound_once_and_a_first_write_may_be_refused() {
        let fake = Fake::new();
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}));
        fake.refuse_first_writes();
        let bind = || {
            let body = json!({"target": {"name": "n1"}}).to_string().into();
            write(
                Target::new(pods(), "default", "a").subresource("binding"),
                Action::Create(body),
            )
        };
        assert!(matches!(
            fake.write(&caller(), bind()).await,
            Err(Failure::Conflict { .. })
        ));
        fake.write(&caller(), bind()).await.unwrap();
        assert_eq!(fake.object(&key("a")).unwrap().value()["spec"]["nodeName"], "n1");
        let again = fake.write(&caller(), bind()).await.unwrap_err();
        assert_eq!(
            again.to_string(),
            "Operation cannot be fulfilled on pods \"a\": pod a is already assigned to node \"n1\""
        );
    }
}
