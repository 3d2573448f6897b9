//! From Services and EndpointSlices to packet rules, and the cluster's DNS.
//!
//! Start at [`plan::plan`], which decides; [`run`] feeds it, and an [`Engine`] carries its plan out: [`nftables`] where we may
//! change the packet filter, [`userspace`] where we may not. [`dns`] answers names from the same facts.
//!
//! Does not know: HTTP, the store, how endpoints come into an EndpointSlice, where pods run.

#[cfg(test)]
mod cases;
pub mod dns;
mod endpoints;
mod engine;
mod events;
pub mod facts;
mod feed;
pub mod nftables;
pub mod plan;
mod run;
pub mod userspace;

pub use dns::{DnsConfig, serve_dns};
pub use engine::{Engine, Fake, Unserved};
pub use plan::{Plan, plan};
pub use run::{ProxyConfig, run};
