//! How fast the hot paths are in this process, on the memory store. Figures, not promises: run with
//! `cargo test -p registry --release speed -- --ignored --nocapture`.

use std::time::Instant;

use client::Action;
use serde_json::json;

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn creates_binds_and_gets_a_second() {
    let store = store::memory::open(store::History::default()).unwrap();
    let mut options = options();
    options.dice = std::sync::Arc::new(crate::SystemDice);
    let registry = crate::Registry::open(std::sync::Arc::new(store), options)
        .await
        .unwrap();
    const TASKS: usize = 16;
    const EACH: usize = 1000;
    let run = |what: &'static str| {
        let registry = registry.clone();
        async move {
            let start = Instant::now();
            let tasks: Vec<_> = (0..TASKS)
                .map(|t| {
                    let registry = registry.clone();
                    tokio::spawn(async move {
                        let shop = Shop(&registry);
                        for i in 0..EACH {
                            let name = format!("web-{t}-{i}");
                            match what {
                                "create" => drop(shop.create("pods/default", pod(&name)).await.unwrap()),
                                "get" => drop(registry_get(&registry, &name).await),
                                _ => {
                                    let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
                                    let path = format!("pods/default/{name}/binding");
                                    drop(shop.act(&path, Action::Create(bytes(&body))).await.unwrap());
                                }
                            }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let took = start.elapsed();
            println!("{what}: {:.0}/s", (TASKS * EACH) as f64 / took.as_secs_f64());
        }
    };
    run("create").await;
    run("get").await;
    run("bind").await;
}

async fn registry_get(registry: &crate::Registry, name: &str) -> std::sync::Arc<model::Object> {
    use client::Cluster;
    let target = target(&format!("pods/default/{name}"));
    registry
        .get(&caller(), &target, client::ReadVersion::Latest)
        .await
        .unwrap()
}

fn pod(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"containers": [{"name": "c", "image": "nginx:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}]}]}})
}
