//! The workspace's own commands: up, down, test, bench, guests.

fn main() {}
