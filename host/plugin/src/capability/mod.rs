//! What the host offers to guests: one file an interface, each the far side of the file of its name in `wit/`.

pub(crate) mod clock;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod random;
pub(crate) mod view;
pub(crate) mod wasi;

use wasmtime::component::Linker;

use crate::bindings::pilotis::core::types;
use crate::state::State;

/// Everything a component may import without a grant. What is not in here cannot be imported.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    log::add_to_linker(linker)?;
    clock::add_to_linker(linker)?;
    random::add_to_linker(linker)?;
    view::add_to_linker(linker)?;
    metrics::add_to_linker(linker)?;
    wasi::add_to_linker(linker)
}

/// Interfaces of types only: nothing to do.
impl types::Host for State {}
