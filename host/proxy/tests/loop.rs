//! The loop from the cluster to an engine.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{Moody, service};
use model::Failure;
use proxy::{Engine, Fake, Plan, ProxyConfig, Unserved, run};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

async fn until(look: &mut watch::Receiver<Arc<Plan>>, what: &str, wanted: impl Fn(&str) -> bool) {
    let seen = tokio::time::timeout(PATIENCE, look.wait_for(|plan| wanted(&plan.to_string())))
        .await
        .is_ok();
    assert!(seen, "never: {what}; the plan is\n{}", look.borrow().clone());
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
    until(&mut look, "a Service comes", |plan| plan.contains("10.1.1.1:8080")).await;
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
    until(&mut look, "the second try", |plan| plan.contains("10.1.1.1:8080")).await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// Serves all but Services at one address.
struct Picky(Fake, Arc<Plan>);

#[async_trait]
impl Engine for Picky {
    async fn sync(&mut self, plan: &Arc<Plan>) -> Result<(), Failure> {
        self.1 = plan.clone();
        self.0.sync(plan).await
    }

    fn unserved(&self) -> BTreeSet<Unserved> {
        let bad = self
            .1
            .ports
            .iter()
            .filter(|(_, port)| port.cluster_ip.to_string() == "10.96.0.10");
        bad.map(|(name, _)| Unserved {
            namespace: name.namespace.clone(),
            service: name.service.clone(),
            why: "the test does not like its address".into(),
        })
        .collect()
    }

    async fn cleanup(&mut self) -> Result<(), Failure> {
        self.0.cleanup().await
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_served_is_told_so_once() {
    let cluster = Moody::new();
    cluster.apply(&service("web", SPEC, 8080, &["10.1.1.1"]));
    let (inner, mut look) = Fake::new();
    let stop = CancellationToken::new();
    let config = ProxyConfig {
        sync_gap: Duration::from_millis(1),
        ..ProxyConfig::new("node")
    };
    let engine = Box::new(Picky(inner, Arc::default()));
    let running = tokio::spawn(run(config, cluster.clone(), engine, stop.clone()));
    let written = cluster.fake.until(|fake| !fake.objects("events").is_empty());
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("an Event is written");
    // More changes, more syncs, the same trouble.
    for ip in ["10.1.1.2", "10.1.1.3"] {
        cluster.apply(&service("web", SPEC, 8080, &[ip]));
        until(&mut look, "the change", |plan| plan.contains(ip)).await;
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    let events = cluster.fake.objects("events");
    let [event] = &events[..] else {
        panic!("{} events", events.len())
    };
    let event = event.value();
    let service = cluster.fake.objects("services")[0].uid.0.to_string();
    assert_eq!(
        event["involvedObject"]["uid"],
        service.as_str(),
        "kubectl describe looks by uid"
    );
    assert_eq!(event["message"], "the test does not like its address");
}
