//! A policy's new revision takes over with a full mirror: until then the old one answers, and no change between is lost.

mod native;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Failure, GroupResource, Gvk, Object, ObjectKey};
use scheduler::place::{Chain, Placement};
use scheduler::policy::{Points, Policy, Verdict};
use scheduler::world::{PodRef, World};
use scheduler::{Dice, NodeSet};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use native::Native;

const NODES: usize = 20;

/// What the test and all revisions share.
struct Scene {
    /// The revision that serves, as a swap would set it.
    newest: AtomicU64,
    /// The one that answered last.
    answered: AtomicU64,
    /// One permit for each `sync` of a successor.
    may_fill: Semaphore,
    /// Those made from now on do not take their mirror in.
    broken: AtomicBool,
    /// The one that answers now loses its mirror.
    lost: AtomicU64,
    started: AtomicU64,
}

struct Revision {
    policy: Native<scheduler_default::DefaultPolicy>,
    number: u64,
    filled: bool,
    scene: Arc<Scene>,
}

impl Revision {
    fn new(number: u64, scene: Arc<Scene>) -> Self {
        scene.started.fetch_add(1, SeqCst);
        Self {
            policy: Native::new("default", 1),
            number,
            filled: false,
            scene,
        }
    }
}

#[async_trait]
impl Policy for Revision {
    fn name(&self) -> &str {
        self.policy.name()
    }

    fn weight(&self) -> i64 {
        1
    }

    fn points(&self) -> Points {
        self.policy.points()
    }

    fn successor(&self) -> Option<BoxFuture<'static, Result<Box<dyn Policy>, Failure>>> {
        let (newest, scene) = (self.scene.newest.load(SeqCst), self.scene.clone());
        (newest > self.number)
            .then(|| async move { Ok(Box::new(Revision::new(newest, scene)) as Box<dyn Policy>) }.boxed())
    }

    fn is_lost(&self) -> bool {
        self.scene.lost.load(SeqCst) == self.number
    }

    async fn sync(&mut self, deltas: &[u8]) -> Result<(), Failure> {
        if self.number > 1 && !self.filled {
            self.scene.may_fill.acquire().await.expect("never closed").forget();
            if self.scene.broken.load(SeqCst) {
                return Err(Failure::internal("it traps"));
            }
            self.filled = true;
        }
        self.policy.sync(deltas).await
    }

    async fn filter(&mut self, pod: PodRef, among: &NodeSet, explain: bool) -> Result<Verdict, Failure> {
        self.scene.answered.store(self.number, SeqCst);
        self.policy.filter(pod, among, explain).await
    }

    async fn score(&mut self, pod: PodRef, feasible: &NodeSet) -> Result<Vec<i32>, Failure> {
        self.policy.score(pod, feasible).await
    }
}

fn object(kind: &str, resource: &str, value: &Value) -> Object {
    let meta = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    let key = ObjectKey::new(GroupResource::new("", resource), meta("namespace"), meta("name"));
    Object::from_value(Arc::new(Gvk::new("", "v1", kind)), key, value).expect("an object")
}

fn node(n: usize) -> Object {
    object("Node", "nodes", &node_value(n))
}

fn node_value(n: usize) -> Value {
    let name = format!("node-{n}");
    let meta = json!({"name": name, "uid": name, "labels": {"zone": format!("z{}", n % 3)}});
    let status = json!({"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "1000"}});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": status})
}

fn pod(n: usize) -> Object {
    let name = format!("pod-{n}");
    let meta = json!({"name": name, "namespace": "default", "uid": name, "labels": {"app": format!("app-{}", n % 5)}});
    let requests = json!({"cpu": format!("{}m", 10 * (1 + n % 5))});
    let spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]});
    object(
        "Pod",
        "pods",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}),
    )
}

/// A cluster in which one pod after the other is placed.
struct Cluster {
    scene: Arc<Scene>,
    world: World,
    chain: Chain,
    dice: Dice,
    placed: usize,
}

