//! CSINode: which storage drivers run on a node, and what they call it. Its name is the node's.

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::csidriver::driver_name;
use crate::table::{Column, list_at, text_at};

const LONGEST_ID: usize = 256;

pub(crate) fn resource() -> Resource {
    Resource::cluster("storage.k8s.io", "v1", "CSINode", "csinodes")
        .no_generation()
        .columns(vec![
            Column::counted("Drivers", |o, _| list_at(o, "spec.drivers").len().into())
                .about("How many drivers are registered on the node."),
            Column::age(),
        ])
        .conditional_updates()
        .validate(validate)
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    let mut names: Vec<&str> = Vec::new();
    spec.each("drivers", |mut driver| {
        let name = driver.text("name");
        driver.with("name", driver_name);
        if names.contains(&name) {
            driver.under("name").duplicate();
        }
        names.push(name);
        if driver.need("nodeID", "") && driver.text("nodeID").len() > LONGEST_ID {
            let says = format!("must be {LONGEST_ID} characters or less");
            driver.under("nodeID").invalid(&says);
        }
        driver.at_least("allocatable.count", 0);
        let mut keys: Vec<&Value> = Vec::new();
        driver.each("topologyKeys", |mut key| {
            if keys.contains(&key.value) {
                key.duplicate();
            }
            keys.push(key.value);
            key.fits(text::qualified_name);
        });
    });
    // A driver stays what it is for as long as it is listed, its count apart.
    let same = |driver: &Value| {
        let mut rest = driver.clone();
        crate::meta::put(&mut rest, "allocatable", None);
        rest
    };
    for before in old.map(|o| list_at(o, "spec.drivers")).unwrap_or_default() {
        let now = spec.list("drivers").iter().find(|d| d["name"] == before["name"]);
        if let Some(now) = now.filter(|now| same(now) != same(before)) {
            let field = spec.path_of("drivers");
            spec.push(Cause::invalid(field, text_at(now, "name"), "field is immutable"));
        }
    }
}
