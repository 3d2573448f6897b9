//! One controller at work: keys in, calls on standing views, intents out.
//!
//! The order in a run matters. A view opens only when it shows the key's own last writes. What the call read is installed
//! as the key's reasons to run before its intents are carried out, so that what they change wakes it. The key stays closed
//! from the call to the answer of the last intent; a swap in between only decides who answers the next call.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::Cluster;
use futures::FutureExt;
use hashbrown::HashMap;
use model::{Caller, Failure, Gvk, Object};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use view::{Floor, Follow, Grants, RecordedView, Recording, View, Wake, Why};

use crate::carry::{Carried, Carrier};
use crate::events::Events;
use crate::intent::{Intent, Key, MEMO_BYTES, Outcome, Refusal, Request};
use crate::queue::{End, Priority, Queue};
use crate::reconciler::Reconciler;

/// How often a call is made again because it asked for a kind that nobody had read before.
const FILLS: usize = 16;

/// What a controller is run with.
pub struct Options {
    /// The plugin's name: it writes as `system:plugin:NAME`.
    pub name: String,
    pub cluster: Arc<dyn Cluster>,
    pub view: Arc<View>,
    pub grants: Arc<dyn Grants>,
    /// Keys run at the same time.
    pub at_once: usize,
    /// The leader's term, where there are several processes; nothing runs while it is `None`, and what is left of a
    /// key's intents is dropped when it changes. Absent: always leading.
    pub term: Option<watch::Receiver<Option<u64>>>,
    /// Sees every run. For recorders, for `why did this run?`, for tests.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Sees what happened, after it happened.
pub trait Observer: Send + Sync + 'static {
    fn ran(&self, run: &Run<'_>);
}

/// One run of one key.
pub struct Run<'a> {
    pub request: &'a Request,
    /// The first reason since the last run.
    pub why: Option<&'a Why>,
    pub view: &'a RecordedView,
    pub answer: &'a Result<Outcome, Failure>,
    /// Of the call alone.
    pub took: Duration,
    pub refused: Option<&'a Refusal>,
}

impl Run<'_> {
    /// The call as it can be replayed: the request as JSON, and every read with its answer.
    pub fn recording(&self) -> Recording {
        self.view
            .recording(serde_json::to_vec(self.request).expect("plain data").into())
    }
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub runs: u64,
    pub faults: u64,
    pub refusals: u64,
    pub intents: u64,
    pub keys: usize,
    pub waiting: usize,
}

/// A running controller. Dropping it stops it: a call under way ends, the write under way too, nothing after that.
pub struct Controller {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    reconciler: Arc<dyn Reconciler>,
    carrier: Carrier,
    grants: Arc<dyn Grants>,
    term: Option<watch::Receiver<Option<u64>>>,
    observer: Option<Arc<dyn Observer>>,
    state: Mutex<State>,
    /// Something was put into the queue.
    asked: Notify,
    permits: Arc<Semaphore>,
    /// All that is there at the start is swept; what comes later has come.
    starting: AtomicBool,
    stopped: AtomicBool,
    runs: AtomicU64,
    faults: AtomicU64,
    refusals: AtomicU64,
    intents: AtomicU64,
}

#[derive(Default)]
struct State {
    queue: Queue,
    keys: HashMap<u64, Entry, ahash::RandomState>,
    numbers: HashMap<Key, u64, ahash::RandomState>,
}

/// What is known of one key between its runs.
struct Entry {
    key: Key,
    /// The subject is there.
    present: bool,
    memo: Bytes,
    refused: Option<Refusal>,
    floor: Floor,
    why: Option<Why>,
}

