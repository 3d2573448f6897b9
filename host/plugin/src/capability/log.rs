//! `pilotis:core/log`: a plugin's own lines in the host's log.

use wasmtime::component::{HasSelf, Linker};

use crate::PluginName;
use crate::bindings::pilotis::core::log::{self, Level};
use crate::state::State;

impl log::Host for State {
    fn write(&mut self, level: Level, line: String) -> wasmtime::Result<()> {
        // The guest picks the length: spend its budget before anything is printed.
        let mut budget = self.budget.lock();
        budget.call(line.len())?;
        if budget.line(line.len()) {
            drop(budget);
            emit(level, &self.plugin, &line);
        }
        Ok(())
    }
}

/// Control characters are shown, not obeyed: a plugin can neither forge a line nor paint the terminal.
pub(super) fn emit(level: Level, plugin: &PluginName, line: &str) {
    let plain = !line.contains(|c: char| c.is_control());
    let shown = if plain {
        line.to_owned()
    } else {
        line.escape_debug().to_string()
    };
    match level {
        Level::Debug => tracing::debug!(target: "plugin", %plugin, "{shown}"),
        Level::Info => tracing::info!(target: "plugin", %plugin, "{shown}"),
        Level::Warn => tracing::warn!(target: "plugin", %plugin, "{shown}"),
        Level::Error => tracing::error!(target: "plugin", %plugin, "{shown}"),
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    log::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
