//! Definitions that change while their objects are in use, and what many of them cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use client::{PatchKind, WatchEvent, WatchOptions};
use model::{Failure, Gvr, Kind};
use serde_json::{Value, json};

use super::support::*;
use crate::gates::Convert;

const DEFINITIONS: &str = "apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of the size operators have: some fifty fields, descriptions, two rules.
fn definition(at: usize) -> Value {
    let fields: serde_json::Map<String, Value> = (0..50)
        .map(|i| {
            let about = "What it is for, in about as many words as people take to say so, or some more.";
            (
                format!("field{i}"),
                json!({"type": "string", "description": about, "maxLength": 64, "pattern": "^[a-z0-9-]*$"}),
            )
        })
        .collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("things{at}.load.example.com")},
        "spec": {"group": "load.example.com", "scope": "Namespaced", "names": {"plural": format!("things{at}"), "kind": format!("Thing{at}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": fields, "x-kubernetes-validations": [
                        {"rule": "!has(self.field1) || self.field1 != 'x'", "message": "x is taken"},
                        {"rule": "!has(oldSelf.field2) || has(self.field2)"}]},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

async fn served(registry: &crate::Registry, group: &str, plural: &str) {
    let mut kinds = registry.kinds_version();
    let looked_for = Gvr::new(group, "v1", plural);
    let wait = async {
        while registry.resource(&looked_for).is_none() {
            kinds.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("the kind is served");
}

#[tokio::test]
async fn rules_and_ratcheting_hold_at_the_door() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create(DEFINITIONS, definition(0)).await.unwrap();
    served(&registry, "load.example.com", "things0").await;
    let thing = |field: &str, value: &str| json!({"apiVersion": "load.example.com/v1", "kind": "Thing0", "metadata": {"name": "a"}, "spec": {field: value}});
    let of = "load.example.com/v1/things0/default";
    let failure = shop.create(of, thing("field1", "x")).await.unwrap_err().to_string();
    assert_eq!(
        failure,
        "Thing0.load.example.com \"a\" is invalid: spec: Invalid value: x is taken"
    );
    shop.create(of, thing("field2", "y")).await.unwrap();
    let gone = shop
        .patch(&format!("{of}/a"), PatchKind::Merge, json!({"spec": {"field2": null}}))
        .await;
    assert!(
        gone.unwrap_err()
            .to_string()
            .contains("failed rule: !has(oldSelf.field2)")
    );

    // A rule that came later is held against what changes, and not against what was there.
    let mut stricter = shop
        .get(&format!("{DEFINITIONS}//things0.load.example.com"))
        .await
        .unwrap();
    stricter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["field2"]["minLength"] =
        3.into();
    shop.update(&format!("{DEFINITIONS}//things0.load.example.com"), &stricter)
        .await
        .unwrap();
    let narrow = async {
        while shop.create(of, thing("field2", "z")).await.is_ok() {
            shop.delete(&format!("{of}/a")).await.unwrap();
            shop.create(of, thing("field2", "y")).await.ok();
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), narrow).await;
    let kept = shop
        .patch(
            &format!("{of}/a"),
            PatchKind::Merge,
            json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await;
    kept.expect("what did not change is not complained of");
}

#[tokio::test]
async fn a_rule_that_does_not_compile_is_refused_with_its_place() {
    let registry = open().await;
    let shop = Shop(&registry);
    let mut wrong = definition(0);
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"][0]["rule"] =
        "self.nope == 1".into();
    let failure = shop.create(DEFINITIONS, wrong).await.unwrap_err().to_string();
    let place = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value";
    assert!(
        failure.contains(place) && failure.contains("undefined field 'nope'"),
        "{failure}"
    );
}

#[tokio::test]
async fn defaults_declared_later_are_filled_in_when_read() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create(DEFINITIONS, definition(0)).await.unwrap();
    served(&registry, "load.example.com", "things0").await;
    let of = "load.example.com/v1/things0/default";
    let thing = json!({"apiVersion": "load.example.com/v1", "kind": "Thing0", "metadata": {"name": "a"}, "spec": {"field1": "b"}});
    shop.create(of, thing).await.unwrap();
    let name = format!("{DEFINITIONS}//things0.load.example.com");
    let mut more = shop.get(&name).await.unwrap();
    more["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["field3"]["default"] =
        "here".into();
    shop.update(&name, &more).await.unwrap();
    let filled = async {
        let mut kinds = registry.kinds_version();
        while shop.get(&format!("{of}/a")).await.unwrap()["spec"]["field3"] != "here" {
            kinds.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), filled)
        .await
        .expect("the default appears");
    let listed = shop
        .list(of.trim_end_matches("/default"), Default::default())
        .await
        .unwrap();
    assert_eq!(listed.items[0].value()["spec"]["field3"], "here");
}

/// Adds a field to what it converts, or refuses.
struct Converter;

#[async_trait]
impl Convert for Converter {
    async fn convert(&self, kind: &Kind, mut object: Value, to: &str) -> Result<Value, Failure> {
        if object["spec"]["field1"] == "poison" {
            return Err(Failure::Internal(format!(
                "conversion webhook for {} failed: poison",
                kind.gvk.kind
            )));
        }
        object["spec"]["field2"] = "converted".into();
        object["apiVersion"] = to.into();
        Ok(object)
    }
}

#[tokio::test]
async fn versions_are_converted_and_a_failure_is_told() {
    let mut options = options();
    options.convert = Some(Arc::new(Converter));
    let registry = open_with(options).await;
    let shop = Shop(&registry);
    let mut two = definition(0);
    let mut second = two["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    two["spec"]["versions"].as_array_mut().unwrap().push(second);
    two["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://localhost/x"}}});
    shop.create(DEFINITIONS, two).await.unwrap();
    served(&registry, "load.example.com", "things0").await;
    let thing = |name: &str, value: &str| json!({"apiVersion": "load.example.com/v1", "kind": "Thing0", "metadata": {"name": name}, "spec": {"field1": value}});
    shop.create("load.example.com/v1/things0/default", thing("a", "b"))
        .await
        .unwrap();
    let second = shop.get("load.example.com/v2/things0/default/a").await.unwrap();
    assert_eq!(
        (&second["apiVersion"], &second["spec"]["field2"]),
        (&json!("load.example.com/v2"), &json!("converted"))
    );
    shop.create("load.example.com/v1/things0/default", thing("p", "poison"))
        .await
        .unwrap();
    let failure = shop
        .get("load.example.com/v2/things0/default/p")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        failure.contains("conversion webhook for Thing0 failed: poison"),
        "{failure}"
    );
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse().ok())
        .unwrap_or_default()
}

