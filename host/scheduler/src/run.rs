//! The scheduler's one loop: events into the world, pods from the queue, placements to the binders, their answers back.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use client::Cluster;
use compact_str::CompactString;
use hashbrown::HashSet;
use model::{Caller, Failure, Gvr, Object, Uid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{info, warn};

use crate::bind;
use crate::dice::Dice;
use crate::feed::{Said, follow};
use crate::needs::Pod;
use crate::place::{Chain, Placement, WhyNot};
use crate::policy::Policy;
use crate::queue::Queue;
use crate::report::{Report, Reporter};
use crate::world::{PodRef, World};

/// What the scheduler is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pods whose `spec.schedulerName` is this one are its own.
    pub name: String,
    /// For breaking ties; printed, so that a run can be repeated.
    pub seed: u64,
    /// Bindings on their way to the store at a time. The store commits them in groups, so many is fast.
    pub bindings: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "default-scheduler".into(),
            seed: 0,
            bindings: 512,
        }
    }
}

/// Events taken in before the next pods are tried, and pods tried before events are looked at again.
const EVENTS_A_TURN: usize = 2048;
const PODS_A_TURN: usize = 64;

/// Schedules until `stop` resolves. Bindings under way are left to finish.
///
/// `policies` brings the chain, in the order in which the policies are asked, and another one whenever it changes. Until the
/// first one comes pods wait.
pub async fn run(
    config: Config,
    cluster: Arc<dyn Cluster>,
    mut policies: mpsc::Receiver<Vec<Box<dyn Policy>>>,
    stop: impl Future<Output = ()>,
) {
    let caller = Caller::component("system:kube-scheduler", &[]);
    let (to, mut events) = mpsc::channel(EVENTS_A_TURN);
    let feeds =
        [bind::nodes(), bind::pods()].map(|gvr| tokio::spawn(follow(cluster.clone(), caller.clone(), gvr, to.clone())));
    drop(to);
    let (done_to, mut done) = mpsc::channel(config.bindings.max(1));
    let mut scheduler = Scheduler {
        reporter: Reporter::start(cluster.clone(), caller.clone(), config.name.clone()),
        binders: Arc::new(Semaphore::new(config.bindings.max(1))),
        dice: Dice::new(config.seed),
        config,
        cluster,
        caller,
        done_to,
        chain: Chain::default(),
        world: World::default(),
        queue: Queue::default(),
        nodes: Following::default(),
        pods: Following::default(),
        helped: 0,
        failed: hashbrown::HashMap::default(),
    };
    info!(
        scheduler = scheduler.config.name,
        seed = scheduler.config.seed,
        "scheduling"
    );
    tokio::pin!(stop);
    loop {
        let next = scheduler.turn().await;
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(chain) = policies.recv() => scheduler.take_chain(chain),
            event = events.recv() => {
                let Some(event) = event else { break };
                scheduler.hear(event);
                for _ in 0..EVENTS_A_TURN {
                    let Ok(event) = events.try_recv() else { break };
                    scheduler.hear(event);
                }
            }
            Some(answer) = done.recv() => {
                scheduler.bound(answer);
                while let Ok(answer) = done.try_recv() {
                    scheduler.bound(answer);
                }
            }
            () = until(next) => {}
        }
    }
    feeds.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn until(next: Next) {
    match next {
        Next::Now => {}
        Next::At(at) => tokio::time::sleep_until(at.into()).await,
        Next::Event => std::future::pending().await,
    }
}

/// When there is something to do without an event.
enum Next {
    Now,
    At(Instant),
    Event,
}

/// A feed's state: what was seen since it began to list.
#[derive(Default)]
struct Following {
    synced: bool,
    listing: Option<HashSet<CompactString>>,
    /// Pods by uid, nodes by name.
    known: HashSet<CompactString>,
}

struct Bound {
    uid: Uid,
    pod: Arc<Object>,
    node: Arc<str>,
    result: Result<(), Failure>,
    /// Free once the answer is heard: whoever was told that there is none is told in time when there is one.
    _slot: OwnedSemaphorePermit,
}

