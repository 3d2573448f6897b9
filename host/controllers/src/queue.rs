//! Which key runs next, and when. No clock and no IO: time comes in as an argument.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// No run of a key begins sooner after its last one than this many times what that took.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(1);
/// After a refusal or a fault: doubled each time, up to the longest.
const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(120);
/// A change of what was read may end the cause of a refusal: a key in back-off waits at most this long after one.
const AFTER_CHANGE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Something it read has changed, or it is new.
    Change,
    /// It only has to run once in a while: after a start or a swap.
    Sweep,
}

/// Keys by a number of the caller's. A key is in at most one place: idle, queued, or closed.
#[derive(Default)]
pub(crate) struct Queue {
    keys: HashMap<u64, State>,
    /// Ready now, in the order they became so.
    ready: [VecDeque<u64>; 2],
    /// Ready later.
    later: BTreeSet<(Instant, u64)>,
}

#[derive(Debug, Default)]
struct State {
    place: Place,
    /// Not before this, however often it is asked for.
    not_before: Option<Instant>,
    /// Runs in a row that did not end well.
    failures: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Idle,
    Ready(Priority),
    Later(Instant, Priority),
    /// Being run, or its intents are being carried out. What was asked meanwhile.
    Closed(Option<Priority>),
}

/// How a run of a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Well,
    /// A refusal or a fault: run again after a wait, without being asked.
    Badly,
    /// It has to run again at once, with the rest that its last run earns.
    Again,
}

impl Queue {
    /// Asks for a run. Any number of times before it begins count as one, at the highest priority asked.
    pub(crate) fn ask(&mut self, key: u64, priority: Priority, now: Instant) {
        let state = self.keys.entry(key).or_default();
        if priority == Priority::Change
            && let Some(not_before) = &mut state.not_before
        {
            *not_before = (*not_before).min(now + AFTER_CHANGE);
        }
        match state.place {
            Place::Closed(asked) => state.place = Place::Closed(Some(asked.map_or(priority, |a| a.min(priority)))),
            Place::Ready(known) if known <= priority => {}
            Place::Later(at, known) if known <= priority && state.not_before.is_none_or(|n| n >= at) => {}
            Place::Ready(known) | Place::Later(_, known) => self.put(key, known.min(priority), now),
            Place::Idle => self.put(key, priority, now),
        }
    }

