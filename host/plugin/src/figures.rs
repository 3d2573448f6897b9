//! What a plugin costs: counted in atomics as calls end, summed up only when somebody reads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::Fault;

/// Counters of one plugin, over all its revisions.
#[derive(Debug, Default)]
pub struct Figures {
    calls: AtomicU64,
    faults: AtomicU64,
    /// Bytes handed to and taken from the guest by host calls.
    bytes: AtomicU64,
    host_calls: AtomicU64,
    /// Largest linear memory any instance ever had.
    memory: AtomicU64,
    dropped_lines: AtomicU64,
    times: Histogram,
    last_fault: Mutex<Option<Fault>>,
}

/// Figures at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub calls: u64,
    pub faults: u64,
    pub host_calls: u64,
    pub bytes: u64,
    pub memory: u64,
    /// Log lines that were over a call's budget.
    pub dropped_lines: u64,
    /// Wall time of calls, host calls included; zero where there was no call. Off by at most an eighth.
    pub p50: Duration,
    pub p99: Duration,
    pub total: Duration,
    pub last_fault: Option<Fault>,
}

impl Figures {
    pub(crate) fn called(&self, took: Duration) {
        self.calls.fetch_add(1, Relaxed);
        self.times.add(took);
    }

    pub(crate) fn spent(&self, host_calls: u64, bytes: u64, dropped_lines: u64, memory: u64) {
        // Most calls make none of some of these: an untouched cache line is cheaper than a zero added.
        for (counter, amount) in [
            (&self.host_calls, host_calls),
            (&self.bytes, bytes),
            (&self.dropped_lines, dropped_lines),
        ] {
            if amount > 0 {
                counter.fetch_add(amount, Relaxed);
            }
        }
        if memory > self.memory.load(Relaxed) {
            self.memory.fetch_max(memory, Relaxed);
        }
    }

    pub(crate) fn faulted(&self, fault: &Fault) {
        self.faults.fetch_add(1, Relaxed);
        *self.last_fault.lock() = Some(fault.clone());
    }

    pub(crate) fn last_fault(&self) -> Option<Fault> {
        self.last_fault.lock().clone()
    }

    pub fn read(&self) -> Snapshot {
        Snapshot {
            calls: self.calls.load(Relaxed),
            faults: self.faults.load(Relaxed),
            host_calls: self.host_calls.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            memory: self.memory.load(Relaxed),
            dropped_lines: self.dropped_lines.load(Relaxed),
            p50: self.times.quantile(0.50),
            p99: self.times.quantile(0.99),
            total: Duration::from_nanos(self.times.total.load(Relaxed)),
            last_fault: self.last_fault(),
        }
    }
}

/// Four buckets an octave from 1 ns to 2^40 ns (18 minutes).
#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU32; BUCKETS],
    total: AtomicU64,
}

const PER_OCTAVE: usize = 4;
const BUCKETS: usize = 40 * PER_OCTAVE;

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            total: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.total.fetch_add(nanos, Relaxed);
    }

    fn quantile(&self, part: f64) -> Duration {
        let counts: Vec<u64> = self.buckets.iter().map(|b| u64::from(b.load(Relaxed))).collect();
        let all: u64 = counts.iter().sum();
        // The smallest time that at least this many calls did not exceed.
        let wanted = (all as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (at, count) in counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return Duration::from_nanos(middle(at));
            }
        }
        Duration::ZERO
    }
}

/// The octave's number, then the next two bits below its highest one.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(4);
    let octave = nanos.ilog2() as usize;
    let quarter = (nanos >> (octave - 2)) as usize & (PER_OCTAVE - 1);
    (octave * PER_OCTAVE + quarter).min(BUCKETS - 1)
}

fn middle(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / PER_OCTAVE, bucket % PER_OCTAVE);
    let base = 1u64 << octave;
    base + base / 4 * quarter as u64 + base / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_an_eighth() {
        let histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        for (part, exact) in [(0.5, 500.0), (0.99, 990.0)] {
            let read = histogram.quantile(part).as_nanos() as f64 / 1000.0;
            assert!(
                (read / exact - 1.0).abs() < 0.125 + 1e-9,
                "{part}: {read} is not {exact}"
            );
        }
    }

    #[test]
    fn every_time_has_a_bucket() {
        for nanos in [0, 1, 5, 7, 8, 1 << 20, u64::MAX] {
            assert!(bucket(nanos) < BUCKETS);
        }
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
    }
}
