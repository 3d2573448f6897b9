//! `pilotis:cluster/metrics`: measurements from the metrics API.

use wasmtime::component::{HasSelf, Linker};

use super::view::size_of_selection;
use crate::bindings::pilotis::cluster::metrics::{self, Metric, Selection};
use crate::bindings::pilotis::core::types;
use crate::state::State;

impl metrics::Host for State {
    async fn sample(
        &mut self,
        of: String,
        which: Selection,
        metric: Metric,
    ) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
        self.budget.lock().call(of.len() + size_of_selection(&which))?;
        let answer = self.reads.sample(&of, &which, &metric).await;
        self.meter.lock().resume();
        self.budget.lock().bytes(answer.as_ref().map_or(0, Vec::len))?;
        Ok(answer)
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    metrics::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
