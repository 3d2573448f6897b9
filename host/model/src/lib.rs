//! Kubernetes words: kinds, keys, versions, objects, selectors, field paths, quantities, `Failure`.
//!
//! Start at [`Object`] (one revision of one thing, its bytes shared) and [`Failure`] (all that can go wrong, without HTTP).
//! What plugins and views read of an object they name by a [`FieldPath`]; [`FieldSet`] reads several from its bytes at once.
//!
//! Does not know: the network, the store, the clock, wasmtime. Nothing here does IO.

mod caller;
mod failure;
mod field;
mod field_selector;
mod key;
mod kind;
mod object;
mod path;
mod quantity;
mod scan;
mod selector;
pub mod text;
pub mod time;

pub use caller::{Caller, UserInfo};
pub use failure::{BoxError, Cause, CauseReason, Failure};
pub use field::{FieldSet, FieldValue};
pub use field_selector::{FieldSelector, Term};
pub use key::{ObjectKey, ResourceVersion, Uid};
pub use kind::{GroupResource, Gvk, Gvr, Kind, Scope, Subresource, Verb};
pub use object::{Labels, MadeOnce, Object};
pub use path::{FieldPath, Step};
pub use quantity::{Format, Quantity};
pub use selector::{Operator, Requirement, Selector};
