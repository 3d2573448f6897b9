//! What one pod's change costs in a ReplicaSet of 50 and of 5,000: runs, calls, bytes across the wall, CPU.
//!
//! `cargo run -p controllers --example one_change [-- COMPONENT]`, without one `target/guests/controller-replicaset.wasm`. The
//! cluster is the fake one in this process, whose own work for each write is in the CPU figure too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::fake::Fake;
use controllers::{Asked, Controller, Guest, Observer, Options, Run};
use model::Caller;
use nix::sys::resource::{UsageWho, getrusage};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use view::View;

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

async fn measure(component: &Arc<[u8]>, members: usize) -> anyhow::Result<(Cost, Duration)> {
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
    let plugin = load(component.clone()).await?;
    let options = Options {
        name: "replicaset".into(),
        cluster: fake.cluster(),
        view,
        grants: Arc::new(Asked(plugin.clone())),
        at_once: 1,
        term: None,
        observer: Some(meter.clone()),
    };
    let controller = Controller::start(Guest::new(plugin), options);
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
    let built = || {
        PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../target/guests/controller-replicaset.wasm"
        ))
    };
    let path = std::env::args().nth(1).map_or_else(built, PathBuf::from);
    let component =
        std::fs::read(&path).with_context(|| format!("{}; `cargo xtask guests` builds it", path.display()))?;
    let component: Arc<[u8]> = component.into();
    let mut of_50: Option<[(&str, f64, &str); 5]> = None;
    for members in [50, 5_000] {
        let (cost, spent) = measure(&component, members).await?;
        let each = |total: f64| total / CHANGES as f64;
        let now = [
            ("runs", each(cost.runs as f64), "runs"),
            ("calls", each(cost.calls as f64), "calls"),
            ("bytes across the wall", each(cost.bytes as f64), "B"),
            ("time in calls", each(cost.in_calls.as_secs_f64() * 1e6), "µs"),
            ("processor time", each(spent.as_secs_f64() * 1e6), "µs"),
        ];
        for (i, (what, value, unit)) in now.into_iter().enumerate() {
            let mut figure = json!({
                "bench": "one-change", "what": format!("one pod of {members}: {what}"), "value": value, "unit": unit,
            });
            if let Some((_, few, _)) = of_50.map(|of_50| of_50[i]) {
                figure["peer"] = "one pod of 50".into();
                figure["peer_value"] = few.into();
                figure["ratio"] = (value / few).into();
            }
            println!("{figure}");
        }
        of_50 = Some(now);
    }
    Ok(())
}
