//! A registry on a memory store, with a still clock and counted uids, and short ways to say things to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use client::{
    Action, Cluster, Collection, DeleteOptions, List, ListOptions, Outcome, PatchKind, Preconditions, ReadVersion,
    Target, WatchEvent, WatchOptions, WatchStream, Write, WriteOptions, Written,
};
use futures::StreamExt;
use jiff::Timestamp;
use model::{Caller, Failure, Gvr, Object};
use serde_json::{Value, json};

use crate::gates::{Clock, Dice};
use crate::{AdmitAll, AllowAll, NoAudit, Options, Registry};

/// Noon of a day that never ends.
pub(crate) struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }
}

/// uid-1, uid-2 …; suffixes of few values, so that generated names collide.
#[derive(Default)]
pub(crate) struct CountedDice(AtomicU64);

impl Dice for CountedDice {
    fn uid(&self) -> String {
        format!("uid-{}", self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn suffix(&self) -> String {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        ["bbbbb", "ccccc", "ddddd", "fffff"][(n / 3) as usize % 4].into()
    }

    fn below(&self, end: u64) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) % end
    }
}

pub(crate) fn options() -> Options {
    let mut options = Options::new(Arc::new(AllowAll), Arc::new(AdmitAll), Arc::new(NoAudit));
    options.clock = Arc::new(StillClock);
    options.dice = Arc::new(CountedDice::default());
    options
}

pub(crate) async fn open() -> Registry {
    open_with(options()).await
}

pub(crate) async fn open_with(options: Options) -> Registry {
    let store = store::memory::open(store::History::default()).unwrap();
    Registry::open(Arc::new(store), options).await.unwrap()
}

pub(crate) fn caller() -> Caller {
    Caller::component("tester", &[])
}

pub(crate) fn gvr(resource: &str) -> Gvr {
    let (rest, plural) = resource.rsplit_once('/').unwrap_or(("v1", resource));
    match rest.split_once('/') {
        Some((group, version)) => Gvr::new(group, version, plural),
        None => Gvr::new("", rest, plural),
    }
}

/// `pods/default/a`, `apps/v1/deployments/default/a/status`, `namespaces//a`.
pub(crate) fn target(path: &str) -> Target {
    let parts: Vec<&str> = path.split('/').collect();
    let version = parts
        .iter()
        .position(|p| p.starts_with('v') && p[1..].starts_with(|c: char| c.is_ascii_digit()));
    let start = version.map_or(0, |v| v + 1);
    let resource = parts[..=start].join("/");
    let at = |i: usize| parts.get(start + i).copied().unwrap_or_default();
    Target::new(gvr(&resource), at(1), at(2)).subresource(at(3))
}

pub(crate) struct Shop<'r>(pub(crate) &'r Registry);

impl Shop<'_> {
    pub(crate) async fn act(&self, path: &str, action: Action) -> Result<Written, Failure> {
        self.with(path, action, WriteOptions::default()).await
    }

    pub(crate) async fn with(&self, path: &str, action: Action, options: WriteOptions) -> Result<Written, Failure> {
        self.0
            .write(
                &caller(),
                Write {
                    target: target(path),
                    action,
                    options,
                },
            )
            .await
    }

    pub(crate) async fn create(&self, path: &str, object: Value) -> Result<Arc<Object>, Failure> {
        let done = self.act(path, Action::Create(bytes(&object))).await?;
        match done.outcome {
            Outcome::Created(object) => Ok(object),
            other => panic!("a create came to {other:?}"),
        }
    }

    pub(crate) async fn update(&self, path: &str, object: &Value) -> Result<Arc<Object>, Failure> {
        let action = Action::Update {
            body: bytes(object),
            preconditions: Preconditions::default(),
        };
        Ok(self.act(path, action).await?.outcome.object().unwrap().clone())
    }

    pub(crate) async fn patch(&self, path: &str, kind: PatchKind, patch: Value) -> Result<Arc<Object>, Failure> {
        let action = Action::Patch {
            kind,
            body: bytes(&patch),
            preconditions: Preconditions::default(),
        };
        let options = WriteOptions {
            field_manager: "tester".into(),
            ..WriteOptions::default()
        };
        Ok(self
            .with(path, action, options)
            .await?
            .outcome
            .object()
            .unwrap()
            .clone())
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Outcome, Failure> {
        self.delete_with(path, DeleteOptions::default()).await
    }

    pub(crate) async fn delete_with(&self, path: &str, delete: DeleteOptions) -> Result<Outcome, Failure> {
        Ok(self.act(path, Action::Delete(delete)).await?.outcome)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.0.get(&caller(), &target(path), ReadVersion::Latest).await?.value())
    }

    pub(crate) async fn list(&self, resource: &str, options: ListOptions) -> Result<List, Failure> {
        self.0.list(&caller(), &Collection::all(gvr(resource)), &options).await
    }

    pub(crate) async fn watch(&self, resource: &str, options: WatchOptions) -> Result<WatchStream, Failure> {
        self.0.watch(&caller(), &Collection::all(gvr(resource)), &options).await
    }
}

pub(crate) fn bytes(value: &Value) -> Bytes {
    value.to_string().into()
}

pub(crate) fn names(list: &List) -> Vec<String> {
    list.items.iter().map(|o| o.key.name.to_string()).collect()
}

/// The next event, as `ADDED a`, within a generous limit.
pub(crate) async fn next(stream: &mut WatchStream) -> String {
    match event(stream).await {
        Some(Ok(WatchEvent::Added(o))) => format!("ADDED {}", o.key.name),
        Some(Ok(WatchEvent::Modified(o))) => format!("MODIFIED {}", o.key.name),
        Some(Ok(WatchEvent::Deleted(o))) => format!("DELETED {}", o.key.name),
        Some(Ok(WatchEvent::Bookmark { initial_events_end, .. })) => format!("BOOKMARK {initial_events_end}"),
        Some(Err(failure)) => format!("ERROR {failure}"),
        None => "END".into(),
    }
}

pub(crate) async fn event(stream: &mut WatchStream) -> Option<Result<WatchEvent, Failure>> {
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, stream.next())
        .await
        .expect("an event within twenty seconds")
}

pub(super) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
}
