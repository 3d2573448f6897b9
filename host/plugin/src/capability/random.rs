//! `pilotis:core/random`: chance, recorded like every other answer.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::pilotis::core::random;
use crate::state::State;

impl random::Host for State {
    fn next(&mut self) -> wasmtime::Result<u64> {
        self.budget.lock().call(8)?;
        Ok(self.reads.random())
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    random::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
