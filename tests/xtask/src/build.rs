//! `cargo xtask build`: the guests, their compiled code, then the binary that holds both.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{guests, images};

#[derive(clap::Args, Default)]
pub struct Options {
    /// With the release profile: smaller and faster, and minutes longer to build
    #[arg(long)]
    pub release: bool,
}

/// Returns where the binary is.
pub fn run(options: &Options) -> Result<PathBuf> {
    guests::build_all()?;
    let (profile, folder) = match options.release {
        true => ("release", "release"),
        false => ("dev", "debug"),
    };
    images::make(profile, &["pilotis"])?;
    finish(cargo().args(["build", "--profile", profile, "--package", "pilotis"]))?;
    Ok(target().join(folder).join("pilotis"))
}

pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

/// Cargo in the workspace, with the protobuf compiler that some dependencies' build scripts call.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::root());
    // What the outer cargo says of xtask itself: build scripts look at it (ring's does), and would run again, with all that
    // stands on them, whenever cargo is called by hand in between.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    if env::var_os("PROTOC").is_none()
        && let Ok(protoc) = protoc_bin_vendored::protoc_bin_path()
    {
        cargo.env("PROTOC", protoc);
    }
    cargo
}

pub fn finish(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
