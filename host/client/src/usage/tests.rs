//! The meter on a clock that stands until somebody waits: whom it asks, when, and for how long.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::fake::Fake;
use crate::node::{ContainerRef, Duplex, ExecRequest, LogOptions, LogStream, NodeStreams, Session};

/// A node that uses half a processor, and its one pod a quarter.
struct Busy {
    since: Instant,
    asked: AtomicUsize,
    hangs: AtomicBool,
}

impl Busy {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            asked: AtomicUsize::new(0),
            hangs: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl NodeStreams for Busy {
    async fn page(&self, path: &str) -> Result<Page, Failure> {
        assert_eq!(path, PAGE);
        self.asked.fetch_add(1, SeqCst);
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        let passed = self.since.elapsed();
        let (seconds, at) = (passed.as_secs_f64(), 1_700_000_000_000 + passed.as_millis());
        Ok(Page::text(format!(
            "node_cpu_usage_seconds_total {} {at}\nnode_memory_working_set_bytes 4096 {at}\n\
             container_cpu_usage_seconds_total{{container=\"a\",namespace=\"default\",pod=\"web\"}} {} {at}\n\
             container_memory_working_set_bytes{{container=\"a\",namespace=\"default\",pod=\"web\"}} 1024 {at}\n",
            seconds / 2.0,
            seconds / 4.0
        )))
    }

    async fn logs(&self, _: &ContainerRef, _: &LogOptions) -> Result<LogStream, Failure> {
        unreachable!("the meter reads pages")
    }

    async fn exec(&self, _: &ContainerRef, _: &ExecRequest) -> Result<Session, Failure> {
        unreachable!("the meter reads pages")
    }

    async fn attach(&self, _: &ContainerRef, _: &ExecRequest) -> Result<Session, Failure> {
        unreachable!("the meter reads pages")
    }

    async fn port_forward(&self, _: &ContainerRef, _: u16) -> Result<Box<dyn Duplex>, Failure> {
        unreachable!("the meter reads pages")
    }
}

/// `n1`, `n2` …; beyond these a node is not reachable.
struct Reachable(Vec<Arc<Busy>>);

impl Nodes for Reachable {
    fn streams(&self, node: &str) -> Option<Arc<dyn NodeStreams>> {
        let at: usize = node.trim_start_matches('n').parse().ok()?;
        let busy = self.0.get(at - 1)?.clone();
        Some(busy)
    }
}

/// A meter of a cluster with these nodes and one that is not reachable.
fn meter(nodes: &[&Arc<Busy>]) -> Meter {
    let cluster = Fake::new();
    for at in 1..=nodes.len() + 1 {
        cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{at}")}}));
    }
    let nodes = nodes.iter().map(|&node| node.clone()).collect();
    Meter::new(
        cluster.cluster(),
        Caller::component("meter", &[]),
        Arc::new(Reachable(nodes)),
    )
}

#[tokio::test(start_paused = true)]
async fn the_first_question_takes_two_readings_and_the_next_ones_none() {
    let node = Busy::new();
    let meter = meter(&[&node]);
    let begun = Instant::now();
    let usages = meter.read().await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 2);
    let used = usages.node("n1").unwrap();
    assert_eq!((used.cpu, used.memory, used.window.as_secs()), (500_000_000, 4096, 2));
    let pod = usages.pod("default", "web").unwrap();
    assert_eq!((pod.containers[0].1.cpu, pod.window().1.as_secs()), (250_000_000, 2));
    assert!(usages.node("n2").is_none(), "it is not reachable");
    assert_eq!(node.asked.load(SeqCst), 2);

    meter.read().await.unwrap();
    tokio::time::advance(Duration::from_secs(9)).await;
    meter.read().await.unwrap();
    assert_eq!(node.asked.load(SeqCst), 2, "it is fresh");
    tokio::time::advance(Duration::from_secs(6)).await;
    let used = meter.read().await.unwrap().node("n1").unwrap();
    assert_eq!((used.cpu, used.window.as_secs()), (500_000_000, 15));
    assert_eq!(node.asked.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_while_nobody_asks() {
    let node = Busy::new();
    let meter = meter(&[&node]);
    meter.read().await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(node.asked.load(SeqCst), 2);
    let used = meter.read().await.unwrap().node("n1").unwrap();
    assert_eq!(
        used.window.as_secs(),
        2,
        "an hour's average is not what is used at present"
    );
}

#[tokio::test(start_paused = true)]
async fn who_asks_meanwhile_is_answered_by_the_same_round() {
    let node = Busy::new();
    let meter = meter(&[&node]);
    let all = futures::future::join_all((0..100).map(|_| meter.read())).await;
    assert!(all.into_iter().all(|usages| usages.unwrap().node("n1").is_some()));
    assert_eq!(node.asked.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_an_impatient_client_began_is_gone_on_with() {
    let node = Busy::new();
    let meter = meter(&[&node]);
    let left = tokio::time::timeout(Duration::from_secs(1), meter.read()).await;
    assert!(left.is_err());
    let begun = Instant::now();
    assert!(meter.read().await.unwrap().node("n1").is_some());
    assert_eq!((begun.elapsed().as_secs(), node.asked.load(SeqCst)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_is_left_out() {
    let (good, bad) = (Busy::new(), Busy::new());
    let meter = meter(&[&good, &bad]);
    bad.hangs.store(true, SeqCst);
    let begun = Instant::now();
    let usages = meter.read().await.unwrap();
    assert!(usages.node("n1").is_some() && usages.node("n2").is_none());
    assert_eq!(begun.elapsed().as_secs(), 3 + 2 + 3);
}

/// More of them than are asked at once.
#[tokio::test(start_paused = true)]
async fn many_that_hang_hold_nobody_for_longer() {
    let bad: Vec<Arc<Busy>> = (0..1000).map(|_| Busy::new()).collect();
    for node in &bad {
        node.hangs.store(true, SeqCst);
    }
    let meter = meter(&bad.iter().collect::<Vec<_>>());
    let begun = Instant::now();
    let usages = meter.read().await.unwrap();
    assert!(usages.node("n1").is_none());
    assert_eq!(
        begun.elapsed().as_secs(),
        12,
        "there is nothing to compare a second round with"
    );
}
