//! WASI, as far as a function needs it: enough for the standard libraries of Rust, Go, Python and JavaScript to start.
//!
//! Everything here answers the same on every machine and in every call: no arguments, no environment, no files, an empty
//! standard input, a clock that stands at 1970, and chance that always falls the same way. Standard output and error go
//! to the log. Sockets and HTTP are not linked at all, so a component that imports them is refused when it is loaded.
//! Time, chance and the cluster reach a plugin through `pilotis:` interfaces, where they are recorded.
//!
//! Guests could be built without WASI (`wasm32-unknown-unknown` and a tool that wraps the module). They are not, because
//! nobody but Rust could follow, a panic's message would be lost (here it stands in the fault), and it would save nothing: a
//! plugin of the SDK imports 13 interfaces of `wasi:cli` and `wasi:io` that its standard library names, all of them are
//! linked before the first call, and a call that does not print uses none.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, sink};
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult, bindings};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiView};

use crate::PluginName;
use crate::bindings::pilotis::core::log::Level;
use crate::limits::Budget;
use crate::state::State;

pub(crate) fn context(plugin: &PluginName, budget: &Arc<Mutex<Budget>>) -> WasiCtx {
    let stream = |level| Lines {
        plugin: plugin.clone(),
        budget: budget.clone(),
        level,
        begun: Vec::new(),
    };
    WasiCtx::builder()
        .stdout(stream(Level::Info))
        .stderr(stream(Level::Warn))
        .secure_random(Deterministic::new(FIXED.to_vec()))
        .insecure_random(Deterministic::new(FIXED.to_vec()))
        .insecure_random_seed(u128::from_le_bytes(FIXED))
        .max_random_size(64 << 10)
        .wall_clock(StandsStill)
        .monotonic_clock(StandsStill)
        .build()
}

/// Hash maps of some languages are seeded with it: the order they iterate in is part of the answer.
const FIXED: [u8; 16] = *b"pilotis:the same";

struct StandsStill;

impl HostWallClock for StandsStill {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for StandsStill {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Standard output as log lines.
#[derive(Clone)]
struct Lines {
    plugin: PluginName,
    budget: Arc<Mutex<Budget>>,
    level: Level,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
}

/// A line longer than this is cut into several.
const LINE: usize = 4096;

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    /// For other versions of WASI, which are not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl Lines {
    fn print(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if matches!(self.level, Level::Warn) {
            self.budget.lock().says(&line);
        }
        if !line.is_empty() && self.budget.lock().line(line.len()) {
            super::log::emit(self.level, &self.plugin, &line);
        }
    }
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.budget
            .lock()
            .call(bytes.len())
            .map_err(|stop| StreamError::Trap(stop.into()))?;
        self.begun.extend_from_slice(&bytes);
        while let Some(end) = self.begun.iter().position(|b| *b == b'\n') {
            let rest = self.begun.split_off(end + 1);
            let line = std::mem::replace(&mut self.begun, rest);
            self.print(&line[..end]);
        }
        if self.begun.len() > LINE {
            let line = std::mem::take(&mut self.begun);
            self.print(&line);
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let rest = std::mem::take(&mut self.begun);
        self.print(&rest);
    }
}

#[async_trait::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// Named one by one, so that what is offered stands here; sockets are left out.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi_io::bindings::wasi::io;

    io::error::add_to_linker::<State, HasTable>(linker, |state| state.ctx().table)?;
    io::poll::add_to_linker::<State, HasTable>(linker, |state| state.ctx().table)?;
    io::streams::add_to_linker::<State, HasTable>(linker, |state| state.ctx().table)?;
    bindings::cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::clocks::wall_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    bindings::clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    bindings::random::random::add_to_linker::<State, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    bindings::random::insecure::add_to_linker::<State, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    bindings::random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    bindings::filesystem::types::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    bindings::filesystem::preopens::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)
}
