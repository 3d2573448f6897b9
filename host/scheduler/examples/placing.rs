//! What placing a pod costs: `cargo run --example placing -p scheduler [FOLDER OF GUESTS]`. One JSON object a line.
//!
//! The default policy and binpack behind it, both as components in the plugin host, over a `World` as the scheduler keeps it.
//! On every node are ten pods of the Deployments that the placed ones are replicas of; they come in mixed order, and a fifth of
//! the Deployments spreads over zones. A pod's time is the syncs, the questions, the choice and the assumption; the first pod
//! of each Deployment, for which the policies work out every node, is among them.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{DEPLOYMENTS, PODS_A_NODE, POLICIES, object, plugins, pod, say, world};
use futures::future::BoxFuture;
use model::Failure;
use plugin::{Host, Plugin};
use scheduler::place::{Chain, Placement};
use scheduler::policy::{Points, Policy, Verdict};
use scheduler::world::PodRef;
use scheduler::{Dice, Guest, NodeSet};

const SIZES: [(usize, &str); 3] = [(100, "100"), (1_000, "1,000"), (5_000, "5,000")];
const PLACED: usize = 2_000;
const ROUNDS: usize = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let cache = tempfile::tempdir().expect("a folder");
    let host = Host::new(cache.path()).expect("a host");
    let plugins = plugins(&host).await;
    for (nodes, shown) in SIZES {
        // Rounds, and the best of them: what others do on this machine is not what is measured.
        let mut best: Option<Figures> = None;
        for _ in 0..ROUNDS {
            let round = measure(&plugins, nodes).await;
            if best.as_ref().is_none_or(|best| round.mean < best.mean) {
                best = Some(round);
            }
        }
        for (what, value, unit) in best.map(|best| best.said).unwrap_or_default() {
            say("placing", &format!("{shown} nodes, {what}"), value, unit);
        }
    }
}

/// One round over a new world, with new mirrors.
struct Figures {
    mean: f64,
    said: Vec<(String, f64, &'static str)>,
}

async fn measure(plugins: &[Arc<Plugin>], nodes: usize) -> Figures {
    let mut said = Vec::new();
    let mut say = |what: &str, value: f64, unit| said.push((what.to_owned(), value, unit));
    let mut world = world(nodes);
    let clocks: Vec<Arc<Clock>> = plugins.iter().map(|_| Arc::default()).collect();
    let mut policies: Vec<Box<dyn Policy>> = Vec::new();
    for (plugin, clock) in plugins.iter().zip(&clocks) {
        let guest = Guest::start(plugin.clone(), None).await.expect("it starts");
        policies.push(Box::new(Timed {
            guest,
            clock: clock.clone(),
        }));
    }
    let mut chain = Chain::new(policies);
    let mut dice = Dice::new(1);
    let started = Instant::now();
    chain.sync(&mut world).await.expect("no fault");
    say("two mirrors filled", started.elapsed().as_secs_f64() * 1e3, "ms");
    clocks.iter().for_each(|clock| clock.clear());

    let mut times = Vec::with_capacity(PLACED);
    let mut assuming = Duration::ZERO;
    for n in 0..PLACED {
        let waiting = object(&pod(nodes * PODS_A_NODE + n, dice.roll() as usize % DEPLOYMENTS));
        let known = world.know_object(&waiting).expect("a pod");
        let started = Instant::now();
        chain.sync(&mut world).await.expect("no fault");
        let Placement::On(slot) = chain.place(known, &world, &mut dice).await.expect("no fault") else {
            panic!("there is room for every pod")
        };
        let placed = Instant::now();
        let node = world.node_name(slot).expect("a live node").clone();
        world.assume(&waiting.uid, &node, false);
        assuming += placed.elapsed();
        times.push(started.elapsed());
    }

    let total: Duration = times.iter().sum();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let each = |time: Duration| micros(time) / PLACED as f64;
    times.sort();
    say("mean per pod", each(total), "µs");
    say("p50 per pod", micros(times[PLACED / 2]), "µs");
    say("p99 per pod", micros(times[PLACED * 99 / 100]), "µs");
    let mut rest = total - assuming;
    for (name, clock) in POLICIES.iter().zip(&clocks) {
        for (what, spent) in [
            ("sync", &clock.sync),
            ("filter", &clock.filter),
            ("score", &clock.score),
        ] {
            let spent = Duration::from_nanos(spent.load(Relaxed));
            rest -= spent;
            if !spent.is_zero() {
                say(&format!("of the mean, {what} of {name}"), each(spent), "µs");
            }
        }
    }
    say("of the mean, adding up and choosing", each(rest), "µs");
    say("of the mean, assuming", each(assuming), "µs");
    Figures {
        mean: each(total),
        said,
    }
}

/// Nanoseconds spent in a policy's answers, the wall included.
#[derive(Default)]
struct Clock {
    sync: AtomicU64,
    filter: AtomicU64,
    score: AtomicU64,
}

impl Clock {
    fn clear(&self) {
        [&self.sync, &self.filter, &self.score]
            .into_iter()
            .for_each(|spent| spent.store(0, Relaxed));
    }
}

fn add(to: &AtomicU64, since: Instant) {
    to.fetch_add(since.elapsed().as_nanos() as u64, Relaxed);
}

/// A policy that is timed from the outside.
struct Timed {
    guest: Guest,
    clock: Arc<Clock>,
}

#[async_trait]
impl Policy for Timed {
    fn name(&self) -> &str {
        self.guest.name()
    }

    fn weight(&self) -> i64 {
        self.guest.weight()
    }

    fn points(&self) -> Points {
        self.guest.points()
    }

    fn successor(&self) -> Option<BoxFuture<'static, Result<Box<dyn Policy>, Failure>>> {
        self.guest.successor()
    }

    fn is_lost(&self) -> bool {
        self.guest.is_lost()
    }

    async fn sync(&mut self, deltas: &[u8]) -> Result<(), Failure> {
        let started = Instant::now();
        let answer = self.guest.sync(deltas).await;
        add(&self.clock.sync, started);
        answer
    }

    async fn filter(&mut self, pod: PodRef, among: &NodeSet, explain: bool) -> Result<Verdict, Failure> {
        let started = Instant::now();
        let answer = self.guest.filter(pod, among, explain).await;
        add(&self.clock.filter, started);
        answer
    }

    async fn score(&mut self, pod: PodRef, feasible: &NodeSet) -> Result<Vec<i32>, Failure> {
        let started = Instant::now();
        let answer = self.guest.score(pod, feasible).await;
        add(&self.clock.score, started);
        answer
    }
}
