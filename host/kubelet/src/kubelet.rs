//! The node's main loop: pods bound to it → one worker each; what the runtime tells → the worker it concerns.
//!
//! Order at the start: what the runtime holds is listed first, then the API server's pods, so that every worker begins
//! with both. Pods that only the runtime knows were deleted while nobody watched; they are ended once the first list has
//! come. At the stop workers are dropped and pods run on: the next process takes them up again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::node::NodeStreams;
use client::{Cluster, Collection, News};
use futures::StreamExt;
use jiff::Timestamp;
use model::{Failure, Gvr, Object};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::KubeletConfig;
use crate::events::Events;
use crate::files::private_dir;
use crate::node::{self, Node};
use crate::pod::spec::Pod;
use crate::pod::state::{NodeFacts, PodState};
use crate::pod::step::Happened;
use crate::read::Reader;
use crate::runtime::{PodFacts, Runtime};
use crate::streams::Streams;
use crate::worker::{self, Shared};

/// Events a worker has not looked at yet; beyond these the watch waits for it.
const INBOX: usize = 64;

/// Runs a node until `stop`. Returns an error only if its folder cannot be made; everything else is tried again.
///
/// Acts as `system:node:NAME` in group `system:nodes`.
pub async fn run(
    config: KubeletConfig,
    cluster: Arc<dyn Cluster>,
    runtime: Arc<dyn Runtime>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let config = Arc::new(config);
    let root = config.root.clone();
    let made = tokio::task::spawn_blocking(move || private_dir(&root))
        .await
        .map_err(Failure::internal)?;
    made.map_err(|e| Failure::Internal(format!("the kubelet's folder {}: {e}", config.root.display())))?;
    let caller = config.caller();
    let capacity = node::capacity(&config);
    let info = loop {
        match runtime.info().await {
            Ok(info) => break info,
            Err(failure) => tracing::warn!("the container runtime does not answer yet: {failure}"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return Ok(()),
        }
    };
    let shared = Arc::new(Shared {
        layout: config.files(),
        reader: Reader {
            cluster: cluster.clone(),
            caller: caller.clone(),
        },
        runtime: runtime.clone(),
        node: Arc::new(NodeFacts {
            ip: config.node_ip.to_string(),
            runtime: info.name,
        }),
        allocatable: capacity.clone(),
        events: Events::start(cluster.clone(), caller.clone(), config.node_name.clone()),
        starts: Semaphore::new(config.parallel_starts.max(1)),
        dns: config.cluster_dns.iter().map(ToString::to_string).collect(),
        memory: node::memory(),
        config: config.clone(),
    });
    let node = Node {
        config,
        cluster,
        caller,
        runtime,
        capacity,
    };
    let pods = Pods {
        shared,
        workers: HashMap::new(),
        tasks: JoinSet::new(),
        held: HashMap::new(),
    };
    tokio::join!(node.keep(stop.clone()), pods.keep(stop));
    Ok(())
}

/// Logs, exec, attach and port-forward of the pods of a kubelet with this configuration, and its own pages.
pub fn streams(config: &KubeletConfig, cluster: Arc<dyn Cluster>, runtime: Arc<dyn Runtime>) -> Arc<dyn NodeStreams> {
    Arc::new(Streams::new(config, cluster, runtime))
}

struct Pods {
    shared: Arc<Shared>,
    /// By uid.
    workers: HashMap<String, Known>,
    /// End with the uid of the pod they were for.
    tasks: JoinSet<String>,
    /// What the runtime held at the start and nobody has claimed yet, by uid.
    held: HashMap<String, PodFacts>,
}

struct Known {
    inbox: mpsc::Sender<Happened>,
    namespace: String,
    name: String,
}

impl Pods {
    async fn keep(mut self, stop: CancellationToken) {
        let mut changes = self.shared.runtime.changes();
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.take_stock() => {}
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow(&mut changes) => {}
        }
    }

    async fn take_stock(&mut self) {
        loop {
            match self.shared.runtime.list().await {
                Ok(list) => {
                    self.held = list.into_iter().map(|facts| (facts.pod.uid.clone(), facts)).collect();
                    return;
                }
                Err(failure) => {
                    tracing::warn!("the container runtime does not list its pods: {failure}")
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn follow(&mut self, changes: &mut futures::stream::BoxStream<'static, PodFacts>) {
        let Reader { cluster, caller } = &self.shared.reader;
        let of = Collection::all(Gvr::new("", "v1", "pods"));
        let here = format!("spec.nodeName={}", self.shared.config.node_name);
        let mut news = client::follow(cluster.clone(), caller.clone(), of, &here);
        loop {
            tokio::select! {
                Some(news) = news.next() => match news {
                    News::Restarted { objects, .. } => self.tell_all(&objects).await,
                    News::Changed(object) => self.tell(&object).await,
                    News::Removed(object) => self.removed(&object.uid.0).await,
                    News::UpTo(_) | News::Failed(_) => {}
                },
                Some(facts) = changes.next() => self.runtime_says(facts).await,
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(uid) => drop(self.workers.remove(&uid)),
                    Err(e) => tracing::error!("a pod's worker panicked: {e}"),
                },
            }
        }
    }

    async fn tell_all(&mut self, objects: &[Arc<Object>]) {
        for object in objects {
            self.tell(object).await;
        }
        let there: HashSet<&str> = objects.iter().map(|object| object.uid.0.as_str()).collect();
        let gone: Vec<String> = self
            .workers
            .keys()
            .filter(|uid| !there.contains(uid.as_str()))
            .cloned()
            .collect();
        for uid in gone {
            self.removed(&uid).await;
        }
        self.end_orphans();
    }

    /// What runs and has no object any more.
    fn end_orphans(&mut self) {
        for (_, facts) in self.held.drain() {
            let runtime = self.shared.runtime.clone();
            let layout = self.shared.layout.clone();
            tracing::info!(
                pod = facts.pod.name,
                "ending a pod that was deleted while this node was away"
            );
            self.tasks.spawn(async move {
                for c in &facts.containers {
                    let _ = runtime.stop_container(&c.id, Duration::from_secs(2)).await;
                }
                if let Err(failure) = runtime.remove_sandbox(&facts.sandbox.id).await {
                    tracing::warn!("cannot remove the sandbox of {}: {failure}", facts.pod.name);
                }
                let _ = tokio::fs::remove_dir_all(layout.pod(&facts.pod.uid)).await;
                let _ = tokio::fs::remove_dir_all(layout.pod_logs(&facts.pod)).await;
                String::new()
            });
        }
    }

    async fn tell(&mut self, object: &Arc<Object>) {
        let pod = match pod_of(object) {
            Ok(pod) => Arc::new(pod),
            Err(failure) => {
                tracing::error!("{} cannot be read, it will not run: {failure}", object.key);
                return;
            }
        };
        let uid = pod.metadata.uid.clone();
        if let Some(known) = self.workers.get(&uid) {
            // A worker that has just ended takes nothing; its pod is over.
            let _ = known.inbox.send(Happened::Spec(pod)).await;
            return;
        }
        let facts = self.held.remove(&uid);
        // Over, and nothing of it is left here: there is nothing to do until it is deleted.
        let (inbox, receive) = mpsc::channel(INBOX);
        let state = PodState::new(pod.clone(), facts.as_ref(), self.shared.node.clone(), Timestamp::now());
        let known = Known {
            inbox,
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
        };
        // The first look at the object itself: it may be marked for deletion already.
        let _ = known.inbox.try_send(Happened::Spec(pod));
        self.workers.insert(uid.clone(), known);
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            worker::run(shared, state, receive).await;
            uid
        });
    }

    async fn removed(&mut self, uid: &str) {
        if let Some(known) = self.workers.get(uid) {
            tracing::debug!(
                namespace = known.namespace,
                pod = known.name,
                "the pod's object is gone"
            );
            let _ = known.inbox.send(Happened::Removed).await;
        }
    }

    async fn runtime_says(&mut self, facts: PodFacts) {
        if let Some(known) = self.workers.get(&facts.pod.uid) {
            let _ = known.inbox.send(Happened::Facts(facts)).await;
        }
    }
}

/// The object, with what is null taken as absent.
fn pod_of(object: &Object) -> Result<Pod, Failure> {
    fn without_nulls(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|_, v| !v.is_null());
                map.values_mut().for_each(without_nulls);
            }
            Value::Array(list) => list.iter_mut().for_each(without_nulls),
            _ => {}
        }
    }
    let mut value = object.value();
    without_nulls(&mut value);
    serde_json::from_value(value).map_err(Failure::internal)
}