/// Numbers name keys to the view, across all controllers of a process.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Controller {
    /// Starts working at once. Call it in a tokio runtime.
    pub fn start(reconciler: Arc<dyn Reconciler>, options: Options) -> Self {
        let caller = Caller::component(&format!("system:plugin:{}", options.name), &["system:plugins"]);
        let carrier = Carrier {
            cluster: options.cluster,
            view: options.view,
            caller,
            field_manager: options.name,
            events: Events::default(),
        };
        let shared = Arc::new(Shared {
            reconciler,
            carrier,
            grants: options.grants,
            term: options.term,
            observer: options.observer,
            state: Mutex::default(),
            asked: Notify::new(),
            permits: Arc::new(Semaphore::new(options.at_once.max(1))),
            starting: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            runs: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            intents: AtomicU64::new(0),
        });
        let tasks = vec![
            tokio::spawn(follow(shared.clone())),
            tokio::spawn(dispatch(shared.clone())),
        ];
        Self { shared, tasks }
    }

    pub fn figures(&self) -> Figures {
        let (keys, waiting) = self.shared.state.lock().queue.lengths();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            runs: read(&self.shared.runs),
            faults: read(&self.shared.faults),
            refusals: read(&self.shared.refusals),
            intents: read(&self.shared.intents),
            keys,
            waiting,
        }
    }

    /// Asks for one run of every key, at low priority.
    pub fn sweep(&self) {
        self.shared.sweep();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let readers: Vec<u64> = self.shared.state.lock().keys.keys().copied().collect();
        readers
            .into_iter()
            .for_each(|reader| self.shared.carrier.view.forget(reader));
    }
}

/// Keeps the keys in step with the subjects there are, through every exchange of the plugin.
async fn follow(shared: Arc<Shared>) {
    let mut revision = shared.reconciler.revision();
    let mut following: Option<Gvk> = None;
    let follower: Arc<dyn Follow> = Arc::new(Subjects(Arc::downgrade(&shared)));
    loop {
        revision.borrow_and_update();
        let subject = shared.reconciler.subject();
        if subject != following {
            if let Some(old) = following.take() {
                shared.carrier.view.unfollow(&old, &follower);
                shared.leave();
            }
            if let Some(kind) = subject {
                shared.starting.store(true, Ordering::Release);
                if let Err(failure) = shared.carrier.view.follow(&kind, follower.clone()).await {
                    tracing::warn!(controller = shared.carrier.field_manager, %kind, %failure, "its subjects cannot be read yet");
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                        _ = revision.changed() => {}
                    }
                    continue;
                }
                shared.starting.store(false, Ordering::Release);
                following = Some(kind);
            }
        } else {
            shared.sweep();
        }
        if revision.changed().await.is_err() {
            // The reconciler will never change any more; the keys still come and go through the follower.
            std::future::pending::<()>().await;
        }
    }
}

/// Hands ready keys to as many runs as may go on at once.
async fn dispatch(shared: Arc<Shared>) {
    loop {
        if !shared.leads() {
            shared.until_leading().await;
        }
        let Ok(permit) = shared.permits.clone().acquire_owned().await else {
            return;
        };
        let (next, due) = {
            let mut state = shared.state.lock();
            let next = state.queue.next(Instant::now());
            (next, state.queue.due())
        };
        let Some((number, priority)) = next else {
            drop(permit);
            match due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, shared.asked.notified()).await;
                }
                None => shared.asked.notified().await,
            }
            continue;
        };
        let floor = shared
            .state
            .lock()
            .keys
            .get(&number)
            .map(|entry| entry.floor.clone())
            .unwrap_or_default();
        if shared.carrier.view.shows(&floor) {
            tokio::spawn(run(shared.clone(), number, permit));
        } else {
            // Its own writes are not in the view yet. It waits without a permit, so that others run.
            drop(permit);
            let shared = shared.clone();
            tokio::spawn(async move {
                shared.carrier.view.reach(&floor).await;
                shared.state.lock().queue.put_back(number, priority, Instant::now());
                shared.asked.notify_one();
            });
        }
    }
}

