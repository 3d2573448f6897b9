//! `pilotis down`: stops the cluster, and leaves no process behind.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use kubelet::runtime::wasm::WasmRuntime;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dir::Dir;

#[derive(clap::Args)]
pub struct Options {
    /// The cluster's folder [default: ~/.pilotis]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// How long a cluster may take to end its pods and close its store.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(options: &Options) -> Result<()> {
    let dir = Dir::of(options.dir.as_deref())?;
    match dir.running()? {
        Some(pid) => {
            let pid = Pid::from_raw(pid);
            kill(pid, Signal::SIGTERM).with_context(|| format!("process {pid} cannot be asked to stop"))?;
            if !dir.wait_until_free(PATIENCE)? {
                eprintln!("process {pid} did not stop in {PATIENCE:?}; killing it (its store is safe)");
                kill(pid, Signal::SIGKILL)?;
                dir.wait_until_free(PATIENCE)?;
            }
            println!(
                "stopped; `pilotis up --dir {}` continues where it was",
                dir.path().display()
            );
        }
        None => println!("no cluster is running in {}", dir.path().display()),
    }
    // Also of a cluster that was killed: its pods live in processes of their own.
    WasmRuntime::end_all(&dir.sandboxes()).context("a pod's process may be left")?;
    Ok(())
}
