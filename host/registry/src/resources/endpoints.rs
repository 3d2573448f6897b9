//! Endpoints: a Service's addresses in the old form, still read by older programs.

use serde_json::Value;

use crate::resource::Resource;
use crate::table::{Column, list_at, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "Endpoints", "endpoints")
        .short(&["ep"])
        .stored_under("/registry/services/endpoints/")
        .no_generation()
        .create_on_update()
        .columns(vec![
            Column::computed("Endpoints", |o, _| addresses(o).into()).about("Addresses that are ready."),
            Column::age(),
        ])
}

/// The first three, and how many more there are.
pub(crate) fn shorten(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".into(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in list_at(endpoints, "subsets") {
        for address in list_at(subset, "addresses") {
            let ip = text_at(address, "ip");
            let host = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            };
            match list_at(subset, "ports") {
                [] => all.push(host),
                ports => all.extend(ports.iter().map(|p| format!("{host}:{}", p["port"]))),
            }
        }
    }
    shorten(&all)
}
