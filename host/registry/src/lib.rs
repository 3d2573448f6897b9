//! The only writer: a file per resource, admission order, versions, managedFields, finalizers, watch cache.
//!
//! Start at [`Registry`], which is `client::Cluster` in this process, and at `write.rs`, where every write ends. What a
//! kind is made of stands in `resources/`, one file each; the gates a request passes are the traits of [`gates`].
//!
//! Does not know: HTTP, tokens and certificates, wasmtime, what a controller or scheduler wants.

mod addresses;
mod allocate;
mod body;
mod bootstrap;
mod cache;
mod catalog;
mod change;
mod channel;
mod charge;
mod convert;
mod custom;
mod delete;
mod document;
pub mod gates;
mod job;
mod jsonpath;
mod legacy;
mod meta;
mod names;
mod read;
mod registry;
mod resource;
pub mod resources;
mod scale;
mod select;
mod system;
pub mod table;
mod watch;
mod write;

#[cfg(test)]
mod tests;

pub use bootstrap::NAMESPACES;
pub use cache::Limits;
pub use document::Media;
pub use names::NameRule;
pub use registry::{Network, Options, Registry, SYSTEM_USER};
pub use resource::{Resource, ScalePaths, Selectable, Storage, Versions};
pub use scale::columns as scale_columns;
pub use system::{AdmitAll, AllowAll, NoAudit, SystemClock, SystemDice};
pub use table::Column;
