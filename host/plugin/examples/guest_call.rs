//! What the wall costs: `cargo run --example guest_call -p plugin [FOLDER OF GUESTS]`. One JSON object a line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin::reads::{NoReads, ObjectKey, Reads};
use plugin::world::controller::Request;
use plugin::{Controller, Grants, Host, Load, Plugin, PluginName, World};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let folder = std::env::args().nth(1).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guests")),
        PathBuf::from,
    );
    let component: Arc<[u8]> = std::fs::read(folder.join("well_behaved.wasm"))
        .expect("target/guests/well_behaved.wasm; `cargo xtask guests` builds it")
        .into();
    let cache = tempfile::tempdir().expect("a folder");
    let plugin = Plugin::new(PluginName::new("well-behaved"));
    let load = Load {
        name: plugin.name().clone(),
        component,
        config: "{}".into(),
        grants: Grants::All,
        limits: None,
        world: World::Controller,
        figures: plugin.figures().clone(),
    };
    let host = Host::new(cache.path()).expect("a host");
    plugin.swap(host.load(load.clone()).await.expect("it loads"));
    let controller = Controller::new(plugin.clone());
    // A cluster of one kind in memory, behind the house's own recorded view.
    let cluster = client::fake::Fake::new();
    for n in 0..10 {
        let data: serde_json::Map<_, _> = (0..4).map(|k| (format!("key-{k}"), "some text".into())).collect();
        cluster.put(serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{n}")}, "data": data}));
    }
    let caller = model::Caller::component("system:bench", &[]);
    let view = view::View::new(cluster.cluster(), caller, view::system_time());
    view.fill(&[model::Gvk::new("", "v1", "ConfigMap")])
        .await
        .expect("the view is filled");
    for reads in [0, 1, 10] {
        let request = Request {
            key: ObjectKey {
                kind: "v1/ConfigMap".into(),
                namespace: "default".into(),
                name: "one".into(),
            },
            refused: None,
            memo: reads.to_string().into_bytes(),
            now: 0,
        };
        // Rounds, and the best of them: what others do on this machine is not what is measured.
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            for _ in 0..5_000 {
                let seen: Box<dyn Reads> = match reads {
                    0 => Box::new(NoReads),
                    _ => Box::new(Arc::new(view.open(Arc::new(view::AllGranted)))),
                };
                let answer = controller.reconcile(&request, seen).await;
                std::hint::black_box(answer.expect("no fault").expect("an answer"));
            }
            best = best.min(started.elapsed() / 5_000);
        }
        say(
            &format!("reconcile with {reads} recorded reads"),
            best.as_nanos() as f64 / 1e3,
            "µs",
        );
    }

    let request = Request {
        key: ObjectKey {
            kind: "v1/ConfigMap".into(),
            namespace: "default".into(),
            name: "one".into(),
        },
        refused: None,
        memo: b"0".to_vec(),
        now: 0,
    };
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        for _ in 0..200 {
            std::hint::black_box(
                controller
                    .replay(&request, Box::new(NoReads))
                    .await
                    .expect("no fault")
                    .expect("an answer"),
            );
        }
        best = best.min(started.elapsed() / 200);
    }
    say(
        "in a fresh instance, made and configured",
        best.as_nanos() as f64 / 1e3,
        "µs",
    );

    // The largest gap one caller sees while revisions are exchanged.
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let caller = tokio::spawn({
        let (controller, stop) = (controller.clone(), stop.clone());
        async move {
            let request = Request {
                key: ObjectKey {
                    kind: "v1/ConfigMap".into(),
                    namespace: "default".into(),
                    name: "one".into(),
                },
                refused: None,
                memo: b"0".to_vec(),
                now: 0,
            };
            let (mut longest, mut last, mut calls) = (Duration::ZERO, Instant::now(), 0u64);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                controller
                    .reconcile(&request, Box::new(NoReads))
                    .await
                    .expect("no fault")
                    .expect("an answer");
                longest = longest.max(last.elapsed());
                last = Instant::now();
                calls += 1;
                tokio::task::yield_now().await;
            }
            (longest, calls)
        }
    });
    for n in 0..20 {
        let config = format!(r#"{{"greeting":"{n}"}}"#).into();
        let old = plugin.swap(host.load(Load { config, ..load.clone() }).await.expect("it loads"));
        old.expect("one served before").drained().await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (longest, calls) = caller.await.expect("no call is lost");
    say(
        "largest gap in 20 swaps of a controller",
        longest.as_secs_f64() * 1e3,
        "ms",
    );
    say("calls meanwhile, none lost", calls as f64, "calls");
}

fn say(what: &str, value: f64, unit: &str) {
    println!(
        "{}",
        serde_json::json!({"bench": "guest-call", "what": what, "value": (value * 1e3).round() / 1e3, "unit": unit})
    );
}
