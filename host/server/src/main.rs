//! The binary: flags, config, wiring, start and stop order. No logic.

fn main() {}
