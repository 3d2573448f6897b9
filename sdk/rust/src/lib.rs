//! The Rust SDK: a plugin is mostly its decision.
//!
//! Start at the macros: [`controller`](macro@controller) on a function, [`policy`](macro@policy) on a type that is a
//! [`scheduler::Policy`], [`admission`](macro@admission) on a function. Each leaves what it stands on alone, so that
//! unit tests call it as it is, and adds the component's exports when the crate is built for `wasm32-wasip2`.
//! A component is one of them.
//!
//! A decision's answer depends on its arguments, its configuration and what it read. An instance serves many calls, so
//! keep nothing in statics; and iterate over a `BTreeMap`, not a `HashMap`, whose order is different in every map.

// The macros name this crate; inside it, that name is this.
extern crate self as sdk;

pub mod admission;
#[doc(hidden)]
pub mod bindings;
pub mod columns;
pub mod controller;
mod error;
pub mod fields;
pub mod log;
pub mod owner;
pub mod pods;
#[doc(hidden)]
pub mod policy;
pub mod quota;
pub mod scheduler;
pub mod selector;
pub mod slices;
#[cfg(feature = "test")]
pub mod test;
mod time;
pub mod view;

pub use bindings::host::pilotis::core::types::ObjectKey;
pub use controller::{Outcome, Request, config};
pub use error::{Error, Reason, Result};
pub use fields::Fields;
pub use model::Quantity;
pub use owner::Owner;
pub use sdk_macros::{Fields, admission, controller, policy};
pub use serde_json::{Value, json};
pub use time::Instant;
pub use view::{View, all, within};

impl ObjectKey {
    /// `kind` as in `apps/v1/ReplicaSet`; `namespace` is empty for cluster-scoped kinds.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}
