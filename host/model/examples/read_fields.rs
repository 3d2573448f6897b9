//! How long it takes to read six fields of a pod from its bytes, beside parsing all of it.
//! `cargo run --release -p model --example read_fields`

use std::hint::black_box;
use std::time::Instant;

use model::FieldSet;
use serde_json::Value;

fn main() {
    let pod = include_bytes!("pod.json");
    let pod =
        serde_json::to_vec(&serde_json::from_slice::<Value>(pod).expect("the sample is JSON")).expect("it was JSON");
    let set = FieldSet::parse(&[
        ".metadata.name",
        ".metadata.labels[\"app.kubernetes.io/name\"]",
        ".spec.nodeName",
        ".status.phase",
        ".status.conditions[type=Ready].status",
        ".metadata.deletionTimestamp?",
    ])
    .expect("these are paths");
    let mut row = Vec::new();
    let fields = time(|| {
        set.read_into(black_box(&pod), &mut row);
        black_box(row.len());
    });
    let parse = time(|| {
        black_box(serde_json::from_slice::<Value>(black_box(&pod)).is_ok());
    });
    println!(
        "pod of {} bytes: {fields:.2} µs for {} fields, {parse:.2} µs to parse it",
        pod.len(),
        set.paths().len()
    );
}

/// The best of many rounds, in µs: this machine is shared.
fn time(mut what: impl FnMut()) -> f64 {
    let round = |what: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..1000).for_each(|_| what());
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..200).map(|_| round(&mut what)).fold(f64::MAX, f64::min)
}
