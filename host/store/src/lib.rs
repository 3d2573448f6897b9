//! What the cluster remembers: the `Store` trait and its engines `memory`, `embedded` and `etcd`.
//!
//! Start at [`Store`]: its documentation is the contract, and one conformance suite runs it on every engine.
//!
//! Does not know: objects, kinds, JSON, versions of APIs. A value is bytes; a key is bytes under Kubernetes' layout
//! (`/registry/pods/default/web-0`, `/registry/apiregistration.k8s.io/apiservices/v1.apps`).

mod contract;
pub mod embedded;
mod engine;
mod error;
pub mod etcd;
mod hub;
pub mod memory;
mod snapshot;
mod tree;
mod watch;

pub use contract::{
    Batch, Change, Compare, Counted, Entry, Event, MAX_KEY, MAX_VALUE, Outcome, Page, Previous,
    Range, Read, Revision, Store, Txn,
};
pub use engine::{History, LocalStore};
pub use error::StoreError;
pub use watch::Watch;
