//! Kubernetes words: kinds, keys, versions, objects, selectors, field paths, quantities, `Failure`.
//!
//! Start at [`Object`] (one revision of one thing, its bytes shared) and [`Failure`] (all that can go wrong, without HTTP).
//!
//! Does not know: the network, the store, the clock, wasmtime. Nothing here does IO.

mod caller;
mod failure;
mod key;
mod kind;
mod object;

pub use caller::{Caller, UserInfo};
pub use failure::{BoxError, Cause, CauseReason, Failure};
pub use key::{ObjectKey, ResourceVersion, Uid};
pub use kind::{GroupResource, Gvk, Gvr, Kind, Scope, Subresource, Verb};
pub use object::{Labels, Object};
