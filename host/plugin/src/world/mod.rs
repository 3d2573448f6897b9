//! The worlds as their users call them: typed, without wasmtime, each answer checked before it is believed.

pub mod admission;
pub mod controller;
pub mod policy;

pub use crate::bindings::pilotis::core::types::{Failure as Refusal, Reason};

use crate::fault::Fault;

/// A plugin either faults, or refuses in its own words, or answers.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;
