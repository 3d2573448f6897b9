//! Pods bound per second in a large cluster: `cargo run --release --example binding -p pilotis`. One JSON object a line.
//!
//! 5,000 nodes with ten pods each, and 20,000 pods that wait, in the real registry on the embedded store in a folder of its own
//! on the disk of the build. The scheduler as the binary runs it, with both policies as components, is started then. A pod
//! counts when a watch shows it on a node: its binding was synced to disk before. Access control and admission let everything
//! pass; what they cost is in the bench `cluster`, which goes through the API.
//!
//! No peer runs beside it. What Kubernetes says of itself: its scheduler_perf takes less than 270 pods/s for a regression
//! (`SchedulingBasic/5000Nodes_10000Pods`, test/integration/scheduler_perf/README.md).

#[expect(dead_code, reason = "here the cluster is in the registry")]
#[path = "../../scheduler/examples/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Action, Cluster, Collection, ListOptions, Target, WatchEvent, WatchOptions, Write, WriteOptions};
use common::{DEPLOYMENTS, PODS_A_NODE, node, node_name, plugins, pod, pods_there};
use futures::{StreamExt, TryStreamExt, stream};
use model::{Caller, Gvr};
use plugin::Host;
use registry::{AdmitAll, AllowAll, NoAudit, Options, Registry};
use scheduler::Guest;
use scheduler::policy::Policy;
use serde_json::Value;
use store::embedded;
use tokio::sync::{mpsc, oneshot};

const NODES: usize = 5_000;
const WAITING: usize = 20_000;
/// Creates under way at a time, before the clock starts.
const AT_ONCE: usize = 512;
/// The scheduler works without a pause: when nothing is bound for so long, something is wrong.
const STILL: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(LIMIT, run())
            .await
            .expect("all pods are bound within ten minutes")
    });
}

async fn run() {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let dir = tempfile::tempdir_in(build).expect("a folder");
    let store = Arc::new(embedded::open(&dir.path().join("store"), embedded::Options::default()).expect("a store"));
    let options = Options::new(Arc::new(AllowAll), Arc::new(AdmitAll), Arc::new(NoAudit));
    let registry = Registry::open(store.clone(), options).await.expect("a registry");
    let cluster: Arc<dyn Cluster> = Arc::new(registry);
    let caller = Caller::component("system:bench", &[]);

    let there = pods_there(NODES).map(|(mut pod, on)| {
        pod["spec"]["nodeName"] = node_name(on).into();
        pod
    });
    let first = NODES * PODS_A_NODE;
    let waiting = (first..first + WAITING).map(|n| pod(n, n % DEPLOYMENTS));
    create(&cluster, &caller, "nodes", (0..NODES).map(node)).await;
    create(&cluster, &caller, "pods", there.chain(waiting)).await;

    let all = Collection::all(Gvr::new("", "v1", "pods"));
    let one = ListOptions {
        limit: 1,
        ..ListOptions::default()
    };
    let from = cluster.list(&caller, &all, &one).await.expect("a list").version;
    let options = WatchOptions {
        from: Some(from),
        ..WatchOptions::default()
    };
    let mut events = cluster.watch(&caller, &all, &options).await.expect("a watch");

    let cache = tempfile::tempdir().expect("a folder");
    let host = Host::new(cache.path()).expect("a host");
    let mut chain: Vec<Box<dyn Policy>> = Vec::new();
    for plugin in plugins(&host).await {
        chain.push(Box::new(Guest::start(plugin, None).await.expect("it starts")));
    }
    let (to_scheduler, policies) = mpsc::channel(1);
    let _ = to_scheduler.send(chain).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let before = store.log_syncs();
    let started = Instant::now();
    let scheduler = tokio::spawn(scheduler::run(
        scheduler::Config::default(),
        cluster.clone(),
        policies,
        async {
            let _ = stopped.await;
        },
    ));

    let mut bound: HashMap<String, String> = HashMap::new();
    let mut first = None;
    while bound.len() < WAITING {
        let Ok(event) = tokio::time::timeout(STILL, events.next()).await else {
            panic!(
                "{} of {WAITING} pods are bound, and nothing happens any more",
                bound.len()
            );
        };
        let event = event.expect("the watch goes on").expect("an event");
        let WatchEvent::Modified(object) = event else { continue };
        let value: Value = object.parse().expect("JSON");
        let Some(node) = value["spec"]["nodeName"].as_str() else {
            continue;
        };
        first.get_or_insert_with(Instant::now);
        let earlier = bound.insert(object.key.name.to_string(), node.to_owned());
        assert!(
            earlier.is_none_or(|earlier| earlier == node),
            "{} was bound twice",
            object.key
        );
    }
    let ended = Instant::now();
    let syncs = store.log_syncs() - before;
    let placing = ended - first.expect("a first one");
    say(
        "pods bound, 5,000 nodes, 50,000 pods there",
        WAITING as f64 / placing.as_secs_f64(),
        "pods/s",
    );
    say(
        "pods bound for each fsync, events included",
        WAITING as f64 / syncs as f64,
        "pods",
    );
    say("fsyncs meanwhile", syncs as f64, "fsyncs");
    say(
        "from the scheduler's start to the first binding (lists, two mirrors)",
        first.map_or(0.0, |first| (first - started).as_secs_f64() * 1e3),
        "ms",
    );
    drop(stop);
    scheduler.await.expect("it ends by itself");
}

async fn create(cluster: &Arc<dyn Cluster>, caller: &Caller, resource: &str, objects: impl Iterator<Item = Value>) {
    let one = |object: Value| {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let write = Write {
            target: Target::new(
                Gvr::new("", "v1", resource),
                &text("/metadata/namespace"),
                &text("/metadata/name"),
            ),
            action: Action::Create(object.to_string().into()),
            options: WriteOptions::default(),
        };
        let (cluster, caller) = (cluster.clone(), caller.clone());
        async move { cluster.write(&caller, write).await.map(drop) }
    };
    let all = stream::iter(objects.map(one)).buffer_unordered(AT_ONCE);
    all.try_collect::<Vec<()>>().await.expect("they are created");
}

fn say(what: &str, value: f64, unit: &str) {
    common::say("binding", what, value, unit);
}