    /// The next key to run; it is closed from now on. Keys asked for because of a change come first.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(u64, Priority)> {
        while let Some((at, key)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, key));
            let state = self.keys.get_mut(&key).expect("queued keys are known");
            if let Place::Later(_, priority) = state.place {
                state.place = Place::Ready(priority);
                self.ready[priority as usize].push_back(key);
            }
        }
        for priority in [Priority::Change, Priority::Sweep] {
            while let Some(key) = self.ready[priority as usize].pop_front() {
                // A key that was moved to the other list, or forgotten, left its number here.
                if let Some(state) = self
                    .keys
                    .get_mut(&key)
                    .filter(|state| state.place == Place::Ready(priority))
                {
                    state.place = Place::Closed(None);
                    return Some((key, priority));
                }
            }
        }
        None
    }

    /// When [`Queue::next`] should be asked again, if nothing is asked for before.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The closed key could not run yet: back to where it came from, as if it had never been taken.
    pub(crate) fn put_back(&mut self, key: u64, priority: Priority, now: Instant) {
        if let Some(State {
            place: place @ Place::Closed(_),
            ..
        }) = self.keys.get_mut(&key)
        {
            let Place::Closed(asked) = *place else { return };
            *place = Place::Idle;
            self.put(key, asked.map_or(priority, |a| a.min(priority)), now);
        }
    }

    /// Opens a closed key whose run took so long.
    pub(crate) fn end(&mut self, key: u64, took: Duration, end: End, now: Instant) {
        let Some(state) = self.keys.get_mut(&key) else {
            return;
        };
        let Place::Closed(asked) = state.place else {
            return;
        };
        state.place = Place::Idle;
        let rest = (took * REST).min(LONGEST_REST);
        let (wait, again) = match end {
            End::Well => {
                state.failures = 0;
                (rest, asked)
            }
            End::Again => {
                state.failures = 0;
                (rest, Some(asked.unwrap_or(Priority::Change)))
            }
            End::Badly => {
                let back_off = FIRST_BACK_OFF
                    .saturating_mul(1 << state.failures.min(16))
                    .min(LONGEST_BACK_OFF);
                state.failures += 1;
                // A change during the run may have been the cause and may be the cure.
                let back_off = if asked.is_some() {
                    back_off.min(AFTER_CHANGE)
                } else {
                    back_off
                };
                (back_off.max(rest), Some(asked.unwrap_or(Priority::Change)))
            }
        };
        state.not_before = Some(now + wait);
        if let Some(priority) = again {
            self.put(key, priority, now);
        }
    }

    pub(crate) fn forget(&mut self, key: u64) {
        if let Some(State {
            place: Place::Later(at, _),
            ..
        }) = self.keys.remove(&key)
        {
            self.later.remove(&(at, key));
        }
    }

    /// Keys known, keys waiting to run.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let waits = |state: &&State| matches!(state.place, Place::Ready(_) | Place::Later(..));
        (self.keys.len(), self.keys.values().filter(waits).count())
    }

    fn put(&mut self, key: u64, priority: Priority, now: Instant) {
        let state = self.keys.get_mut(&key).expect("the caller has it");
        if let Place::Later(at, _) = state.place {
            self.later.remove(&(at, key));
        }
        match state.not_before.map(|at| (at, at.cmp(&now))) {
            Some((at, Ordering::Greater)) => {
                state.place = Place::Later(at, priority);
                self.later.insert((at, key));
            }
            _ => {
                state.place = Place::Ready(priority);
                self.ready[priority as usize].push_back(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Duration = Duration::ZERO;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[tokio::test]
    async fn asked_often_it_runs_once_and_changes_overtake_sweeps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.ask(1, Priority::Sweep, now);
        queue.ask(2, Priority::Sweep, now);
        queue.ask(3, Priority::Change, now);
        queue.ask(2, Priority::Change, now);
        queue.ask(2, Priority::Sweep, now);
        let order: Vec<u64> = std::iter::from_fn(|| queue.next(now)).map(|(key, _)| key).collect();
        assert_eq!(order, [3, 2, 1]);
    }

    #[tokio::test]
    async fn a_closed_key_waits_for_its_end_and_then_runs_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.ask(1, Priority::Change, now);
        assert_eq!(queue.next(now), Some((1, Priority::Change)));
        queue.ask(1, Priority::Change, now);
        queue.ask(1, Priority::Sweep, now);
        assert_eq!(queue.next(now), None);
        queue.end(1, NOTHING, End::Well, now);
        assert_eq!(queue.next(now), Some((1, Priority::Change)));
        queue.end(1, NOTHING, End::Well, now);
        assert_eq!(queue.next(now), None);
    }

    #[tokio::test]
    async fn a_dear_key_rests() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.ask(1, Priority::Change, now);
        queue.next(now);
        queue.end(1, ms(10), End::Well, now);
        queue.ask(1, Priority::Change, now);
        assert_eq!(queue.next(now + ms(39)), None);
        assert_eq!(queue.due(), Some(now + ms(40)));
        assert_eq!(queue.next(now + ms(40)), Some((1, Priority::Change)));
    }

    #[tokio::test]
    async fn back_off_doubles_and_a_change_shortens_it() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.ask(1, Priority::Change, now);
        for expected in [20, 40, 80, 160, 320, 640, 1280, 2560] {
            assert!(queue.next(now).is_some(), "{expected}");
            queue.end(1, NOTHING, End::Badly, now);
            assert_eq!(queue.due(), Some(now + ms(expected)));
            now += ms(expected);
        }
        queue.next(now);
        queue.end(1, NOTHING, End::Badly, now);
        queue.ask(1, Priority::Change, now);
        assert_eq!(queue.due(), Some(now + AFTER_CHANGE));
    }

    #[tokio::test]
    async fn a_forgotten_key_does_not_come_back() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.ask(1, Priority::Change, now);
        queue.forget(1);
        assert_eq!(queue.next(now), None);
        assert_eq!(queue.lengths(), (0, 0));
    }
}
