//! The chain behind `Admit`: admission plugins in order, each asked about what it matches and told the fields it wants.
//!
//! Start at [`Chain`]. A [`Rule`] is one plugin with what it said of itself made ready for the question "does this matter to
//! you?", which is asked of every write.
//!
//! Does not know: HTTP, wasmtime, how plugins are loaded, what any rule is about.

mod chain;
mod rule;

pub use chain::{Chain, GrantsOf};
pub use rule::{FailurePolicy, Rule};
