//! `pilotis:cluster/view`: recorded reads. Budgets and words here, answers from [`crate::reads::Reads`].

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::pilotis::cluster::view::{self, Delta, ObjectKey, Scaling, Selection, Served};
use crate::bindings::pilotis::core::types;
use crate::state::State;

impl State {
    /// Pays for the question, and for the answer before the guest's memory is asked to hold it.
    fn asks<T>(
        &mut self,
        question: usize,
        ask: impl FnOnce(&mut dyn crate::reads::Reads) -> Result<T, types::Failure>,
        size: impl FnOnce(&T) -> usize,
    ) -> wasmtime::Result<Result<T, types::Failure>> {
        self.budget.lock().call(question)?;
        let answer = ask(&mut *self.reads);
        self.budget.lock().bytes(answer.as_ref().map_or(0, size))?;
        Ok(answer)
    }
}

impl view::Host for State {
    fn get(&mut self, key: ObjectKey, wanted: String) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
        self.asks(
            size_of_key(&key) + wanted.len(),
            |reads| reads.get(&key, &wanted),
            Vec::len,
        )
    }

    fn find(
        &mut self,
        of: String,
        which: Selection,
        wanted: String,
        order: String,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
        let question = of.len() + size_of_selection(&which) + wanted.len() + order.len();
        self.asks(
            question,
            |reads| reads.find(&of, &which, &wanted, &order, limit),
            Vec::len,
        )
    }

    fn tally(
        &mut self,
        of: String,
        which: Selection,
        by: String,
        sums: String,
    ) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
        let question = of.len() + size_of_selection(&which) + by.len() + sums.len();
        self.asks(question, |reads| reads.tally(&of, &which, &by, &sums), Vec::len)
    }

    fn distinct(
        &mut self,
        of: String,
        which: Selection,
        by: String,
    ) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
        let question = of.len() + size_of_selection(&which) + by.len();
        self.asks(question, |reads| reads.distinct(&of, &which, &by), Vec::len)
    }

    fn changes(
        &mut self,
        of: String,
        which: Selection,
        wanted: String,
        cursor: u64,
    ) -> wasmtime::Result<Result<Delta, types::Failure>> {
        let question = of.len() + size_of_selection(&which) + wanted.len();
        let size = |delta: &Delta| delta.rows.len() + delta.gone.len();
        self.asks(question, |reads| reads.changes(&of, &which, &wanted, cursor), size)
    }

    async fn get_live(&mut self, key: ObjectKey, wanted: String) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
        self.budget.lock().call(size_of_key(&key) + wanted.len())?;
        let answer = self.reads.get_live(&key, &wanted).await;
        // Waiting is not computing: what its thread did meanwhile is not charged.
        self.meter.lock().resume();
        self.budget.lock().bytes(answer.as_ref().map_or(0, Vec::len))?;
        Ok(answer)
    }

    fn kinds(&mut self) -> wasmtime::Result<Result<Vec<Served>, types::Failure>> {
        let size = |kinds: &Vec<Served>| kinds.iter().map(|k| k.kind.len() + k.resource.len() + 8).sum();
        self.asks(0, |reads| reads.kinds(), size)
    }

    fn metadata(
        &mut self,
        of: String,
        which: Selection,
        wanted: String,
        order: String,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, types::Failure>> {
        let question = of.len() + size_of_selection(&which) + wanted.len() + order.len();
        self.asks(
            question,
            |reads| reads.metadata(&of, &which, &wanted, &order, limit),
            Vec::len,
        )
    }

    fn scale(&mut self, key: ObjectKey) -> wasmtime::Result<Result<Option<Scaling>, types::Failure>> {
        let size = |scaling: &Option<Scaling>| scaling.as_ref().map_or(0, |s| s.selector.len() + 64);
        self.asks(size_of_key(&key), |reads| reads.scale(&key), size)
    }
}

fn size_of_key(key: &ObjectKey) -> usize {
    key.kind.len() + key.namespace.len() + key.name.len()
}

pub(super) fn size_of_selection(which: &Selection) -> usize {
    let equals: usize = which.equals.iter().map(|(path, text)| path.len() + text.len()).sum();
    which.namespace.len() + which.labels.len() + equals
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    view::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
