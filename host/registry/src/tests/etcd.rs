//! A store that a stock kube-apiserver has left, taken over and handed back.
//!
//! `cases/etcd/recorded.txt` is what Kubernetes 1.36 left in etcd, and how it served that (`record.sh` beside it).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{Cluster, Collection, ListOptions, PatchKind, ReadVersion, Target};
use model::Gvk;
use schema::protobuf;
use serde_json::{Value, json};
use store::{Range, Store, Txn};

use super::support::*;
use crate::document::encode;
use crate::{Media, Registry, Resource};

#[path = "../../../store/tests/store/etcd_server.rs"]
mod etcd_server;

struct Recorded {
    key: &'static str,
    value: Bytes,
    /// As kube-apiserver serves it, without its version.
    served: Value,
}

fn recorded() -> Vec<Recorded> {
    let lines = include_str!("../../cases/etcd/recorded.txt").lines();
    let recorded = lines.map(|line| {
        let parts: Vec<&str> = line.split('\t').collect();
        Recorded {
            key: parts[0],
            value: STANDARD.decode(parts[1]).unwrap().into(),
            served: serde_json::from_str(parts[2]).unwrap(),
        }
    });
    recorded.collect()
}

/// The kinds that are kept under a key, and where an object of them lies.
fn served_at(registry: &Registry, key: &str) -> Vec<(Arc<Resource>, Target)> {
    let target = |resource: &Arc<Resource>| {
        let place = key.strip_prefix(&resource.storage.prefix)?;
        let (namespace, name) = match resource.kind.namespaced() {
            true => place.split_once('/')?,
            false => ("", place),
        };
        let target = Target::new(resource.kind.gvr(), namespace, name);
        (!name.contains('/')).then(|| (resource.clone(), target))
    };
    registry.resources().iter().filter_map(target).collect()
}

async fn stored(store: &dyn Store, key: &str) -> Bytes {
    let page = store.range(Range::prefix(key.to_owned())).await.unwrap();
    page.entries
        .iter()
        .find(|e| e.key == key.as_bytes())
        .unwrap()
        .value
        .clone()
}

/// Puts everything recorded into an empty store, opens a registry on it and looks at every object from every side.
async fn take_over(store: Arc<dyn Store>) {
    let recorded = recorded();
    assert!(recorded.len() >= 25);
    for one in &recorded {
        let done = store
            .txn(Txn::create(one.key.to_owned(), one.value.clone()))
            .await
            .unwrap();
        assert!(matches!(done, store::Outcome::Done { .. }));
    }
    let mut options = options();
    options.media = Media::Protobuf;
    let registry = Registry::open(store.clone(), options).await.unwrap();
    let shop = Shop(&registry);
    for one in &recorded {
        let found = served_at(&registry, one.key);
        assert!(!found.is_empty(), "no kind is kept at {}", one.key);
        for (resource, target) in found {
            let object = registry.get(&caller(), &target, ReadVersion::Latest).await.unwrap();
            let mut value = object.value();
            value["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            if resource.kind.gvk.api_version() == one.served["apiVersion"] {
                assert_eq!(value, one.served, "{}", one.key);
            }
            let all = Collection::all(resource.kind.gvr());
            let list = registry.list(&caller(), &all, &ListOptions::default()).await.unwrap();
            assert!(
                list.items.iter().any(|o| o.key == object.key),
                "{} is not listed",
                one.key
            );
        }
        // An object that nobody changes would be written back as it was, to the byte.
        let is_protobuf = protobuf::is_protobuf(&one.value);
        if is_protobuf {
            let (gvk, mut value) = protobuf::decode(&one.value).unwrap();
            assert_eq!(
                encode(Media::Protobuf, &gvk, &mut value).unwrap().bytes,
                one.value,
                "{}",
                one.key
            );
        }
        // What we change, kube-apiserver reads again: the same form, the same kind, nothing lost but what we changed.
        let (resource, target) = served_at(&registry, one.key).remove(0);
        let path = format!(
            "{}/{}/{}",
            match resource.kind.gvk.group.as_str() {
                "" => resource.kind.plural.to_string(),
                group => format!("{group}/{}/{}", resource.kind.gvk.version, resource.kind.plural),
            },
            target.namespace,
            target.name
        );
        let labels = json!({"metadata": {"labels": {"taken": "over"}}});
        shop.patch(&path, PatchKind::Merge, labels).await.unwrap();
        let now = stored(&*store, one.key).await;
        assert_eq!(protobuf::is_protobuf(&now), is_protobuf, "{}", one.key);
        let (mut now, mut then) = match is_protobuf {
            true => (
                protobuf::decode(&now).unwrap().1,
                protobuf::decode(&one.value).unwrap().1,
            ),
            false => (serde_json::from_slice(&now).unwrap(), one.served.clone()),
        };
        assert_eq!(now["metadata"]["labels"]["taken"], "over");
        for value in [&mut now, &mut then] {
            let metadata = value["metadata"].as_object_mut().unwrap();
            for changes in ["labels", "managedFields"] {
                metadata.remove(changes);
            }
        }
        assert_eq!(now, then, "{}", one.key);
    }
}

#[tokio::test]
async fn what_a_stock_server_left_is_served_and_handed_back() {
    take_over(Arc::new(store::memory::open(store::History::default()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_etcd_itself() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = etcd_server::EtcdServer::start(directory.path()) else {
        return;
    };
    let options = store::etcd::EtcdOptions::new(vec![server.endpoint.clone()]);
    take_over(Arc::new(store::etcd::EtcdStore::connect(options).await.unwrap())).await;
}

/// The definitions of custom kinds and the objects of these are JSON in a stock server's store, all else protobuf.
#[test]
fn the_recording_holds_both_forms() {
    let json: Vec<&str> = recorded()
        .iter()
        .filter(|one| !protobuf::is_protobuf(&one.value))
        .map(|one| one.key)
        .collect();
    assert_eq!(
        json,
        [
            "/registry/apiextensions.k8s.io/customresourcedefinitions/pets.example.com",
            "/registry/apiregistration.k8s.io/apiservices/v1.apps",
            "/registry/example.com/pets/shop/rex",
        ]
    );
    assert!(protobuf::schema_of(&Gvk::new("example.com", "v1", "Pet")).is_err());
}
