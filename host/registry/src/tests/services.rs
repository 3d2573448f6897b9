//! Addresses and ports of Services: given once, kept, and given back.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::PatchKind;
use serde_json::{Value, json};

use super::support::*;
use crate::Network;

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_given_once_and_come_back() {
    let mut options = options();
    options.network = Network {
        service_ranges: vec!["10.0.0.0/28".into()],
        node_ports: (30000, 30010),
        ..Network::default()
    };
    let registry = open_with(options).await;
    // 14 addresses, the first for the kubernetes Service: of twenty creates at once thirteen succeed.
    let spec = || json!({"ports": [{"port": 80}]});
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let registry = registry.clone();
            tokio::spawn(async move {
                Shop(&registry)
                    .create("services/default", service(&format!("s{i}"), spec()))
                    .await
            })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(object) => made.push(object),
            Err(failure) => assert!(failure.to_string().contains("range 10.0.0.0/28 is full"), "{failure}"),
        }
    }
    let addresses: BTreeSet<String> = made
        .iter()
        .map(|o| o.value()["spec"]["clusterIP"].as_str().unwrap().into())
        .collect();
    assert_eq!((made.len(), addresses.len()), (13, 13));
    assert!(!addresses.contains("10.0.0.1"), "that is the API's");

    let shop = Shop(&registry);
    let first = made[0].clone();
    shop.delete(&format!("services/default/{}", first.key.name))
        .await
        .unwrap();
    let again = shop.create("services/default", service("again", spec())).await.unwrap();
    assert_eq!(again.value()["spec"]["clusterIP"], first.value()["spec"]["clusterIP"]);
    // A refused create gives back what it took; a taken address is named.
    let taken = service("taken", json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
    let failure = shop.create("services/default", taken).await.unwrap_err();
    assert!(
        failure.to_string().contains("provided IP is already allocated"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_service_changes_its_type_and_keeps_what_it_can() {
    let registry = open().await;
    let shop = Shop(&registry);
    let made = shop
        .create(
            "services/default",
            service("s", json!({"type": "NodePort", "ports": [{"port": 80}]})),
        )
        .await
        .unwrap()
        .value();
    let (address, port) = (
        made["spec"]["clusterIP"].clone(),
        made["spec"]["ports"][0]["nodePort"].clone(),
    );
    assert!(port.as_u64().is_some_and(|p| (30000..=32767).contains(&p)), "{port}");
    assert_eq!(made["spec"]["ports"][0]["targetPort"], 80);
    // A replace that names neither keeps both.
    let replaced = shop
        .update(
            "services/default/s",
            &service(
                "s",
                json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}),
            ),
        )
        .await
        .unwrap()
        .value();
    assert_eq!(
        (
            &replaced["spec"]["clusterIP"],
            &replaced["spec"]["ports"][0]["nodePort"]
        ),
        (&address, &port)
    );
    let plain = shop
        .patch(
            "services/default/s",
            PatchKind::Merge,
            json!({"spec": {"type": "ClusterIP"}}),
        )
        .await
        .unwrap()
        .value();
    assert_eq!(
        (&plain["spec"]["clusterIP"], plain["spec"]["ports"][0].get("nodePort")),
        (&address, None)
    );
    // Its node port is free again.
    let other = service(
        "t",
        json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]}),
    );
    shop.create("services/default", other).await.unwrap();
    let outside =
        json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": "", "clusterIPs": null}});
    let outside = shop
        .patch("services/default/s", PatchKind::Merge, outside)
        .await
        .unwrap()
        .value();
    assert_eq!(outside["spec"].get("clusterIP"), None);
    let none = shop
        .create(
            "services/default",
            service("h", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        )
        .await
        .unwrap();
    assert_eq!(none.value()["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn what_is_taken_is_known_after_a_restart() {
    let store: Arc<dyn store::Store> = Arc::new(store::memory::open(store::History::default()).unwrap());
    let first = crate::Registry::open(store.clone(), options()).await.unwrap();
    let wish = json!({"clusterIP": "10.96.7.7", "ports": [{"port": 80}]});
    Shop(&first)
        .create("services/default", service("s", wish.clone()))
        .await
        .unwrap();
    drop(first);
    let second = crate::Registry::open(store, options()).await.unwrap();
    let failure = Shop(&second)
        .create("services/default", service("t", wish))
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("already allocated"), "{failure}");
    assert!(Shop(&second).get("services/default/kubernetes").await.is_ok());
}
