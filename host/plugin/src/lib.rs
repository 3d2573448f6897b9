//! The plugin host: load by digest, AOT cache, instances, limits, grants, faults, host imports.
//!
//! Start at [`Host::load`], which turns bytes into a [`Revision`]; a [`Plugin`] is the name under which revisions are
//! exchanged while calls go on; [`Controller`], [`Policy`] and [`Admission`] are how the rest of the house calls one.
//! What a guest may ask of the host is a file each in `capability/`.
//!
//! Does not know: what a pod is, who decides when to call, how an intent is carried out. Nothing above it knows wasmtime.

pub mod bindings;
mod breaker;
mod cache;
mod capability;
mod config;
mod digest;
mod engine;
mod exports;
mod fault;
mod figures;
mod grants;
mod host;
mod images;
mod instance;
mod limits;
pub mod objects;
mod plugin;
pub mod reads;
mod revision;
mod state;
mod ticker;
mod words;
pub mod world;

pub use breaker::BreakerState;
pub use cache::Origin;
pub use digest::{Digest, PluginName};
pub use engine::EngineKind;
pub use fault::{Fault, FaultKind};
pub use figures::{Figures, Snapshot};
pub use grants::{Grants, Rule};
pub use host::{Host, Load, World};
pub use images::Images;
pub use limits::Limits;
pub use plugin::Plugin;
pub use revision::{About, Revision};
pub use words::{reason, refusal};
pub use world::admission::Admission;
pub use world::controller::Controller;
pub use world::policy::Policy;
pub use world::{Answer, Reason, Refusal};