async fn run(shared: Arc<Shared>, number: u64, permit: tokio::sync::OwnedSemaphorePermit) {
    let began = Instant::now();
    let end = shared.clone().once(number).await;
    let mut state = shared.state.lock();
    match end {
        Some((took, end)) => state.queue.end(number, took, end, Instant::now()),
        // Nothing is left of it: no subject, no intents.
        None => {
            state.queue.forget(number);
            if let Some(entry) = state.keys.remove(&number) {
                state.numbers.remove(&entry.key);
            }
        }
    }
    drop(state);
    drop(permit);
    // A controller that was stopped meanwhile has forgotten its keys already, but this run has installed its reads since.
    if end.is_none() || shared.stopped.load(Ordering::Acquire) {
        shared.carrier.view.forget(number);
    }
    shared.asked.notify_one();
    tracing::trace!(number, took = ?began.elapsed(), "a run ended");
}

impl Shared {
    /// One run of a closed key. `None`: the key is done for good.
    async fn once(self: Arc<Self>, number: u64) -> Option<(Duration, End)> {
        let term = self.term.as_ref().map(|term| *term.borrow());
        let (mut request, why) = {
            let mut state = self.state.lock();
            let entry = state.keys.get_mut(&number)?;
            let (refused, memo) = (entry.refused.clone(), entry.memo.clone());
            (
                Request {
                    key: entry.key.clone(),
                    refused,
                    memo,
                    now: 0,
                },
                entry.why.take(),
            )
        };
        self.runs.fetch_add(1, Ordering::Relaxed);
        let (view, answer, took) = self.call(&mut request).await;
        let outcome = match &answer {
            Ok(outcome) if outcome.memo.len() > MEMO_BYTES => {
                let says = format!("its memo has {} bytes; {MEMO_BYTES} is the limit", outcome.memo.len());
                Err(Failure::Plugin {
                    name: self.carrier.field_manager.clone(),
                    doing: "reconcile",
                    reason: says,
                })
            }
            answer => answer.as_ref().map_err(|_| Failure::Internal(String::new())),
        };
        let Ok(outcome) = outcome else {
            self.faults.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(key = %request.key, answer = ?answer.as_ref().err(), "a run did not end well");
            self.tell(&request, why.as_ref(), &view, &answer, took, None);
            return Some((took, End::Badly));
        };
        self.carrier.view.install(number, self.clone(), &view);
        let holds = || {
            // A controller that was stopped writes no more: another of its name may already be at work.
            !self.stopped.load(Ordering::Acquire)
                && self
                    .term
                    .as_ref()
                    .is_none_or(|now| Some(*now.borrow()) == term && term.flatten().is_some())
        };
        let Carried { done, refused, floor } = self.carrier.carry(&outcome.intents, &view, holds).await;
        self.intents.fetch_add(done as u64, Ordering::Relaxed);
        let times = request.refused.as_ref().map_or(0, |refusal| refusal.times) + 1;
        let refused = refused.map(|(intent, why)| Refusal { intent, why, times });
        self.tell(&request, why.as_ref(), &view, &answer, took, refused.as_ref());
        let end = match &refused {
            Some(_) => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                End::Badly
            }
            // The term ended in between: whoever leads next decides anew, and so do we if it is us again.
            None if done < outcome.intents.len() => End::Again,
            None => End::Well,
        };
        let mut state = self.state.lock();
        let entry = state.keys.get_mut(&number)?;
        entry.memo = outcome.memo.clone();
        entry.refused = refused;
        entry.floor = floor;
        // A subject that is gone is run until there is nothing left to do for it.
        let quiet = outcome.intents.iter().all(|intent| matches!(intent, Intent::Event(_)));
        match (entry.present, end) {
            (false, End::Well) if quiet => None,
            (false, End::Well) => Some((took, End::Again)),
            _ => Some((took, end)),
        }
    }

    /// The call itself, made again while it asks for kinds that nobody had read before.
    async fn call(&self, request: &mut Request) -> (Arc<RecordedView>, Result<Outcome, Failure>, Duration) {
        let mut fills = 0;
        loop {
            let view = Arc::new(self.carrier.view.open(self.grants.clone()));
            request.now = view.now();
            let began = Instant::now();
            let call = AssertUnwindSafe(self.reconciler.reconcile(request, view.clone()))
                .catch_unwind()
                .await;
            let took = began.elapsed();
            let answer = call.unwrap_or_else(|_| {
                let name = self.carrier.field_manager.clone();
                Err(Failure::Plugin {
                    name,
                    doing: "reconcile",
                    reason: "it panicked".into(),
                })
            });
            let unfilled = view.unfilled();
            if unfilled.is_empty() || fills == FILLS {
                return (view, answer, took);
            }
            fills += 1;
            if let Err(failure) = self.carrier.view.fill(&unfilled).await {
                return (view, Err(failure), took);
            }
        }
    }

    fn tell(
        &self,
        request: &Request,
        why: Option<&Why>,
        view: &RecordedView,
        answer: &Result<Outcome, Failure>,
        took: Duration,
        refused: Option<&Refusal>,
    ) {
        if let Some(observer) = &self.observer {
            observer.ran(&Run {
                request,
                why,
                view,
                answer,
                took,
                refused,
            });
        }
    }

    fn ask(&self, number: u64, priority: Priority, why: Option<Why>) {
        let mut state = self.state.lock();
        let Some(entry) = state.keys.get_mut(&number) else {
            return;
        };
        if entry.why.is_none() {
            entry.why = why;
        }
        state.queue.ask(number, priority, Instant::now());
        drop(state);
        self.asked.notify_one();
    }

    fn sweep(&self) {
        let mut state = self.state.lock();
        let numbers: Vec<u64> = state.keys.keys().copied().collect();
        for number in numbers {
            state.queue.ask(number, Priority::Sweep, Instant::now());
        }
        drop(state);
        self.asked.notify_one();
    }

    /// The subject is another kind now: keys of the old one have nothing to run for.
    fn leave(&self) {
        let old = std::mem::take(&mut *self.state.lock());
        old.keys.into_keys().for_each(|number| self.carrier.view.forget(number));
    }

    fn leads(&self) -> bool {
        self.term.as_ref().is_none_or(|term| term.borrow().is_some())
    }

    /// Another process may have worked in the meantime, so everything is looked at once.
    async fn until_leading(&self) {
        let Some(mut term) = self.term.clone() else {
            return;
        };
        if term.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.sweep();
    }
}

