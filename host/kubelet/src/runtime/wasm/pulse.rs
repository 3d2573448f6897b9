//! The clock that makes guests yield: it beats only while guest code is on a CPU. An idle pod does not tick.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::{Engine, Store, UpdateDeadline};

/// A guest is asked to yield this often.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// The clock goes on this long without a guest, so that a busy server does not wake it for each request.
const LINGER: u32 = 10;

#[derive(Clone)]
pub(crate) struct Pulse {
    running: Arc<AtomicU32>,
    parked: Arc<AtomicU32>,
    thread: Thread,
}

impl Pulse {
    pub fn start(engine: &Engine) -> std::io::Result<Self> {
        let running = Arc::new(AtomicU32::new(0));
        let parked = Arc::new(AtomicU32::new(0));
        let (guests, asleep, engine) = (running.clone(), parked.clone(), engine.weak());
        let beat = move || {
            let mut quiet = 0;
            loop {
                quiet = if guests.load(Ordering::SeqCst) == 0 {
                    quiet + 1
                } else {
                    0
                };
                if quiet > LINGER {
                    asleep.store(1, Ordering::SeqCst);
                    // Looked at again after saying so: whoever came between saw no need to wake us.
                    if guests.load(Ordering::SeqCst) == 0 {
                        std::thread::park();
                    }
                    asleep.store(0, Ordering::SeqCst);
                    quiet = 0;
                }
                std::thread::sleep(TICK);
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("pulse".into())
            .stack_size(64 * 1024)
            .spawn(beat)?;
        Ok(Self {
            running,
            parked,
            thread: thread.thread().clone(),
        })
    }

    /// Runs guest code so that the clock beats while it is on a CPU.
    pub async fn around<F: Future>(&self, guest: F) -> F::Output {
        let mut guest = pin!(guest);
        std::future::poll_fn(|cx| self.poll(guest.as_mut(), cx)).await
    }

    fn poll<F: Future>(&self, guest: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) != 0 {
            self.thread.unpark();
        }
        let outcome = guest.poll(cx);
        self.running.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

/// A container's share of a CPU: what it used beyond it, it waits out, in bursts of a tenth of a second.
pub(crate) struct CpuShare {
    /// Wall time that one tick on a CPU is worth.
    price: Duration,
    paid_until: Mutex<Instant>,
}

const BURST: Duration = Duration::from_millis(100);

impl CpuShare {
    /// `None` when there is no limit, or one of a whole CPU or more for each thread there is.
    pub fn new(quota: i64, period: i64) -> Option<Self> {
        if quota <= 0 || period <= 0 {
            return None;
        }
        let price = TICK.mul_f64((period as f64 / quota as f64).clamp(0.001, 1000.0));
        Some(Self {
            price,
            paid_until: Mutex::new(Instant::now()),
        })
    }

    /// A tick was used: how long to wait before the next.
    fn charge(&self, now: Instant) -> Duration {
        let mut paid = self.paid_until.lock();
        let floor = now.checked_sub(BURST).unwrap_or(now);
        *paid = (*paid).max(floor) + self.price;
        paid.saturating_duration_since(now)
    }
}

/// Makes the guests of a store yield at each tick, and wait when they have used up their share.
pub(crate) fn pace<T: Send + 'static>(store: &mut Store<T>, share: Option<Arc<CpuShare>>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        let wait = share
            .as_ref()
            .map_or(Duration::ZERO, |share| share.charge(Instant::now()));
        Ok(if wait.is_zero() {
            UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
        } else {
            UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(wait)))
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_a_cpu_waits_four_fifths_of_the_time() {
        let share = CpuShare::new(20_000, 100_000).unwrap();
        let mut now = Instant::now();
        let (begun, mut used) = (now, Duration::ZERO);
        for _ in 0..100 {
            now += TICK;
            used += TICK;
            now += share.charge(now);
        }
        let part = used.as_secs_f64() / now.duration_since(begun).as_secs_f64();
        assert!((0.19..0.23).contains(&part), "{part}");
        assert!(CpuShare::new(0, 100_000).is_none());
    }
}