impl Cluster {
    fn new() -> Self {
        let scene = Arc::new(Scene {
            newest: AtomicU64::new(1),
            answered: AtomicU64::new(0),
            may_fill: Semaphore::new(0),
            broken: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            started: AtomicU64::new(0),
        });
        let mut world = World::default();
        for n in 0..NODES {
            world.put_node(&node(n)).expect("a node");
        }
        Self {
            chain: Chain::new(vec![Box::new(Revision::new(1, scene.clone()))]),
            scene,
            world,
            dice: Dice::new(3),
            placed: 0,
        }
    }

    /// Places one pod where a policy that was given the whole world anew would have it too. Which revision answered?
    async fn place(&mut self) -> u64 {
        let waiting = pod(self.placed);
        self.placed += 1;
        let known = self.world.know_object(&waiting).expect("it reads");
        self.chain.sync(&mut self.world).await.expect("no fault");
        let placement = self.chain.place(known, &self.world, &mut self.dice).await;
        let Placement::On(slot) = placement.expect("no fault") else {
            panic!("there is room")
        };

        let mut fresh = Native::<scheduler_default::DefaultPolicy>::new("fresh", 1);
        let everything = self.world.snapshot().write();
        fresh.sync(&everything).await.expect("the layout is kept");
        let verdict = fresh.filter(known, self.world.live(), false).await.expect("it answers");
        let scores = fresh.score(known, &verdict.passed).await.expect("it answers");
        let of_chosen = verdict.passed.iter().zip(&scores).find(|(at, _)| *at == slot);
        assert_eq!(
            of_chosen.map(|(_, score)| score),
            scores.iter().max(),
            "pod {}",
            self.placed
        );

        let name = self.world.node_name(slot).expect("a live node").clone();
        self.world.assume(&waiting.uid, &name, false);
        self.scene.answered.load(SeqCst)
    }

    /// Places pods until `revision` answers.
    async fn until(&mut self, revision: u64) {
        let begun = Instant::now();
        while self.place().await != revision {
            let waited = begun.elapsed();
            assert!(waited < Duration::from_secs(60), "revision {revision} never takes over");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn the_old_one_answers_until_the_new_one_knows_everything() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.place().await, 1);
    cluster.scene.newest.store(2, SeqCst);
    // Pods come and a node goes while the new mirror is being filled with what was there before.
    for n in 0..40 {
        assert_eq!(cluster.place().await, 1);
        if n == 20 {
            cluster.world.remove_node("node-3");
        }
    }
    cluster.scene.may_fill.add_permits(1);
    cluster.until(2).await;
    for _ in 0..20 {
        assert_eq!(cluster.place().await, 2);
    }
    assert_eq!(cluster.scene.started.load(SeqCst), 2, "one successor, made once");
}

#[tokio::test]
async fn one_that_misses_much_is_given_it_before_the_cut() {
    let mut cluster = Cluster::new();
    cluster.place().await;
    cluster.scene.newest.store(2, SeqCst);
    cluster.place().await;
    // Each change of a node is some hundred bytes: more than may be left to the cut.
    for round in 0..40 {
        for n in 0..NODES {
            let mut value = node_value(n);
            let labels = json!({"zone": format!("z{}", n % 3), "round": format!("{round}")});
            value["metadata"]["labels"] = labels;
            let changed = object("Node", "nodes", &value);
            cluster.world.put_node(&changed).expect("a node");
        }
    }
    assert_eq!(cluster.place().await, 1);
    cluster.scene.may_fill.add_permits(1);
    cluster.until(2).await;
}

#[tokio::test]
async fn a_successor_that_does_not_start_changes_nothing() {
    let mut cluster = Cluster::new();
    cluster.place().await;
    cluster.scene.broken.store(true, SeqCst);
    cluster.scene.may_fill.add_permits(100);
    cluster.scene.newest.store(2, SeqCst);
    for _ in 0..50 {
        assert_eq!(cluster.place().await, 1);
        tokio::task::yield_now().await;
    }
    assert_eq!(
        cluster.scene.started.load(SeqCst),
        2,
        "it is not tried again for every pod"
    );
}

#[tokio::test]
async fn a_lost_mirror_is_waited_for() {
    let mut cluster = Cluster::new();
    cluster.place().await;
    cluster.scene.may_fill.add_permits(1);
    cluster.scene.newest.store(2, SeqCst);
    cluster.scene.lost.store(1, SeqCst);
    assert_eq!(cluster.place().await, 2, "there is nobody else to ask");
}
