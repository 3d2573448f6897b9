//! Removes what its owners left behind.
//!
//! Start at [`reconcile`]. `graph` reads who owns whom: distinct lists of owners, never the objects one by one, so that one
//! more pod of a ReplicaSet is no reason to run. `owners` says which owners are there, asking the store before it calls one
//! absent. `dependents` decides what becomes of the objects of a list, `waiting` lets owners go that wait for their
//! dependents.
//!
//! An owner is absent only where the store itself said so. A kind that is not served, a read that failed, an owner that
//! cannot exist: all of them leave the dependents alone.

mod dependents;
mod graph;
mod owners;
mod waiting;

use std::collections::BTreeSet;

use sdk::controller::Unread;
use sdk::{Outcome, Request, View};
use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::owners::Owners;

/// Intents of one run; the next one goes on.
const BURST: usize = 500;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Memo {
    /// Where in the list of intents a run begins: behind one that was refused, so that it holds up no other.
    #[serde(default)]
    first: usize,
    /// Owner references that make no sense and that somebody was told of, the latest ones.
    #[serde(default)]
    told: BTreeSet<String>,
}

/// One key does it all: the Plugin object that the collector itself was loaded from. Every kind that it reads, and the list
/// of kinds, is a reason to run.
#[sdk::controller(
    of = "plugins.pilotis.dev/v1alpha1/Plugin",
    asks = ["get patch delete *", "create patch events"],
)]
fn reconcile(_: Unread, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    if request.key.name != env!("CARGO_PKG_NAME") {
        return Ok(outcome);
    }
    let mut memo: Memo = serde_json::from_slice(&request.memo).unwrap_or_default();
    let graph = Graph::read(view)?;
    let owners = Owners::look(&graph, view)?;
    dependents::collect(&graph, &owners, view, &mut memo, &mut outcome)?;
    waiting::finish(&graph, view, &mut outcome)?;
    match &request.refused {
        Some(refused) => memo.first = memo.first.wrapping_add(refused.intent as usize + 1),
        None => memo.first = 0,
    }
    // Each intent stands for itself, so any of them may be the first.
    let first = memo.first % outcome.intents.len().max(1);
    outcome.intents.rotate_left(first);
    if outcome.intents.len() > BURST || owners.unasked || graph.failed.is_some() {
        outcome.intents.truncate(BURST);
        view.reached(request.now.plus_seconds(1));
    }
    outcome.memo = serde_json::to_vec(&memo)?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
