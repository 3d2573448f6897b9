//! Runs controllers: work queues, recorded reads, intents carried out.
//!
//! Start at [`Controller::start`]: it keeps a key for every subject of a [`Reconciler`], calls it on a view that stands
//! still, makes what it read the reasons to run again, and carries its [`Intent`]s out. [`Guest`] is the reconciler that
//! lives in a sandbox.
//!
//! Does not know: what any controller is for, wasmtime, HTTP, how the view keeps its answers.

mod carry;
mod events;
mod guest;
mod intent;
mod queue;
mod reconciler;
mod runner;
/// The guests' decoder, as it is in the SDK: one file that depends on nothing.
#[cfg(test)]
#[path = "../../../sdk/rust/src/columns.rs"]
#[allow(dead_code)]
mod sdk_columns;
#[cfg(test)]
mod stories;

pub use guest::{Asked, Guest};
pub use intent::{Event, Intent, Key, MEMO_BYTES, Outcome, PatchFormat, Precondition, Propagation, Refusal, Request};
pub use reconciler::Reconciler;
pub use runner::{Controller, Figures, Observer, Options, Run};
