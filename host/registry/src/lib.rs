//! The only writer: a file per resource, admission order, versions, managedFields, finalizers, watch cache.
//!
//! Start at [`Registry`], which is `client::Cluster` in this process, and at `write.rs`, where every write ends. What a
//! kind is made of stands in `resources/`, one file each; the gates a request passes are the traits of [`gates`].
//!
//! Does not know: HTTP, tokens and certificates, wasmtime, what a controller or scheduler wants.

pub mod gates;
mod system;

pub use system::{AdmitAll, AllowAll, NoAudit, SystemClock, SystemDice};
