//! Watches: every change once, in order, from any start.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{ListOptions, PatchKind, WatchEvent, WatchOptions};
use futures::StreamExt;
use model::{Failure, ResourceVersion};
use serde_json::json;

use super::support::*;
use crate::Limits;

fn config(name: &str, label: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"l": label}}})
}

#[tokio::test]
async fn a_watch_sees_what_its_selector_sees() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create("configmaps/default", config("a", "x")).await.unwrap();
    shop.create("configmaps/default", config("b", "y")).await.unwrap();
    let options = WatchOptions {
        labels: "l=x".into(),
        ..WatchOptions::default()
    };
    let mut watch = shop.watch("configmaps", options).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    let label = |l: &str| json!({"metadata": {"labels": {"l": l}}});
    shop.patch("configmaps/default/b", PatchKind::Merge, label("x"))
        .await
        .unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
    shop.patch("configmaps/default/b", PatchKind::Merge, json!({"data": {"k": "v"}}))
        .await
        .unwrap();
    assert_eq!(next(&mut watch).await, "MODIFIED b");
    let left = shop
        .patch("configmaps/default/a", PatchKind::Merge, label("z"))
        .await
        .unwrap();
    let Some(Ok(WatchEvent::Deleted(gone))) = event(&mut watch).await else {
        panic!()
    };
    assert_eq!(
        (gone.labels.get("l"), gone.version),
        (Some("x"), left.version),
        "the last state that matched"
    );
    shop.delete("configmaps/default/b").await.unwrap();
    assert_eq!(next(&mut watch).await, "DELETED b");
}

#[tokio::test]
async fn a_watch_goes_on_from_a_version() {
    let registry = open().await;
    let shop = Shop(&registry);
    let first = shop.create("configmaps/default", config("a", "x")).await.unwrap();
    shop.create("configmaps/default", config("b", "x")).await.unwrap();
    shop.list("configmaps", ListOptions::default()).await.unwrap();
    let from = WatchOptions {
        from: Some(first.version),
        ..WatchOptions::default()
    };
    let mut watch = shop.watch("configmaps", from).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
    shop.create("configmaps/default", config("c", "x")).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED c");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create("configmaps/default", config("a", "x")).await.unwrap();
    let options = WatchOptions {
        bookmarks: true,
        send_initial_events: true,
        ..WatchOptions::default()
    };
    let mut watch = shop.watch("configmaps", options).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    assert_eq!(next(&mut watch).await, "BOOKMARK true");
    shop.create("configmaps/default", config("b", "x")).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
    let without = WatchOptions {
        send_initial_events: true,
        ..WatchOptions::default()
    };
    assert!(matches!(
        shop.watch("configmaps", without).await,
        Err(Failure::BadRequest(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_timeout_with_a_bookmark() {
    let registry = open().await;
    let shop = Shop(&registry);
    let options = WatchOptions {
        bookmarks: true,
        timeout: Some(Duration::from_secs(10)),
        ..WatchOptions::default()
    };
    let mut watch = shop.watch("configmaps", options).await.unwrap();
    // Other kinds go on; the bookmark says how far.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let other = shop.create("namespaces", namespace).await.unwrap();
    let Some(Ok(WatchEvent::Bookmark {
        version,
        initial_events_end: false,
    })) = event(&mut watch).await
    else {
        panic!()
    };
    assert!(version >= other.version);
    assert_eq!(next(&mut watch).await, "END");
}

#[tokio::test]
async fn what_is_forgotten_is_expired() {
    let mut options = options();
    options.limits = Limits {
        window: 4,
        behind: 4,
        pages: 1,
    };
    let registry = open_with(options).await;
    let shop = Shop(&registry);
    let first = shop.create("configmaps/default", config("a", "x")).await.unwrap();
    let mut slow = shop
        .watch(
            "configmaps",
            WatchOptions {
                from: Some(first.version),
                ..WatchOptions::default()
            },
        )
        .await
        .unwrap();
    for i in 0..10 {
        shop.create("configmaps/default", config(&format!("b{i}"), "x"))
            .await
            .unwrap();
    }
    shop.list("configmaps", ListOptions::default()).await.unwrap();
    let from = WatchOptions {
        from: Some(first.version),
        ..WatchOptions::default()
    };
    assert!(matches!(shop.watch("configmaps", from).await, Err(Failure::Expired(_))));
    let ended = next(&mut slow).await;
    assert!(ended.starts_with("ERROR too old resource version"), "{ended}");
    assert_eq!(next(&mut slow).await, "END");
}

/// List and watch give the state, whatever the writers do meanwhile; and every version comes once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_leave_no_gap_and_no_double() {
    let registry = open().await;
    let mut writers = Vec::new();
    for writer in 0..4 {
        let registry = registry.clone();
        writers.push(tokio::spawn(async move {
            let shop = Shop(&registry);
            for i in 0..60 {
                let path = format!("configmaps/default/w{writer}-{}", i % 7);
                if shop.get(&path).await.is_ok() {
                    if i % 3 == 0 {
                        shop.delete(&path).await.unwrap();
                    } else {
                        shop.patch(&path, PatchKind::Merge, json!({"data": {"i": i.to_string()}}))
                            .await
                            .unwrap();
                    }
                } else {
                    shop.create("configmaps/default", config(&format!("w{writer}-{}", i % 7), "x"))
                        .await
                        .unwrap();
                }
            }
        }));
    }
    let mut watchers = Vec::new();
    for _ in 0..5 {
        let registry = registry.clone();
        watchers.push(tokio::spawn(async move {
            let shop = Shop(&registry);
            let list = shop.list("configmaps", ListOptions::default()).await.unwrap();
            let mut state: BTreeMap<String, ResourceVersion> =
                list.items.iter().map(|o| (o.key.name.to_string(), o.version)).collect();
            let options = WatchOptions {
                from: Some(list.version),
                ..WatchOptions::default()
            };
            let mut watch = shop.watch("configmaps", options).await.unwrap();
            let mut last = list.version;
            while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(20), watch.next()).await {
                let (object, gone) = match event.unwrap() {
                    WatchEvent::Added(o) => {
                        assert!(!state.contains_key(o.key.name.as_str()), "{} was there", o.key);
                        (o, false)
                    }
                    WatchEvent::Modified(o) => {
                        assert!(state.contains_key(o.key.name.as_str()), "{} was not there", o.key);
                        (o, false)
                    }
                    WatchEvent::Deleted(o) => (o, true),
                    WatchEvent::Bookmark { .. } => continue,
                };
                assert!(object.version > last, "{} after {last}", object.version);
                last = object.version;
                if object.key.name == "end" {
                    break;
                }
                match gone {
                    true => drop(state.remove(object.key.name.as_str()).expect("it was there")),
                    false => drop(state.insert(object.key.name.to_string(), object.version)),
                }
            }
            state
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let shop = Shop(&registry);
    let list = shop.list("configmaps", ListOptions::default()).await.unwrap();
    let truth: BTreeMap<String, ResourceVersion> =
        list.items.iter().map(|o| (o.key.name.to_string(), o.version)).collect();
    shop.create("configmaps/default", config("end", "x")).await.unwrap();
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), truth);
    }
}
