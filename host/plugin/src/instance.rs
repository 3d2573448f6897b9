//! One instance of a component, and how a call into it is fenced.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::error::Elapsed;
use wasmtime::component::InstancePre;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::exports::{Exports, Indices};
use crate::fault::{Fault, FaultKind, Stop};
use crate::figures::Figures;
use crate::limits::Limits;
use crate::reads::Reads;
use crate::state::State;
use crate::ticker::{Running, TICK, Ticker};
use crate::{Digest, PluginName};

/// All that is the same for every instance of a revision.
pub(crate) struct Mould {
    pub(crate) plugin: PluginName,
    pub(crate) digest: Digest,
    pub(crate) limits: Limits,
    pub(crate) pre: InstancePre<State>,
    pub(crate) indices: Indices,
    pub(crate) ticker: Ticker,
    pub(crate) figures: Arc<Figures>,
}

/// A guest with its memory. Used by one call at a time; thrown away after any fault, and by whoever gives up waiting.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    pub(crate) exports: Exports,
}

/// A call under way.
pub(crate) struct Call<'m> {
    mould: &'m Mould,
    doing: &'static str,
    /// Counted in the plugin's figures.
    counted: bool,
    started: Instant,
    _running: Running<'m>,
}

impl Mould {
    /// A new instance, not configured yet.
    pub(crate) async fn instantiate(&self) -> Result<Instance, Fault> {
        let engine = self.pre.engine();
        let mut store = Store::new(engine, State::new(&self.plugin, &self.limits));
        store.limiter(|state| &mut state.holdings);
        store.set_hostcall_fuel(self.limits.answer_bytes);
        store.epoch_deadline_callback(|mut store| {
            let meter = store.data_mut().meter.clone();
            let ticked = meter.lock().tick(TICK);
            ticked.map_err(|limit| wasmtime::Error::from(Stop::Cpu(limit)))?;
            // Others on this thread have a turn; when it is ours again, measuring goes on from there.
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(async move {
                    tokio::task::yield_now().await;
                    meter.lock().resume();
                }),
            ))
        });
        let call = self.prepare("start", &mut store);
        let made = call.limit(self.pre.instantiate_async(&mut store)).await;
        let made = call.end(&mut store, made)?;
        let exports = Exports::load(&self.indices, &mut store, &made);
        let exports = exports.map_err(|error| self.fault(FaultKind::WrongWorld, "start", format!("{error:#}")))?;
        Ok(Instance { store, exports })
    }

    pub(crate) fn begin(&self, doing: &'static str, store: &mut Store<State>, reads: Box<dyn Reads>) -> Call<'_> {
        store.data_mut().begin(&self.limits, reads);
        store.set_epoch_deadline(1);
        Call {
            mould: self,
            doing,
            counted: true,
            started: Instant::now(),
            _running: self.ticker.run(),
        }
    }

    /// A call that makes an instance ready: fenced like any other, and nobody's figure.
    pub(crate) fn prepare(&self, doing: &'static str, store: &mut Store<State>) -> Call<'_> {
        Call {
            counted: false,
            ..self.begin(doing, store, Box::new(crate::reads::NoReads))
        }
    }

    pub(crate) fn fault(&self, kind: FaultKind, doing: &'static str, message: String) -> Fault {
        Fault {
            plugin: self.plugin.clone(),
            digest: Some(self.digest),
            kind,
            doing,
            message,
            backtrace: Vec::new(),
        }
    }
}

impl Call<'_> {
    /// Ends at the wall-clock deadline, whatever the guest does.
    pub(crate) async fn limit<T>(
        &self,
        call: impl Future<Output = wasmtime::Result<T>>,
    ) -> Result<wasmtime::Result<T>, Elapsed> {
        tokio::time::timeout(self.mould.limits.deadline, call).await
    }

    /// Counts the call and turns what stopped it into a fault.
    pub(crate) fn end<T>(
        self,
        store: &mut Store<State>,
        result: Result<wasmtime::Result<T>, Elapsed>,
    ) -> Result<T, Fault> {
        let figures = &self.mould.figures;
        let state = store.data_mut();
        let (host_calls, bytes, dropped, words) = state.budget.lock().settle();
        if self.counted {
            figures.called(self.started.elapsed());
        }
        figures.spent(host_calls, bytes, u64::from(dropped), state.holdings.memory() as u64);
        // The view is let go with the call: it pins a version of the cluster.
        state.reads = Box::new(crate::reads::NoReads);
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.fault(&error, state, &words)),
            Err(Elapsed { .. }) => {
                let limit = self.mould.limits.deadline;
                Err(self.mould.fault(
                    FaultKind::Deadline,
                    self.doing,
                    format!("it took longer than {limit:?}, the limit of a call"),
                ))
            }
        }
    }

    fn fault(&self, error: &wasmtime::Error, state: &State, words: &str) -> Fault {
        let trap = error.downcast_ref::<Trap>();
        let (kind, message) = if let Some(stop) = error.downcast_ref::<Stop>() {
            (stop.kind(), stop.to_string())
        } else if state.holdings.denied {
            let limit = self.mould.limits.memory >> 20;
            (
                FaultKind::Memory,
                format!("it asked for more than the {limit} MiB of memory it may have"),
            )
        } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
            (FaultKind::Trap, format!("it ended itself with exit code {}", exit.0))
        } else if error.is::<PoolConcurrencyLimitError>() {
            (
                FaultKind::Host,
                "all instance slots of this host are taken; fewer calls at once, or fewer plugins".into(),
            )
        } else if let Some(Trap::StackOverflow) = trap {
            (
                FaultKind::Stack,
                "its stack ran out: a recursion without end, or very deep".into(),
            )
        } else if let Some(trap) = trap {
            (
                FaultKind::Trap,
                if words.is_empty() {
                    trap.to_string()
                } else {
                    words.to_owned()
                },
            )
        } else {
            let text = format!("{:#}", error.root_cause());
            // wasmtime has no type for this one; its words are checked by a test.
            if text.contains("hostcalls has been exhausted") {
                let limit = self.mould.limits.answer_bytes;
                (
                    FaultKind::Answer,
                    format!("it hands over more than {limit} bytes at once, the limit"),
                )
            } else {
                (FaultKind::Trap, text)
            }
        };
        Fault {
            backtrace: backtrace(error),
            ..self.mould.fault(kind, self.doing, message)
        }
    }
}

fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => demangled(name),
        None => format!(
            "function {} at {:#x}",
            frame.func_index(),
            frame.module_offset().unwrap_or_default()
        ),
    };
    trace.frames().iter().take(32).map(name).collect()
}

/// Rust's and C++'s names as they were written.
fn demangled(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        Ok(plain) => format!("{plain:#}"),
        Err(_) => name.to_owned(),
    }
}
