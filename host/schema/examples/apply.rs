//! What decoding a pod, applying a deployment and tracking an update cost, and what the table costs to load.
//! `cargo run --release -p schema --example apply`

use std::hint::black_box;
use std::time::Instant;

use model::{GroupResource, Gvk, ObjectKey};
use schema::{Schema, Table, apply, strategic};
use serde_json::{Value, json};

const NOW: &str = "2026-01-02T03:04:05Z";

fn main() {
    let (start, before) = (Instant::now(), resident());
    let table = Table::builtin();
    let (kinds, took) = (table.kinds().count(), start.elapsed());
    println!(
        "table of {kinds} kinds: {:.2} ms, {} KiB resident",
        took.as_secs_f64() * 1e3,
        resident().saturating_sub(before)
    );

    let pod_schema = schema_of("v1/Pod");
    let pod = include_bytes!("../../model/examples/pod.json");
    println!(
        "decode a pod of {} bytes: {:.1} µs",
        pod.len(),
        time(|| drop(black_box(pod_schema.decode(black_box(pod)))))
    );
    println!(
        "  of which parsing: {:.1} µs",
        time(|| drop(black_box(serde_json::from_slice::<Value>(black_box(pod)))))
    );

    let deployment = schema_of("apps/v1/Deployment");
    let key = ObjectKey::new(GroupResource::new("apps", "deployments"), "default", "web");
    let config = |replicas: u32, image: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "web", "image": image, "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                    {"name": "log", "image": "log", "resources": {"limits": {"memory": "64Mi"}}},
                ]},
            }},
        })
    };
    let writer = |manager| apply::Writer {
        manager,
        subresource: "",
        time: NOW,
        resets: &["status"],
    };
    let (first, second) = (config(3, "a"), config(4, "b"));
    let mut live = apply::apply(&deployment, None, &first, writer("kubectl"), false, &key).expect("a first apply");
    deployment.conform(&mut live).expect("it fits");
    let again = || {
        apply::apply(
            &deployment,
            Some(&live),
            black_box(&second),
            writer("kubectl"),
            false,
            &key,
        )
    };
    println!(
        "apply a change of a deployment of {} bytes: {:.1} µs",
        live.to_string().len(),
        time(|| drop(black_box(again())))
    );
    let mut new = live.clone();
    new["spec"]["replicas"] = 9.into();
    let track = || {
        let mut new = new.clone();
        apply::track_update(&deployment, Some(&live), &mut new, writer("scaler")).expect("it is tracked");
        black_box(new);
    };
    println!("track an update of it: {:.1} µs", time(track));
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "c"}]}}}});
    let merge = || {
        let mut value = live.clone();
        strategic::merge(&deployment, &mut value, black_box(&patch)).expect("it merges");
        black_box(value);
    };
    println!("strategic merge of an image: {:.1} µs", time(merge));
}

fn schema_of(gvk: &str) -> Schema {
    Table::builtin()
        .schema(&Gvk::parse(gvk).expect("a kind"))
        .expect("a built-in kind")
}

/// The best of many rounds, in µs: this machine is shared.
fn time(mut what: impl FnMut()) -> f64 {
    let round = |what: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..100).for_each(|_| what());
        start.elapsed().as_secs_f64() * 1e4
    };
    (0..100).map(|_| round(&mut what)).fold(f64::MAX, f64::min)
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default()
}
