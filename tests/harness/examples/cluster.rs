//! A whole cluster's figures: first and second start to ready, created to bound through the API, idle memory.
//!
//! `PILOTIS_BIN` says which binary; `cargo xtask bench cluster` builds it in release first.

use std::time::{Duration, Instant};

use harness::{TestCluster, eventually, root};
use serde_json::json;

fn main() {
    let begun = Instant::now();
    let mut cluster = TestCluster::wasm();
    // Imports of the test images included; they are a few milliseconds each.
    figure("first start to ready", begun.elapsed().as_secs_f64() * 1e3, "ms");
    cluster.down();
    let begun = Instant::now();
    cluster.up();
    figure("second start to ready", begun.elapsed().as_secs_f64() * 1e3, "ms");

    let begun = Instant::now();
    cluster.kubectl(&[
        "apply",
        "-f",
        &root().join("tests/manifests/hello.yaml").display().to_string(),
    ]);
    cluster.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"]);
    figure(
        "kubectl apply to rolled out, 3 Wasm pods",
        begun.elapsed().as_secs_f64() * 1e3,
        "ms",
    );

    // The bar is for a cluster that has been left alone: no request, no rollout, for a minute.
    std::thread::sleep(Duration::from_secs(60));
    let sizes: Vec<f64> = cluster.processes().iter().filter_map(|(pid, _)| pss(*pid)).collect();
    figure(
        "idle memory, PSS of all processes, hello running",
        sizes.iter().sum::<f64>() / 1e6,
        "MB",
    );
    figure(
        "of it the largest process",
        sizes.iter().copied().fold(0.0, f64::max) / 1e6,
        "MB",
    );
    drop(cluster);

    const PODS: usize = 1000;
    let cluster = TestCluster::fake(12);
    cluster.kubectl(&["create", "deployment", "many", "--image=fake", "--replicas=0"]);
    let begun = Instant::now();
    cluster.kubectl(&["scale", "deploy/many", &format!("--replicas={PODS}")]);
    eventually("all pods are bound", Duration::from_secs(120), || {
        let names = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]);
        let bound = names.split_whitespace().count();
        if bound == PODS {
            Ok(())
        } else {
            Err(format!("{bound} of {PODS}"))
        }
    });
    let rate = PODS as f64 / begun.elapsed().as_secs_f64();
    figure("created to bound through a Deployment, 12 fake nodes", rate, "pods/s");
}

/// Proportional set size in bytes; `None` once the process is gone.
fn pss(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
}

fn figure(what: &str, value: f64, unit: &str) {
    println!(
        "{}",
        json!({"bench": "cluster", "what": what, "value": value, "unit": unit})
    );
}
