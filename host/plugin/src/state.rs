//! What the host keeps beside one guest instance.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxView, WasiView};

use crate::PluginName;
use crate::capability::wasi;
use crate::limits::{Budget, Holdings, Limits};
use crate::reads::{NoReads, Reads};

pub(crate) struct State {
    pub(crate) plugin: PluginName,
    pub(crate) holdings: Holdings,
    /// Shared with the guest's standard output and error, which spend it as log lines do.
    pub(crate) budget: Arc<Mutex<Budget>>,
    pub(crate) reads: Box<dyn Reads>,
    /// Shared with the future a long call yields with.
    pub(crate) meter: Arc<Mutex<Meter>>,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub(crate) fn new(plugin: &PluginName, limits: &Limits) -> Self {
        let budget = Arc::new(Mutex::new(Budget::of(limits)));
        Self {
            plugin: plugin.clone(),
            holdings: Holdings::new(limits),
            wasi: wasi::context(plugin, &budget),
            budget,
            reads: Box::new(NoReads),
            meter: Arc::default(),
            table: ResourceTable::new(),
        }
    }

    pub(crate) fn begin(&mut self, limits: &Limits, reads: Box<dyn Reads>) {
        *self.budget.lock() = Budget::of(limits);
        self.reads = reads;
        *self.meter.lock() = Meter {
            limit: limits.cpu,
            ..Meter::default()
        };
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// The processor time one call used, looked at once a tick.
///
/// A call that ends within a tick is never looked at and pays nothing. One that goes on is given back to the runtime at
/// each tick, so that it shares its thread fairly, and is measured from there to the next tick by the thread's own
/// processor clock: time in which the thread did not run, or the call waited, does not count.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    limit: Duration,
    used: Duration,
    /// The thread's clock when the call was last resumed after a tick; whose thread it was.
    resumed: Option<(std::thread::ThreadId, Duration)>,
}

impl Meter {
    /// At a tick. `tick` is charged where no earlier reading on this thread tells better.
    pub(crate) fn tick(&mut self, tick: Duration) -> Result<(), Duration> {
        let now = thread_time();
        let thread = std::thread::current().id();
        self.used += match self.resumed.take() {
            Some((of, before)) if of == thread => now.saturating_sub(before),
            _ => tick,
        };
        if self.used > self.limit {
            Err(self.limit)
        } else {
            Ok(())
        }
    }

    /// After it was given back its thread.
    pub(crate) fn resume(&mut self) {
        self.resumed = Some((std::thread::current().id(), thread_time()));
    }
}

fn thread_time() -> Duration {
    // Linux always has this clock; without it every tick would count as used whole, which errs on the safe side.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
