//! What one pod's change costs in a ReplicaSet of 50 and of 5,000: runs, calls, bytes across the wall, CPU.
//!
//! `cargo run -p controllers --example one_change [-- target/guests/controller-replicaset.wasm]`: with a component the
//! decision is made in its sandbox, without one by a native stand-in that asks the same kind of questions. The cluster
//! is the fake one in this process, whose own work for each write is in the CPU figure too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use client::fake::Fake;
use controllers::{
    Asked, Controller, Guest, Intent, Observer, Options, Outcome, Precondition, Reconciler, Request, Run,
};
use model::{Caller, Failure, Gvk};
use nix::sys::resource::{UsageWho, getrusage};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use view::{AllGranted, RecordedView, Selection, View};

const CHANGES: usize = 300;

#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    runs: usize,
    calls: usize,
    bytes: usize,
    in_calls: Duration,
}

#[derive(Default)]
struct Meter {
    total: Mutex<Cost>,
    ended: watch::Sender<usize>,
}

impl Observer for Meter {
    fn ran(&self, run: &Run<'_>) {
        let (calls, answered) = run.view.cost();
        let returned = run
            .answer
            .as_ref()
            .map_or(0, |outcome| serde_json::to_vec(outcome).map_or(0, |json| json.len()));
        let mut total = self.total.lock();
        total.runs += 1;
        total.calls += calls;
        total.bytes += answered + returned;
        total.in_calls += run.took;
        drop(total);
        self.ended.send_modify(|n| *n += 1);
    }
}

/// Counts ready pods and says so in the status.
struct Native(watch::Sender<u64>);

#[async_trait]
impl Reconciler for Native {
    fn subject(&self) -> Option<Gvk> {
        Gvk::parse("apps/v1/ReplicaSet")
    }

    fn revision(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    async fn reconcile(&self, request: &Request, view: Arc<RecordedView>) -> Result<Outcome, Failure> {
        let key = &request.key;
        let pods = Gvk::new("", "v1", "Pod");
        view.get(
            &key.kind,
            &key.namespace,
            &key.name,
            ".metadata.uid .spec.replicas .status",
        )?;
        let which =
            Selection::namespace(&key.namespace).equals(".metadata.ownerReferences[controller=true].uid", "set");
        let by = ".status.phase .metadata.deletionTimestamp? .status.conditions[type=Ready].status";
        let tally = view.tally(&pods, &which, by, "")?;
        let body = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": key.name, "namespace": key.namespace}, "status": {"seen": fingerprint(&tally)},
        });
        let intents = vec![Intent::SetStatus {
            body: body.to_string().into(),
            when: Precondition::Uid("set".into()),
        }];
        Ok(Outcome {
            intents,
            memo: Bytes::new(),
        })
    }
}

fn fingerprint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

fn pod(n: usize, ready: bool) -> Value {
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}]);
    let status = if ready { "True" } else { "False" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{n}"), "labels": {"app": "web"}, "ownerReferences": owner},
        "spec": {"nodeName": format!("node-{}", n % 100), "containers": [{"name": "c", "image": "busybox:1", "env": [{"name": "A", "value": "x".repeat(600)}]}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    })
}

fn set(replicas: usize) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}});
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "uid": "set"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    })
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel counts it");
    let time = |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

async fn measure(component: Option<&Arc<[u8]>>, members: usize) -> anyhow::Result<(Cost, Duration)> {
    let fake = Fake::new();
    fake.put(set(members));
    for n in 0..members {
        fake.put(pod(n, true));
    }
    let view = View::new(
        fake.cluster(),
        Caller::component("system:view", &[]),
        view::system_time(),
    );
    let meter = Arc::new(Meter::default());
    let (reconciler, grants): (Arc<dyn Reconciler>, Arc<dyn view::Grants>) = match component {
        None => (Arc::new(Native(watch::Sender::new(0))), Arc::new(AllGranted)),
        Some(component) => {
            let plugin = load(component.clone()).await?;
            (Guest::new(plugin.clone()), Arc::new(Asked(plugin)))
        }
    };
    let options = Options {
        name: "replicaset".into(),
        cluster: fake.cluster(),
        view,
        grants,
        at_once: 1,
        term: None,
        observer: Some(meter.clone()),
    };
    let controller = Controller::start(reconciler, options);
    quiet(&controller, &meter).await;
    *meter.total.lock() = Cost::default();
    let began = cpu();
    for n in 0..CHANGES {
        let before = *meter.ended.borrow();
        let at = n * 7 % members;
        let was = fake.object(&model::ObjectKey::new(
            model::GroupResource::new("", "pods"),
            "default",
            &format!("web-{at}"),
        ));
        let ready = was.is_some_and(|was| was.value()["status"]["conditions"][0]["status"] == "True");
        fake.put(pod(at, !ready));
        meter.ended.subscribe().wait_for(|ended| *ended > before).await?;
        quiet(&controller, &meter).await;
    }
    let spent = cpu() - began;
    let faults = controller.figures().faults;
    anyhow::ensure!(faults == 0, "{faults} calls did not end well");
    Ok((*meter.total.lock(), spent))
}

/// Until nothing runs and nothing waits.
async fn quiet(controller: &Controller, meter: &Meter) {
    let mut still = 0;
    while still < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let figures = controller.figures();
        let done = figures.waiting == 0 && figures.runs > 0 && figures.runs as usize <= *meter.ended.borrow();
        still = if done { still + 1 } else { 0 };
    }
}

async fn load(component: Arc<[u8]>) -> anyhow::Result<Arc<plugin::Plugin>> {
    let cache = std::env::temp_dir().join(format!("pilotis-one-change-{}", std::process::id()));
    let host = plugin::Host::new(&cache)?;
    let plugin = plugin::Plugin::new(plugin::PluginName::new("replicaset"));
    let load = plugin::Load {
        name: plugin::PluginName::new("replicaset"),
        component,
        config: "{}".into(),
        grants: plugin::Grants::All,
        limits: None,
        world: plugin::World::Controller,
        figures: plugin.figures().clone(),
    };
    plugin.swap(host.load(load).await?);
    Ok(plugin)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let component: Option<Arc<[u8]>> = match std::env::args().nth(1) {
        Some(path) => Some(std::fs::read(path)?.into()),
        None => None,
    };
    println!(
        "{:>8} {:>8} {:>8} {:>10} {:>12} {:>12}",
        "pods", "runs", "calls", "bytes", "call µs", "CPU µs"
    );
    let mut of_50 = None;
    for members in [50, 5_000] {
        let (cost, spent) = measure(component.as_ref(), members).await?;
        let each = |total: f64| total / CHANGES as f64;
        let (runs, calls, bytes) = (each(cost.runs as f64), each(cost.calls as f64), each(cost.bytes as f64));
        let (call, cpu) = (each(cost.in_calls.as_secs_f64() * 1e6), each(spent.as_secs_f64() * 1e6));
        println!("{members:>8} {runs:>8.2} {calls:>8.2} {bytes:>10.0} {call:>12.1} {cpu:>12.1}");
        match of_50 {
            None => of_50 = Some((calls, bytes, cpu)),
            Some((c, b, u)) => println!(
                "   ratio          {:>8.2} {:>10.2} {:>25.2}",
                calls / c,
                bytes / b,
                cpu / u
            ),
        }
    }
    Ok(())
}
