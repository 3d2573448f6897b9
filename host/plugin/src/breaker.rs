//! Stops calling a plugin that keeps faulting, and tries again after a wait that doubles.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Faults in a row that open it.
const PATIENCE: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// One for each plugin. Closed: calls pass. Open: none does until the wait is over; then one, whose end decides.
#[derive(Debug, Default)]
pub struct Breaker {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Faults since the last good answer.
    in_a_row: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    wait: Duration,
    /// The one call after the wait is under way.
    trying: bool,
}

/// As conditions and `kubectl get plugins` spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    /// For at most this long.
    Open(Duration),
    HalfOpen,
}

impl Breaker {
    /// May a call pass now?
    ///
    /// # Errors
    /// How long to wait.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut inner = self.inner.lock();
        match &mut inner.open {
            None => Ok(()),
            Some(open) if open.trying => Err(open.wait),
            Some(open) if now < open.until => Err(open.until - now),
            Some(open) => {
                open.trying = true;
                Ok(())
            }
        }
    }

    /// A call ended well.
    pub fn succeeded(&self) {
        let mut inner = self.inner.lock();
        if inner.in_a_row > 0 {
            *inner = Inner::default();
        }
    }

    /// True if this fault opened it.
    pub fn faulted(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock();
        inner.in_a_row = inner.in_a_row.saturating_add(1);
        let wait = match &inner.open {
            // Calls that were under way when it opened do not lengthen the wait. One after the wait does, whether it was let
            // in as the trial or (a policy that had been started as one) by itself.
            Some(open) if !open.trying && now < open.until => return false,
            Some(open) => (open.wait * 2).min(LONGEST_WAIT),
            None if inner.in_a_row < PATIENCE => return false,
            None => FIRST_WAIT,
        };
        inner.open = Some(Open {
            until: now + wait,
            wait,
            trying: false,
        });
        true
    }

    /// The trial call was dropped by its caller: the next one is a trial as well.
    pub fn abandoned(&self) {
        if let Some(open) = &mut self.inner.lock().open {
            open.trying = false;
        }
    }

    /// For a new revision: what the last one did is not held against it.
    pub fn reset(&self) {
        *self.inner.lock() = Inner::default();
    }

    pub fn state(&self, now: Instant) -> BreakerState {
        match &self.inner.lock().open {
            None => BreakerState::Closed,
            Some(open) if now < open.until => BreakerState::Open(open.until - now),
            Some(_) => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_three_faults_and_waits_twice_as_long_each_time() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        assert!(!breaker.faulted(now) && !breaker.faulted(now));
        assert!(breaker.faulted(now));
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let wait = Duration::from_secs(wait);
            assert_eq!(breaker.admit(now), Err(wait));
            now += wait;
            assert_eq!(breaker.state(now), BreakerState::HalfOpen);
            assert_eq!(breaker.admit(now), Ok(()), "one call tries");
            assert!(breaker.admit(now).is_err(), "and only one");
            assert!(breaker.faulted(now));
        }
        now += LONGEST_WAIT;
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert!(!breaker.faulted(now), "patience is back");
    }

    #[test]
    fn a_trial_that_only_starts_is_no_success() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            breaker.faulted(now);
        }
        for wait in [1, 2, 4, 8] {
            now += Duration::from_secs(wait);
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.abandoned();
            assert!(breaker.faulted(now), "the first question it is asked fails");
            assert_eq!(breaker.state(now), BreakerState::Open(Duration::from_secs(wait * 2)));
        }
    }

    #[test]
    fn good_answers_in_between_keep_it_closed() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.faulted(Instant::now());
            breaker.faulted(Instant::now());
            breaker.succeeded();
        }
        assert_eq!(breaker.state(Instant::now()), BreakerState::Closed);
    }

    #[test]
    fn calls_under_way_when_it_opens_do_not_lengthen_the_wait() {
        let breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..20 {
            breaker.faulted(now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open(FIRST_WAIT));
    }
}
