//! From bound pods to running containers: pod state machine and runtime bridge.
//!
//! Start at [`pod::step::step`], which decides all of a pod's life; `worker.rs` feeds it events and carries out its
//! commands through a [`runtime::Runtime`]. [`run`] is the whole node: registration, lease, one worker a pod.
//!
//! Does not know: the store, the scheduler, wasmtime outside `runtime/wasm`, gRPC outside `runtime/cri`.

mod config;
mod container;
mod env;
mod events;
mod files;
mod kubelet;
pub mod log;
mod node;
mod pages;
pub mod pod;
mod probe;
mod proc;
mod read;
pub mod resources;
pub mod runtime;
mod streams;
mod volume;
mod worker;

pub use config::KubeletConfig;
pub use kubelet::{run, streams};
pub use runtime::wasm::shim_main;
pub use streams::Streams;
