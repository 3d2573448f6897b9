//! The workspace's own commands, called as `cargo xtask COMMAND`.
//!
//! Start at [`Command`]; each command is a module of its name.

mod guests;
mod toolchain;

use std::path::{Path, PathBuf};

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The workspace's own commands")]
enum Command {
    /// Builds every guest component into target/guests (getting the toolchain first, where it is missing).
    Guests(guests::Options),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Guests(options) => guests::run(&options),
    }
}

/// The workspace's root folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tests/xtask lies two folders below the root").to_owned()
}
