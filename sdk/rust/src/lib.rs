//! The Rust SDK: a plugin is mostly its decision.
