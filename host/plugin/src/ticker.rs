//! The clock behind deadlines: advances the engines' epoch while calls are running, and rests when none is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// A guest that computes is looked at this often.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call before the thread goes to rest: waking it costs a system call, so a burst of short calls
/// should not do that each time.
const LINGER: u32 = 100;

/// Counts the calls that are running. One thread, which ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    /// Wakes the thread to end when dropped with the last clone.
    _end: Arc<End>,
}

struct Shared {
    running: AtomicUsize,
    resting: AtomicBool,
    ended: AtomicBool,
}

struct End {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Ticker {
    pub(crate) fn start(engines: &[&Engine]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let weak: Vec<EngineWeak> = engines.iter().map(|engine| engine.weak()).collect();
        let theirs = shared.clone();
        let spawned = thread::Builder::new()
            .name("plugin-ticker".into())
            .spawn(move || tick(&theirs, &weak))?;
        let thread = spawned.thread().clone();
        Ok(Self {
            _end: Arc::new(End {
                shared: shared.clone(),
                thread: thread.clone(),
            }),
            shared,
            thread,
        })
    }

    /// Ticks at least until the guard is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        // Ordered against `tick`: either it sees us running before it rests, or we see it resting and wake it.
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.resting.load(SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }

    #[cfg(test)]
    fn resting(&self) -> bool {
        self.shared.resting.load(SeqCst)
    }
}

pub(crate) struct Running<'t>(&'t Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn tick(shared: &Shared, engines: &[EngineWeak]) {
    let mut idle = 0;
    while !shared.ended.load(SeqCst) {
        thread::sleep(TICK);
        engines
            .iter()
            .filter_map(EngineWeak::upgrade)
            .for_each(|engine| engine.increment_epoch());
        idle = if shared.running.load(SeqCst) == 0 { idle + 1 } else { 0 };
        if idle > LINGER {
            shared.resting.store(true, SeqCst);
            // Parking may end for no reason, hence the loop.
            while shared.running.load(SeqCst) == 0 && !shared.ended.load(SeqCst) {
                thread::park();
            }
            shared.resting.store(false, SeqCst);
            idle = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn eventually(what: &str, is: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < until, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn rests_when_nothing_runs_and_wakes_for_a_call() {
        let ticker = Ticker::start(&[]).unwrap();
        eventually("an idle ticker rests", || ticker.resting());
        let running = ticker.run();
        eventually("a call wakes it", || !ticker.resting());
        drop(running);
        eventually("it rests again", || ticker.resting());
    }

    #[test]
    fn the_thread_ends_with_its_last_clone() {
        let ticker = Ticker::start(&[]).unwrap();
        let shared = Arc::downgrade(&ticker.shared);
        drop(ticker.clone());
        assert!(shared.upgrade().is_some());
        drop(ticker);
        eventually("its thread lets go of what it shares", || shared.upgrade().is_none());
    }
}
