//! Pods that wait for a node: tried in order of priority and arrival, set aside when nothing fits, brought back when
//! something changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use model::Uid;

/// First wait after a failed try; doubles to [`BACKOFF_MAX`] (kube-scheduler's podInitialBackoffSeconds, podMaxBackoffSeconds).
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod set aside is tried again after this long even if nothing seemed to help it.
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// Higher priority first, then who came first.
type Rank = (Reverse<i32>, u64);

#[derive(Debug)]
struct Waiting<T> {
    pod: T,
    rank: Rank,
    tries: u32,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    /// Being placed or bound.
    Out,
    Backoff(Instant),
    /// Until something helps, or then.
    Aside(Instant),
}

/// Holds each pod once. Time is an argument, so tests move it.
#[derive(Debug)]
pub struct Queue<T> {
    pods: HashMap<Uid, Waiting<T>, ahash::RandomState>,
    active: BTreeMap<Rank, Uid>,
    timed: BTreeSet<(Instant, Rank, Uid)>,
    arrivals: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            pods: HashMap::default(),
            active: BTreeMap::new(),
            timed: BTreeSet::new(),
            arrivals: 0,
        }
    }
}

impl<T> Queue<T> {
    /// A pod that waits, or new wishes of one. Changed wishes are tried at once, unless it is out.
    pub fn put(&mut self, uid: Uid, priority: i32, pod: T) {
        if let Some(waiting) = self.pods.get_mut(&uid) {
            waiting.pod = pod;
            if waiting.place == Place::Out {
                return;
            }
            let (rank, place) = (waiting.rank, waiting.place);
            self.unlist(&uid, rank, place);
            self.list(uid, Place::Active);
            return;
        }
        self.arrivals += 1;
        let rank = (Reverse(priority), self.arrivals);
        self.pods.insert(
            uid.clone(),
            Waiting {
                pod,
                rank,
                tries: 0,
                place: Place::Active,
            },
        );
        self.active.insert(rank, uid);
    }

    pub fn remove(&mut self, uid: &Uid) -> Option<T> {
        let waiting = self.pods.remove(uid)?;
        self.unlist(uid, waiting.rank, waiting.place);
        Some(waiting.pod)
    }

    pub fn get(&self, uid: &Uid) -> Option<&T> {
        self.pods.get(uid).map(|w| &w.pod)
    }

    pub fn get_mut(&mut self, uid: &Uid) -> Option<&mut T> {
        self.pods.get_mut(uid).map(|w| &mut w.pod)
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// The next to try. It is out until [`Queue::remove`], [`Queue::retry`] or [`Queue::set_aside`].
    pub fn pop(&mut self) -> Option<Uid> {
        let (_, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid).expect("what is listed is held");
        waiting.place = Place::Out;
        waiting.tries += 1;
        Some(uid)
    }

    /// Something failed that is not the pod's fault: once more, after a while.
    pub fn retry(&mut self, uid: &Uid, now: Instant) {
        if let Some(waiting) = self.pods.get(uid) {
            let until = now + backoff(waiting.tries);
            self.list(uid.clone(), Place::Backoff(until));
        }
    }

    /// No node will do until something changes.
    pub fn set_aside(&mut self, uid: &Uid, now: Instant) {
        self.list(uid.clone(), Place::Aside(now + UNSCHEDULABLE_MAX));
    }

    /// Something changed that may help: whoever was set aside is tried again, not sooner than its back-off says.
    pub fn bring_back(&mut self, now: Instant) {
        let aside: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, w)| matches!(w.place, Place::Aside(_)))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in aside {
            let waiting = &self.pods[&uid];
            let (rank, place, tries) = (waiting.rank, waiting.place, waiting.tries);
            let Place::Aside(until) = place else { continue };
            self.unlist(&uid, rank, place);
            let since = until - UNSCHEDULABLE_MAX;
            let ready = since + backoff(tries);
            self.list(
                uid,
                if ready <= now {
                    Place::Active
                } else {
                    Place::Backoff(ready)
                },
            );
        }
    }

    /// Lists those whose time has come; says when the next one's comes.
    pub fn wake(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, _, _)) = self.timed.first() {
            if *at > now {
                return Some(*at);
            }
            let (_, _, uid) = self.timed.pop_first().expect("first was there");
            self.list(uid, Place::Active);
        }
        None
    }

    fn list(&mut self, uid: Uid, place: Place) {
        let Some(waiting) = self.pods.get_mut(&uid) else { return };
        waiting.place = place;
        match place {
            Place::Active => {
                self.active.insert(waiting.rank, uid);
            }
            Place::Backoff(at) | Place::Aside(at) => {
                self.timed.insert((at, waiting.rank, uid));
            }
            Place::Out => {}
        }
    }

    fn unlist(&mut self, uid: &Uid, rank: Rank, place: Place) {
        match place {
            Place::Active => {
                self.active.remove(&rank);
            }
            Place::Backoff(at) | Place::Aside(at) => {
                self.timed.remove(&(at, rank, uid.clone()));
            }
            Place::Out => {}
        }
    }
}

fn backoff(tries: u32) -> Duration {
    BACKOFF_MAX.min(BACKOFF_FIRST * 2u32.saturating_pow(tries.saturating_sub(1).min(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Uid {
        Uid(name.into())
    }

    #[test]
    fn priority_first_then_arrival() {
        let mut queue = Queue::default();
        queue.put(uid("a"), 0, ());
        queue.put(uid("b"), 10, ());
        queue.put(uid("c"), 0, ());
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [uid("b"), uid("a"), uid("c")]);
    }

    #[test]
    fn a_pod_set_aside_comes_back_when_something_helps_but_not_before_its_backoff() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.put(uid("a"), 0, ());
        assert_eq!(queue.pop(), Some(uid("a")));
        queue.set_aside(&uid("a"), start);
        assert_eq!(
            queue.wake(start + Duration::from_secs(2)),
            Some(start + UNSCHEDULABLE_MAX)
        );
        assert_eq!(queue.pop(), None);
        queue.bring_back(start);
        assert_eq!(queue.wake(start), Some(start + BACKOFF_FIRST));
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.wake(start + BACKOFF_FIRST), None);
        assert_eq!(queue.pop(), Some(uid("a")));
    }

    #[test]
    fn nothing_is_held_twice_or_lost() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.put(uid("a"), 0, 1);
        queue.put(uid("a"), 0, 2);
        assert_eq!((queue.len(), queue.active()), (1, 1));
        queue.pop();
        queue.put(uid("a"), 0, 3);
        assert_eq!(queue.active(), 0, "it is out");
        queue.retry(&uid("a"), now);
        assert_eq!(queue.remove(&uid("a")), Some(3));
        assert_eq!(queue.wake(now + BACKOFF_MAX), None);
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn back_off_doubles_to_its_limit() {
        let waits: Vec<_> = (1..8).map(|tries| backoff(tries).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10]);
    }
}
