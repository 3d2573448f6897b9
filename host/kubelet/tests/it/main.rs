//! The kubelet against the fake cluster: what only shows when worker, runtime and cluster meet.

mod cri;
mod fake;
mod support;
mod wasm;
