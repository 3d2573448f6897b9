//! The plugins' compiled code in `target/images`, which the binary holds beside the components.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{cargo, finish, target};

/// The program that compiles them: the host's own engines, so that what it writes is what the host takes.
const PROGRAM: &str = "plugin-images";

/// Compiles what has changed since the last time. `packages` are those that are built next: with them, cargo chooses the
/// same features for what both need, and builds it once.
///
/// # Errors
/// If the program cannot be built, or a component does not compile.
pub fn make(profile: &str, packages: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--profile", profile, "--package", "plugin", "--bin", PROGRAM]);
    build.args(packages.iter().flat_map(|name| ["--package", name]));
    finish(&mut build)?;

    let root = crate::root();
    // Cargo's folder for `dev` has another name, and `bench` lies with what is released.
    let folder = match profile {
        "dev" => "debug",
        _ => "release",
    };
    let mut run = Command::new(target().join(folder).join(PROGRAM));
    run.arg(root.join("target/images"));
    for plugin in fs::read_dir(root.join("plugins")).context("the plugins' folder")? {
        let component = root
            .join("target/guests")
            .join(plugin?.file_name())
            .with_extension("wasm");
        if component.is_file() {
            run.arg(component);
        }
    }
    finish(&mut run)
}
