//! Custom kinds: they live and die with their definition.

use std::sync::Arc;

use client::{Cluster, ListOptions, PatchKind, WatchOptions};
use futures::StreamExt;
use model::{Failure, Gvr};
use serde_json::{Value, json};

use super::support::*;

fn crd() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "cats.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "cats", "kind": "Cat", "shortNames": ["ct"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.lives", "statusReplicasPath": ".status.lives"}},
                "additionalPrinterColumns": [{"name": "Lives", "type": "integer", "jsonPath": ".spec.lives"}],
                "selectableFields": [{"jsonPath": ".spec.colour"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"lives": {"type": "integer", "default": 9, "minimum": 1}, "colour": {"type": "string"}}},
                    "status": {"type": "object", "properties": {"lives": {"type": "integer"}}}}}}},
            {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

/// Waits until the definition says it is established.
async fn established(shop: &Shop<'_>, name: &str) {
    let options = WatchOptions {
        fields: format!("metadata.name={name}"),
        ..WatchOptions::default()
    };
    let mut watch = shop
        .watch("apiextensions.k8s.io/v1/customresourcedefinitions", options)
        .await
        .unwrap();
    while let Some(Ok(event)) = super::support::event(&mut watch).await {
        if let client::WatchEvent::Added(o) | client::WatchEvent::Modified(o) = event {
            let value = o.value();
            let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions
                .iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
            {
                return;
            }
        }
    }
    panic!("the watch ended");
}

#[tokio::test]
async fn a_custom_kind_lives_and_dies_with_its_definition() {
    let registry = open().await;
    let shop = Shop(&registry);
    let changed = registry.kinds_changed();
    shop.create("apiextensions.k8s.io/v1/customresourcedefinitions", crd())
        .await
        .unwrap();
    established(&shop, "cats.example.com").await;
    changed.await;
    let resource = registry.resource(&Gvr::new("example.com", "v1", "cats")).unwrap();
    assert_eq!(
        (resource.kind.short_names[0].as_str(), resource.kind.singular.as_str()),
        ("ct", "cat")
    );

    let tom = json!({"apiVersion": "example.com/v1", "kind": "Cat", "metadata": {"name": "tom"}, "spec": {"colour": "grey"}, "status": {"lives": 1}});
    let made = shop.create("example.com/v1/cats/default", tom).await.unwrap();
    let value = made.value();
    assert_eq!(
        (&value["spec"]["lives"], value.get("status")),
        (&json!(9), None),
        "defaults are filled in, the status is not the creator's"
    );
    assert_eq!(resource.table(&made, registry.now()), [json!("tom"), json!(9)]);
    let old = shop.get("example.com/v1beta1/cats/default/tom").await.unwrap();
    assert_eq!(old["apiVersion"], "example.com/v1beta1");
    let bad = json!({"apiVersion": "example.com/v1", "kind": "Cat", "metadata": {"name": "x"}, "spec": {"lives": 0}});
    let failure = shop.create("example.com/v1/cats/default", bad).await.unwrap_err();
    assert!(
        failure.to_string().starts_with("Cat.example.com \"x\" is invalid")
            || failure.to_string().contains("spec.lives"),
        "{failure}"
    );
    let scaled = shop
        .patch(
            "example.com/v1/cats/default/tom/scale",
            PatchKind::Merge,
            json!({"spec": {"replicas": 3}}),
        )
        .await
        .unwrap();
    assert_eq!(scaled.value()["spec"]["replicas"], 3);
    let grey = ListOptions {
        fields: "spec.colour=grey".into(),
        ..ListOptions::default()
    };
    assert_eq!(shop.list("example.com/v1/cats", grey).await.unwrap().items.len(), 1);
    let smp = shop
        .patch("example.com/v1/cats/default/tom", PatchKind::Strategic, json!({}))
        .await;
    assert!(matches!(smp, Err(Failure::UnsupportedMediaType(_))));

    let mut cats = shop
        .watch("example.com/v1/cats", WatchOptions::default())
        .await
        .unwrap();
    assert_eq!(next(&mut cats).await, "ADDED tom");
    shop.delete("apiextensions.k8s.io/v1/customresourcedefinitions//cats.example.com")
        .await
        .unwrap();
    assert_eq!(next(&mut cats).await, "DELETED tom");
    let mut definitions = shop
        .watch(
            "apiextensions.k8s.io/v1/customresourcedefinitions",
            WatchOptions::default(),
        )
        .await
        .unwrap();
    let gone = async {
        while shop
            .get("apiextensions.k8s.io/v1/customresourcedefinitions//cats.example.com")
            .await
            .is_ok()
        {
            definitions.next().await;
        }
        let mut kinds = registry.kinds_version();
        while registry.resource(&Gvr::new("example.com", "v1", "cats")).is_some() {
            kinds.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .expect("the definition goes");
    assert!(matches!(
        shop.get("example.com/v1/cats/default/tom").await,
        Err(Failure::NoSuchResource { .. })
    ));
}

#[tokio::test]
async fn a_definition_that_takes_a_name_is_not_served() {
    let registry = open().await;
    let shop = Shop(&registry);
    let definitions = "apiextensions.k8s.io/v1/customresourcedefinitions";
    shop.create(definitions, crd()).await.unwrap();
    established(&shop, "cats.example.com").await;
    let mut thief = crd();
    thief["metadata"]["name"] = "lions.example.com".into();
    thief["spec"]["names"] = json!({"plural": "lions", "singular": "lion", "kind": "Cat"});
    shop.create(definitions, thief).await.unwrap();
    let options = WatchOptions {
        fields: "metadata.name=lions.example.com".into(),
        ..WatchOptions::default()
    };
    let mut watch = shop.watch(definitions, options).await.unwrap();
    loop {
        let Some(Ok(client::WatchEvent::Added(o) | client::WatchEvent::Modified(o))) =
            super::support::event(&mut watch).await
        else {
            panic!()
        };
        let value = o.value();
        let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(said) = conditions.iter().find(|c| c["type"] == "NamesAccepted") {
            assert_eq!(
                (&said["status"], &said["reason"]),
                (&json!("False"), &json!("KindConflict"))
            );
            break;
        }
    }
    assert!(registry.resource(&Gvr::new("example.com", "v1", "lions")).is_none());
    let wrong = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"}, "spec": {"group": "example.com",
        "scope": "Global", "names": {"plural": "dogs", "kind": "Dog"}, "versions": []}});
    let failure = shop.create(definitions, wrong).await.unwrap_err().to_string();
    assert!(
        failure.contains("must be spec.names.plural+\".\"+spec.group")
            && failure.contains("spec.scope: Unsupported value"),
        "{failure}"
    );
}

#[tokio::test]
async fn definitions_are_served_again_after_a_restart() {
    let store: Arc<dyn store::Store> = Arc::new(store::memory::open(store::History::default()).unwrap());
    let first = crate::Registry::open(store.clone(), options()).await.unwrap();
    Shop(&first)
        .create("apiextensions.k8s.io/v1/customresourcedefinitions", crd())
        .await
        .unwrap();
    established(&Shop(&first), "cats.example.com").await;
    drop(first);
    let second = crate::Registry::open(store, options()).await.unwrap();
    assert!(second.resource(&Gvr::new("example.com", "v1", "cats")).is_some());
}
