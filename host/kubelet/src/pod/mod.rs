//! A pod on this node, decided without IO: what it is ([`spec`]), where it stands ([`state`]), what happens next
//! ([`step`]), what the API server is told ([`status`]).

mod absorb;
pub mod backoff;
mod decide;
pub mod recover;
pub mod spec;
pub mod state;
pub mod status;
pub mod step;

#[cfg(test)]
mod cases;