struct Candidate {
    object: Arc<Object>,
    pod: PodRef,
    /// What its condition says already.
    said: Option<String>,
}

struct Scheduler {
    config: Config,
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    reporter: Reporter,
    binders: Arc<Semaphore>,
    done_to: mpsc::Sender<Bound>,
    dice: Dice,
    chain: Chain,
    world: World,
    queue: Queue<Candidate>,
    nodes: Following,
    pods: Following,
    /// The world's helpful changes when pods were last brought back.
    helped: u64,
    /// Classes that fitted nowhere, and the state of the world then: others of the class need not be tried in it.
    failed: hashbrown::HashMap<u32, (u64, WhyNot)>,
}

impl Scheduler {
    fn take_chain(&mut self, policies: Vec<Box<dyn Policy>>) {
        self.chain = Chain::new(policies);
        self.failed.clear();
        self.queue.bring_back(Instant::now());
        info!(policies = ?self.chain.names().collect::<Vec<_>>(), "the chain of policies");
    }

    /// Tries pods, at most a turn's worth.
    async fn turn(&mut self) -> Next {
        if !(self.nodes.synced && self.pods.synced) || self.chain.is_empty() {
            return Next::Event;
        }
        let now = Instant::now();
        if self.world.helpful_changes() != self.helped {
            self.helped = self.world.helpful_changes();
            self.failed.clear();
            self.queue.bring_back(now);
        }
        let next = self.queue.wake(now);
        for _ in 0..PODS_A_TURN {
            // A slot first: a pod that is placed is bound at once, and what cannot be bound yet need not be placed.
            if self.queue.active() == 0 {
                return next.map_or(Next::Event, Next::At);
            }
            let Ok(slot) = self.binders.clone().try_acquire_owned() else {
                return Next::Event;
            };
            let Some(uid) = self.queue.pop() else { break };
            self.try_one(uid, slot).await;
        }
        Next::Now
    }

    async fn try_one(&mut self, uid: Uid, slot: OwnedSemaphorePermit) {
        let Some(candidate) = self.queue.get(&uid) else { return };
        let (pod, object) = (candidate.pod, candidate.object.clone());
        if let Some((_, why)) = self
            .failed
            .get(&pod.class)
            .filter(|(at, _)| *at == self.world.helpful_changes())
        {
            let message = why.message();
            return self.unschedulable(&uid, message);
        }
        let placed = match self.chain.sync(&mut self.world).await {
            Ok(()) => self.chain.place(pod, &self.world, &mut self.dice).await,
            Err(fault) => Err(fault),
        };
        match placed {
            Ok(Placement::On(at)) => {
                let Some(node) = self.world.node_name(at).cloned() else {
                    return self.queue.retry(&uid, Instant::now());
                };
                self.world.assume(&uid, &node, false);
                let (cluster, caller, done) = (self.cluster.clone(), self.caller.clone(), self.done_to.clone());
                tokio::spawn(async move {
                    let result = bind::bind(&*cluster, &caller, &object, &node).await;
                    // The loop has gone only at a stop; the binding stands or not, and the next start reads which.
                    let _ = done
                        .send(Bound {
                            uid,
                            pod: object,
                            node,
                            result,
                            _slot: slot,
                        })
                        .await;
                });
            }
            Ok(Placement::Nowhere(why)) => {
                let message = why.message();
                self.failed.insert(pod.class, (self.world.helpful_changes(), why));
                self.unschedulable(&uid, message);
            }
            Err(fault) => {
                warn!(pod = %object.key, %fault, "not placed");
                self.queue.retry(&uid, Instant::now());
                self.tell(&uid, "SchedulerError", fault.to_string());
            }
        }
    }

    fn unschedulable(&mut self, uid: &Uid, message: String) {
        self.queue.set_aside(uid, Instant::now());
        self.tell(uid, "Unschedulable", message);
    }

