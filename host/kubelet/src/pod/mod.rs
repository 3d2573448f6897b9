//! A pod on this node, decided without IO: what it is ([`spec`]), where it stands ([`state`]), what happens next
//! ([`step`]), what the API server is told ([`status`]).

pub mod backoff;
pub mod recover;
pub mod spec;
pub mod state;
pub mod status;
pub mod step;

#[cfg(test)]
mod cases;
