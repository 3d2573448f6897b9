//! What one call and one instance may use.

use std::time::Duration;

use crate::fault::Stop;

/// Set by the `Plugin` object, with defaults for each world. All are per call, but for `memory` and `tables`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Processor time of the guest, host calls included. Not touched by how busy the machine is.
    pub cpu: Duration,
    /// Wall time, waiting for the cluster included.
    pub deadline: Duration,
    /// Bytes of linear memory, all of an instance's memories together.
    pub memory: usize,
    /// Elements of all its tables together.
    pub table_elements: usize,
    pub host_calls: u32,
    /// What its host calls take and answer, together.
    pub host_bytes: u64,
    /// Of log lines, within `host_bytes`. What is over is counted and dropped; it is no fault.
    pub log_bytes: u64,
    /// What may cross from the guest at once: an answer, or one host call's arguments.
    pub answer_bytes: usize,
}

const MB: usize = 1 << 20;

impl Limits {
    /// A reconcile: many calls of tens of microseconds.
    pub fn controller() -> Self {
        Self {
            cpu: Duration::from_millis(200),
            deadline: Duration::from_secs(5),
            memory: 64 * MB,
            table_elements: 100_000,
            host_calls: 10_000,
            host_bytes: 64 * MB as u64,
            log_bytes: 16 << 10,
            answer_bytes: 8 * MB,
        }
    }

    /// A rule in the path of somebody's request.
    pub fn admission() -> Self {
        Self {
            cpu: Duration::from_millis(50),
            deadline: Duration::from_secs(2),
            memory: 32 * MB,
            host_calls: 1_000,
            host_bytes: 8 * MB as u64,
            answer_bytes: 4 * MB,
            ..Self::controller()
        }
    }

    /// A policy with the whole cluster in its memory; its first `sync` takes the longest.
    pub fn policy() -> Self {
        Self {
            cpu: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
            memory: 1024 * MB,
            answer_bytes: 16 * MB,
            ..Self::controller()
        }
    }
}

/// What is left of the limits during one call.
#[derive(Debug, Default)]
pub struct Budget {
    limit: (u32, u64),
    host_calls: u32,
    bytes: u64,
    log_bytes: u64,
    dropped_lines: u32,
    /// What it wrote to its standard error: a panic's message, should it come to that.
    words: String,
}

/// More of a panic than this does not help.
const WORDS: usize = 1024;

impl Budget {
    pub fn of(limits: &Limits) -> Self {
        Self {
            limit: (limits.host_calls, limits.host_bytes),
            host_calls: limits.host_calls,
            bytes: limits.host_bytes,
            log_bytes: limits.log_bytes,
            dropped_lines: 0,
            words: String::new(),
        }
    }

    /// Pays for one host call and what it was given.
    pub(crate) fn call(&mut self, bytes: usize) -> Result<(), Stop> {
        self.host_calls = self.host_calls.checked_sub(1).ok_or(Stop::HostCalls(self.limit.0))?;
        self.bytes(bytes)
    }

    /// Pays for what is about to be answered.
    pub(crate) fn bytes(&mut self, bytes: usize) -> Result<(), Stop> {
        self.bytes = self.bytes.checked_sub(bytes as u64).ok_or(Stop::Bytes(self.limit.1))?;
        Ok(())
    }

    /// May this line be printed?
    pub(crate) fn line(&mut self, bytes: usize) -> bool {
        match self.log_bytes.checked_sub(bytes as u64) {
            Some(left) => self.log_bytes = left,
            None => {
                // Later lines are dropped as well, however short: half a story misleads.
                self.log_bytes = 0;
                self.dropped_lines = self.dropped_lines.saturating_add(1);
                return false;
            }
        }
        true
    }

    pub(crate) fn says(&mut self, line: &str) {
        let left = WORDS.saturating_sub(self.words.len());
        if left > 0 && !self.words.is_empty() {
            self.words.push(' ');
        }
        self.words.extend(line.chars().take(left));
    }

    /// Host calls made, bytes moved, lines dropped and what was said, at the end of a call.
    pub(crate) fn settle(&mut self) -> (u64, u64, u32, String) {
        let host_calls = u64::from(self.limit.0 - self.host_calls);
        (
            host_calls,
            self.limit.1 - self.bytes,
            self.dropped_lines,
            std::mem::take(&mut self.words),
        )
    }
}

/// Counts what an instance holds and says no at the limit, always at the same point: the same call grows or fails to
/// grow on every machine.
#[derive(Debug)]
pub(crate) struct Holdings {
    memory_limit: usize,
    table_limit: usize,
    memory: usize,
    tables: usize,
    /// A growth was denied. Guests answer that with a trap of their own, which by itself would not tell why.
    pub(crate) denied: bool,
}

impl Holdings {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory,
            table_limit: limits.table_elements,
            memory: 0,
            tables: 0,
            denied: false,
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.memory
    }
}

impl wasmtime::ResourceLimiter for Holdings {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory - current.min(self.memory) + desired;
        self.denied |= total > self.memory_limit;
        if total <= self.memory_limit {
            self.memory = total;
        }
        Ok(total <= self.memory_limit)
    }

    /// Within its limit, but the machine could not: a fault of ours, never an answer that differs from machine to machine.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if self.denied { Ok(()) } else { Err(error) }
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.tables - current.min(self.tables) + desired;
        self.denied |= total > self.table_limit;
        if total <= self.table_limit {
            self.tables = total;
        }
        Ok(total <= self.table_limit)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if self.denied { Ok(()) } else { Err(error) }
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::ResourceLimiter;

    use super::*;

    #[test]
    fn memories_share_one_limit() {
        let mut holdings = Holdings::new(&Limits {
            memory: 100,
            ..Limits::controller()
        });
        assert!(holdings.memory_growing(0, 60, None).unwrap());
        assert!(!holdings.memory_growing(0, 50, None).unwrap() && holdings.denied);
        assert!(holdings.memory_growing(60, 100, None).unwrap());
        assert_eq!(holdings.memory(), 100);
    }

    #[test]
    fn a_budget_ends_exactly_at_its_limit() {
        let limits = Limits {
            host_calls: 2,
            host_bytes: 10,
            log_bytes: 5,
            ..Limits::controller()
        };
        let mut budget = Budget::of(&limits);
        budget.call(4).unwrap();
        budget.bytes(6).unwrap();
        assert!(matches!(budget.bytes(1), Err(Stop::Bytes(10))));
        assert_eq!(budget.settle(), (1, 10, 0, String::new()));
        budget.call(0).unwrap();
        assert!(matches!(budget.call(0), Err(Stop::HostCalls(2))));
        assert!(budget.line(5) && !budget.line(1));
        assert_eq!(budget.dropped_lines, 1);
    }
}
