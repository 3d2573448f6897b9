//! `pilotis:core/clock`: has a time come? Recorded, and a reason to be called again while the answer is no.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::pilotis::core::clock;
use crate::state::State;

impl clock::Host for State {
    fn reached(&mut self, t: i64) -> wasmtime::Result<bool> {
        self.budget.lock().call(0)?;
        Ok(self.reads.reached(t))
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