impl Wake for Shared {
    fn wake(&self, reader: u64, why: Why) {
        self.ask(reader, Priority::Change, Some(why));
    }
}

/// Hears of subjects. Weak, as the view may outlive the controller.
struct Subjects(std::sync::Weak<Shared>);

impl Follow for Subjects {
    fn came(&self, object: &Arc<Object>) {
        self.seen(object, true);
    }

    fn went(&self, object: &Arc<Object>) {
        self.seen(object, false);
    }
}

impl Subjects {
    fn seen(&self, object: &Arc<Object>, present: bool) {
        let Some(shared) = self
            .0
            .upgrade()
            .filter(|shared| !shared.stopped.load(Ordering::Acquire))
        else {
            return;
        };
        let key = Key::new((*object.gvk).clone(), &object.key.namespace, &object.key.name);
        let priority = if shared.starting.load(Ordering::Acquire) {
            Priority::Sweep
        } else {
            Priority::Change
        };
        let mut state = shared.state.lock();
        let number = match state.numbers.get(&key) {
            Some(number) => *number,
            None if !present => return,
            None => {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let entry = Entry {
                    key: key.clone(),
                    present,
                    memo: Bytes::new(),
                    refused: None,
                    floor: Floor::default(),
                    why: None,
                };
                state.numbers.insert(key, number);
                state.keys.insert(number, entry);
                number
            }
        };
        state.keys.get_mut(&number).expect("numbers and keys agree").present = present;
        state.queue.ask(number, priority, Instant::now());
        drop(state);
        shared.asked.notify_one();
    }
}
