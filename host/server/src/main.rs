//! `pilotis`: a Kubernetes cluster in one binary. Flags, config, wiring, start and stop order; no logic.

mod cluster;
mod dir;
mod dns;
mod down;
mod image;
mod network;
mod plugins;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A request is decoded, compared and written in thousands of small pieces, many of them freed by another thread than
/// made them: with glibc's allocator that was a fifth of a pod's create.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "pilotis",
    version,
    about = "A Kubernetes cluster whose policies, controllers and admission rules are WebAssembly components"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a cluster on this machine, new or as it was left
    Up(Box<up::Options>),
    /// Stops the cluster and everything it runs; its objects stay
    Down(down::Options),
    /// The images that the embedded Wasm runtime can run
    #[command(subcommand)]
    Image(image::Command),
    /// The process that one pod's components run in
    #[command(name = "wasm-shim", hide = true)]
    WasmShim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(options) => up::run(&options),
        Command::Down(options) => down::run(&options),
        Command::Image(command) => image::run(command),
        Command::WasmShim { args } => return kubelet::shim_main(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