    /// Says why in the pod's condition, once for each new reason.
    fn tell(&mut self, uid: &Uid, reason: &'static str, message: String) {
        let Some(candidate) = self.queue.get_mut(uid) else {
            return;
        };
        if candidate.said.as_deref() == Some(message.as_str()) {
            return;
        }
        let report = Report::Failed {
            pod: candidate.object.clone(),
            reason,
            message: message.clone(),
        };
        if self.reporter.tell(report) {
            candidate.said = Some(message);
        }
    }

    fn bound(&mut self, answer: Bound) {
        let Bound {
            uid, pod, node, result, ..
        } = answer;
        match result {
            // It stays out of the queue until its own event says where it is: an older event may still be on its way.
            Ok(()) => {
                self.reporter.tell(Report::Scheduled { pod, node });
            }
            Err(Failure::NotFound(_)) => {
                self.queue.remove(&uid);
                self.world.remove_pod(&uid);
            }
            Err(failure) => {
                if self.queue.get(&uid).is_none() {
                    return; // Its event came first: bound after all, or gone.
                }
                warn!(pod = %pod.key, %node, %failure, "not bound; trying again");
                self.world.forget(&uid);
                self.queue.retry(&uid, Instant::now());
            }
        }
    }

    fn hear(&mut self, (gvr, said): (Gvr, Said)) {
        let of_pods = gvr.resource == "pods";
        let following = if of_pods { &mut self.pods } else { &mut self.nodes };
        match said {
            Said::Restart => following.listing = Some(HashSet::new()),
            Said::Synced => {
                following.synced = true;
                let seen = following.listing.take().unwrap_or_default();
                let gone: Vec<_> = following
                    .known
                    .iter()
                    .filter(|id| !seen.contains(*id))
                    .cloned()
                    .collect();
                for id in gone {
                    self.gone(of_pods, id);
                }
            }
            Said::Put(object) => {
                let id = if of_pods { &object.uid.0 } else { &object.key.name };
                following.known.insert(id.clone());
                if let Some(listing) = &mut following.listing {
                    listing.insert(id.clone());
                }
                let heard = if of_pods {
                    self.pod(&object)
                } else {
                    self.world.put_node(&object)
                };
                if let Err(failure) = heard {
                    warn!(object = %object.key, %failure, "left out of scheduling: it cannot be read");
                }
            }
            Said::Gone(object) if of_pods => self.gone(true, object.uid.0.clone()),
            Said::Gone(object) => self.gone(false, object.key.name.clone()),
        }
    }

    fn gone(&mut self, of_pods: bool, id: CompactString) {
        if of_pods {
            self.pods.known.remove(&id);
            let uid = Uid(id);
            self.queue.remove(&uid);
            self.world.remove_pod(&uid);
        } else {
            self.nodes.known.remove(&id);
            self.world.remove_node(&id);
        }
    }

    fn pod(&mut self, object: &Arc<Object>) -> Result<(), Failure> {
        let pod = Pod::read(object)?;
        let uid = &object.uid;
        if pod.finished() {
            self.queue.remove(uid);
            self.world.remove_pod(uid);
            return Ok(());
        }
        let terminating = pod.metadata.deletion_timestamp.is_some();
        if !pod.spec.node_name.is_empty() {
            self.queue.remove(uid);
            self.world.know(uid, &pod)?;
            self.world.assume(uid, &pod.spec.node_name, terminating);
            return Ok(());
        }
        let mine = pod.spec.scheduler_name == self.config.name || pod.spec.scheduler_name.is_empty();
        if !mine || terminating || !pod.spec.scheduling_gates.is_empty() {
            self.queue.remove(uid);
            self.world.remove_pod(uid);
            return Ok(());
        }
        let known = self.world.know(uid, &pod)?;
        if self.queue.get(uid).is_some_and(|c| c.pod == known) {
            // Nothing that placing looks at changed (our own condition, most often): its turn stays where it was.
            return Ok(());
        }
        let said = pod.said_unschedulable().map(String::from);
        self.queue.put(
            uid.clone(),
            pod.spec.priority,
            Candidate {
                object: object.clone(),
                pod: known,
                said,
            },
        );
        Ok(())
    }
}
