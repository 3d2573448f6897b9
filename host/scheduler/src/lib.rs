//! The scheduler: from unbound pods to bindings.
//!
//! Start at [`place::Chain::place`]; everything before it gathers facts ([`world`], [`queue`]), everything after carries out
//! ([`run()`], `bind`, `report`). Policies keep mirrors of [`world::World`], fed with the stream that [`records`] lays out.
//!
//! Does not know: HTTP, the store, containerd, wasmtime (policies arrive as `dyn Policy`).

mod bind;
mod dice;
mod exchange;
mod feed;
mod guest;
mod needs;
mod nodeset;
pub mod place;
pub mod policy;
pub mod queue;
pub mod records;
mod report;
mod resources;
mod run;
mod snapshot;
mod texts;
mod totals;
pub mod world;

pub use dice::Dice;
pub use guest::Guest;
pub use nodeset::NodeSet;
pub use run::{Config, run};
pub use snapshot::Snapshot;
