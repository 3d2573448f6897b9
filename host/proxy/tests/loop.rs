//! The loop from the cluster to an engine.

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{Moody, service};
use model::Failure;
use proxy::{Engine, Fake, Plan, ProxyConfig, run};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

async fn until(look: &mut watch::Receiver<Arc<Plan>>, what: &str, wanted: impl Fn(&str) -> bool) {
    let seen = tokio::time::timeout(PATIENCE, look.wait_for(|plan| wanted(&plan.to_string())))
        .await
        .is_ok();
    assert!(
        seen,
        "never: {what}; the plan is\n{}",
        look.borrow().clone()
    );
}

const SPEC: &str = "{clusterIPs: [10.96.0.10], ports: [{port: 80}]}";

#[tokio::test]
async fn plans_follow_the_cluster_through_its_failures() {
    let cluster = Moody::new();
    cluster.fail(2);
    for i in 0..5 {
        let spec = SPEC.replace(".10]", &format!(".2{i}]"));
        cluster.apply(&service(&format!("more{i}"), &spec, 8080, &["10.1.1.9"]));
    }
    let (engine, mut look) = Fake::new();
    let stop = CancellationToken::new();
    let config = ProxyConfig {
        sync_gap: Duration::from_millis(1),
        ..ProxyConfig::new("node")
    };
    let running = tokio::spawn(run(config, cluster.clone(), Box::new(engine), stop.clone()));
    until(&mut look, "all pages are read", |plan| {
        plan.matches("from inside: 10.1.1.9:8080").count() == 5
    })
    .await;
    cluster.apply(&service("web", SPEC, 8080, &["10.1.1.1"]));
    until(&mut look, "a Service comes", |plan| {
        plan.contains("10.1.1.1:8080")
    })
    .await;
    cluster.fake.break_watches();
    cluster.apply(&service("web", SPEC, 8080, &["10.1.1.2"]));
    until(&mut look, "a change after a broken watch", |plan| {
        plan.contains("10.1.1.2:8080")
    })
    .await;
    assert!(cluster.lists() >= 4, "both kinds were listed again");
    cluster.delete("discovery.k8s.io", "endpointslices", "web");
    until(&mut look, "its endpoints go", |plan| {
        plan.contains("on 10.96.0.10:80\n  from inside: refuse")
    })
    .await;
    cluster.delete("", "services", "web");
    until(&mut look, "it goes", |plan| !plan.contains("10.96.0.10")).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(*look.borrow().clone(), Plan::default(), "cleaned up");
}

/// Refuses every first sync of a plan.
struct Stubborn {
    inner: Fake,
    refused: Arc<Plan>,
}

#[async_trait]
impl Engine for Stubborn {
    async fn sync(&mut self, plan: &Arc<Plan>) -> Result<(), Failure> {
        if self.refused == *plan {
            return self.inner.sync(plan).await;
        }
        self.refused = plan.clone();
        Err(Failure::Unavailable {
            what: "the test's engine",
            source: "it refuses every first time".into(),
        })
    }

    async fn cleanup(&mut self) -> Result<(), Failure> {
        self.inner.cleanup().await
    }
}

#[tokio::test]
async fn a_failed_sync_is_tried_again_without_another_change() {
    let cluster = Moody::new();
    cluster.apply(&service("web", SPEC, 8080, &["10.1.1.1"]));
    let (inner, mut look) = Fake::new();
    let stop = CancellationToken::new();
    let engine = Stubborn {
        inner,
        refused: Arc::default(),
    };
    let running = tokio::spawn(run(
        ProxyConfig::new("node"),
        cluster.clone(),
        Box::new(engine),
        stop.clone(),
    ));
    until(&mut look, "the second try", |plan| {
        plan.contains("10.1.1.1:8080")
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
}
