//! Waiting longer after each failure, as the kubelet of Kubernetes does.

use jiff::{SignedDuration, Timestamp};

/// Nothing, then 10 s, doubling to 5 min. A run of 10 min is a success that forgets earlier failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

const FIRST: i64 = 10;
const LONGEST: i64 = 300;
const FORGIVEN_AFTER: i64 = 600;

impl Backoff {
    /// A container ended: how long to wait, from its end, before it is started again. The first restart is immediate.
    pub fn ended(&mut self, started: Timestamp, finished: Timestamp) -> SignedDuration {
        if finished.duration_since(started).as_secs() >= FORGIVEN_AFTER {
            self.failures = 0;
        }
        let wait = match self.failures {
            0 => 0,
            n => doubled(n - 1),
        };
        self.failures = self.failures.saturating_add(1);
        SignedDuration::from_secs(wait)
    }

    /// Something was tried and failed: how long to wait before it is tried again, never nothing.
    pub fn failed(&mut self) -> SignedDuration {
        self.failures = self.failures.saturating_add(1);
        SignedDuration::from_secs(doubled(self.failures - 1))
    }

    /// [`Backoff::failed`] for what usually comes right by itself (a ConfigMap applied a moment later, a network plugin
    /// that is starting): 1 s, doubling to 128 s.
    pub fn failed_briefly(&mut self) -> SignedDuration {
        self.failures = self.failures.saturating_add(1);
        SignedDuration::from_secs(1 << (self.failures - 1).min(7))
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

fn doubled(times: u32) -> i64 {
    FIRST.checked_shl(times.min(10)).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_longer_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let waits: Vec<i64> = (0..9).map(|_| backoff.ended(at(0), at(1)).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(backoff.ended(at(0), at(600)).as_secs(), 0);
        assert_eq!(backoff.ended(at(0), at(1)).as_secs(), 10);
    }

    #[test]
    fn retries_wait_from_the_first() {
        let mut backoff = Backoff::default();
        assert_eq!([backoff.failed().as_secs(), backoff.failed().as_secs()], [10, 20]);
        let mut backoff = Backoff::default();
        let waits: Vec<i64> = (0..9).map(|_| backoff.failed_briefly().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 128]);
    }
}
