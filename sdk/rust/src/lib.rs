//! The Rust SDK: a plugin is mostly its decision.

pub mod columns;
pub mod scheduler;