/// Definitions come while others watch: nobody's watch ends, and each sees what it watches. `DEFINITIONS=1000` for figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_come_while_others_watch() {
    let count: usize = std::env::var("DEFINITIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create(DEFINITIONS, definition(0)).await.unwrap();
    served(&registry, "load.example.com", "things0").await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(
            shop.watch("load.example.com/v1/things0", WatchOptions::default())
                .await
                .unwrap(),
        );
    }
    let (before, began) = (resident(), Instant::now());
    for at in 1..=count {
        shop.create(DEFINITIONS, definition(at)).await.unwrap();
    }
    served(&registry, "load.example.com", &format!("things{count}")).await;
    let took = began.elapsed();
    let each = resident().saturating_sub(before) / count as u64;
    eprintln!("{count} definitions while 100 watch: {took:?}, {each} KB resident each");
    let thing = json!({"apiVersion": "load.example.com/v1", "kind": "Thing0", "metadata": {"name": "a"}, "spec": {}});
    shop.create("load.example.com/v1/things0/default", thing).await.unwrap();
    for watch in &mut watches {
        match super::support::event(watch).await {
            Some(Ok(WatchEvent::Added(object))) => assert_eq!(object.key.name, "a"),
            other => panic!("a watch ended: {other:?}"),
        }
    }
    let object = json!({"spec": {"field1": "abc", "field2": "def"}});
    let schema = registry
        .resource(&Gvr::new("load.example.com", "v1", "things0"))
        .unwrap()
        .schema
        .clone();
    let began = Instant::now();
    let rounds = 1000;
    for _ in 0..rounds {
        assert!(schema.validate_update(&object, &object).is_empty());
    }
    eprintln!("an update validated, two rules: {:?}", began.elapsed() / rounds);
}
