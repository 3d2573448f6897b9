//! The workspace's own commands, called as `cargo xtask COMMAND`.
//!
//! Start at [`Command`]; each command is a module of its name.

mod bench;
mod build;
mod clients;
mod conformance;
mod debian;
mod guests;
mod images;
mod test;
mod toolchain;
mod up;

use std::path::{Path, PathBuf};

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The workspace's own commands")]
enum Command {
    /// Builds every guest component into target/guests (getting the toolchain first, where it is missing)
    Guests(guests::Options),
    /// Builds the guests and the `pilotis` binary
    Build(build::Options),
    /// Builds everything and starts a cluster on this machine
    Up(up::Options),
    /// Stops a cluster that `up` started
    Down(up::DownOptions),
    /// Runs all tests, or one part of them
    Test(test::Options),
    /// Runs a benchmark (or `all`) and prints its figures
    Bench(bench::Options),
    /// Runs Kubernetes' own tests (an `e2e.test` built elsewhere) against a cluster, a line per test and a total
    Conformance(conformance::Options),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Guests(options) => guests::run(&options),
        Command::Build(options) => build::run(&options).map(|_| ()),
        Command::Up(options) => up::up(&options),
        Command::Down(options) => up::down(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Conformance(options) => conformance::run(&options),
    }
}

/// The workspace's root folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tests/xtask lies two folders below the root")
        .to_owned()
}
