//! CEL, the Common Expression Language, as Kubernetes 1.36 speaks it: parsed, type-checked, its cost estimated beforehand and
//! counted while it runs.
//!
//! Start at [`Env::compile`]: it makes a [`Program`], which [`Program::run`] evaluates over JSON. What an expression may call
//! stands in `functions.txt`; what values look like is told by a [`Shape`], which is made of a schema.
//!
//! The `cel` crate on crates.io has neither a type checker nor costs, and both decide here which rules are accepted.
//!
//! Does not know: what a schema or an object of Kubernetes is, who asks, what a refusal looks like.

mod ast;
mod check;
mod cost;
mod estimate;
mod eval;
mod functions;
mod library;
mod macros;
mod parse;
pub mod pattern;
mod program;
mod scan;
mod shape;
mod types;
mod value;

pub use estimate::Estimate;
pub use eval::Fault;
pub use library::authorizer::{Authorizer, Check, Ruling};
pub use program::{Env, Program, Refused};
pub use shape::{Field, Order, Shape, ShapeKind, escape};
pub use types::Type;
pub use value::{Key, Val};

/// What one expression may cost at run time (about a tenth of a second on kube-apiserver's scale).
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all rules about one object, or of one policy binding, may cost together.
pub const BUDGET: u64 = 10_000_000;
/// What the match conditions of one policy may cost together.
pub const MATCH_BUDGET: u64 = 2_500_000;
/// The largest request that estimates reckon with, in bytes.
pub const LARGEST_REQUEST: u64 = 3 * 1024 * 1024;
