//! `cargo xtask up` and `down`: from a fresh clone to a running cluster.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, finish};

#[derive(clap::Args)]
pub struct Options {
    /// Return once the cluster is ready, and leave it running
    #[arg(long)]
    detach: bool,
    /// The cluster's folder [default: ~/.pilotis]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// With the release profile
    #[arg(long)]
    release: bool,
    /// More for `pilotis up`; see `pilotis up --help`
    #[arg(last = true)]
    more: Vec<String>,
}

#[derive(clap::Args)]
pub struct DownOptions {
    /// The cluster's folder [default: ~/.pilotis]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What `up` was built with
    #[arg(long)]
    release: bool,
}

/// The images that `tests/manifests` name, and the guest each is made of.
const IMAGES: [(&str, &str); 3] = [
    ("hello:v1", "pod-http"),
    ("hello:v2", "pod-http"),
    ("job:v1", "pod-command"),
];

pub fn up(options: &Options) -> Result<()> {
    let binary = build::run(&build::Options {
        release: options.release,
    })?;
    for (image, guest) in IMAGES {
        let mut import = Command::new(&binary);
        import
            .args(["image", "import", image])
            .arg(crate::root().join(format!("target/guests/{guest}.wasm")));
        in_dir(&mut import, &options.dir);
        import.stdout(std::process::Stdio::null());
        finish(&mut import)?;
    }
    let mut up = Command::new(&binary);
    up.arg("up");
    in_dir(&mut up, &options.dir);
    if options.detach {
        up.arg("--detach");
    }
    up.args(&options.more);
    // In the foreground the cluster takes our place, so that Ctrl-C and signals are its own.
    if options.detach {
        finish(&mut up)
    } else {
        Err(up.exec().into())
    }
}

pub fn down(options: &DownOptions) -> Result<()> {
    let profile = if options.release { "release" } else { "debug" };
    let mut down = Command::new(build::target().join(profile).join("pilotis"));
    down.arg("down");
    in_dir(&mut down, &options.dir);
    finish(&mut down)
}

fn in_dir(command: &mut Command, dir: &Option<PathBuf>) {
    if let Some(dir) = dir {
        command.arg("--dir").arg(dir);
    }
}
