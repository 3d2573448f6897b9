//! `cargo xtask guests`: every plugin and every test guest as a component in `target/guests/NAME.wasm`.
//!
//! Cargo decides what must be rebuilt; a file in `target/guests` is replaced only when its bytes changed, so that
//! digests, and with them the host's cache of compiled code, stay as they were.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, bail, ensure};

use crate::toolchain::{self, TARGET};

#[derive(clap::Args)]
pub struct Options {
    /// Only these (`controller-replicaset`, `faulty-trap`); all of them when none is named.
    names: Vec<String>,
}

/// What cargo is to build, and under which name the file is to be found afterwards.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Guest {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A crate in `plugins/`.
    Plugin,
    /// A file in `tests/guests/examples/`: a component a test loads.
    TestGuest,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let root = crate::root();
    let mut guests = all(&root)?;
    for name in &options.names {
        ensure!(
            guests.iter().any(|g| g.name == *name),
            "there is no guest {name} in plugins/ or tests/guests/examples/"
        );
    }
    if !options.names.is_empty() {
        guests.retain(|g| options.names.contains(&g.name));
    }
    for name in build(&root, &guests)? {
        println!("{name}");
    }
    Ok(())
}

/// Builds everything and returns where the components are. For `up`, `test` and `bench`.
pub fn build_all() -> anyhow::Result<PathBuf> {
    let root = crate::root();
    build(&root, &all(&root)?)?;
    Ok(output(&root))
}

fn output(root: &Path) -> PathBuf {
    target(root).join("guests")
}

fn target(root: &Path) -> PathBuf {
    root.join("target")
}

/// Found by looking at the folders: a new plugin needs no line here.
fn all(root: &Path) -> anyhow::Result<BTreeSet<Guest>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root.join("plugins"))? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file() {
            found.insert(Guest {
                name: file_stem(&path),
                kind: Kind::Plugin,
            });
        }
    }
    let examples = root.join("tests/guests/examples");
    for path in toolchain::files(&examples)? {
        if path.extension().is_some_and(|e| e == "rs") {
            found.insert(Guest {
                name: file_stem(&path),
                kind: Kind::TestGuest,
            });
        }
    }
    Ok(found)
}

fn file_stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the names whose bytes changed.
fn build(root: &Path, guests: &BTreeSet<Guest>) -> anyhow::Result<Vec<String>> {
    let toolchain = toolchain::get(&target(root))?;
    let built = target(root).join("guests-build");
    for kind in [Kind::Plugin, Kind::TestGuest] {
        let names: Vec<&str> = guests
            .iter()
            .filter(|g| g.kind == kind)
            .map(|g| g.name.as_str())
            .collect();
        if names.is_empty() {
            continue;
        }
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root);
        cargo
            .args([
                "build",
                "--locked",
                "--profile",
                "guest",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&built);
        match kind {
            Kind::Plugin => cargo.args(names.iter().flat_map(|name| ["--package", name])),
            Kind::TestGuest => cargo
                .args(["--package", "guests"])
                .args(names.iter().flat_map(|name| ["--example", name])),
        };
        // Columns of nodes are worked on several at a time: every engine has the plain vector instructions, and they give
        // the same bits everywhere (the relaxed ones are not among them).
        // Paths of this machine must not end in the component: the same source gives the same bytes everywhere.
        let home =
            env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", env::var("HOME").unwrap_or_default()));
        let flags = format!(
            "-Ctarget-feature=+simd128\x1f--remap-path-prefix={}=/pilotis\x1f--remap-path-prefix={home}/registry/src=/registry",
            root.display()
        );
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
        // What the outer cargo tells its children is about the host build.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PROFILE_") || name == "CARGO_TARGET_DIR" || name == "RUSTFLAGS"
            {
                cargo.env_remove(name);
            }
        }
        toolchain.apply(&mut cargo);
        let status = cargo.status().context("cannot run cargo")?;
        if !status.success() {
            bail!("building the guests failed ({status}); the lines above say why");
        }
    }
    let out = output(root);
    fs::create_dir_all(&out)?;
    let mut changed = Vec::new();
    for guest in guests {
        let folder = built.join(TARGET).join("guest");
        let from = match guest.kind {
            Kind::Plugin => folder.join(format!("{}.wasm", guest.name.replace('-', "_"))),
            // Libraries are named as Rust spells them, programs as they are called.
            Kind::TestGuest => {
                let program = folder.join("examples").join(format!("{}.wasm", guest.name));
                let library = program.with_file_name(format!("{}.wasm", guest.name.replace('-', "_")));
                let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
                if written(&library) > written(&program) {
                    library
                } else {
                    program
                }
            }
        };
        let bytes = fs::read(&from).with_context(|| format!("{} was not built", from.display()))?;
        let to = out.join(format!("{}.wasm", guest.name));
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        // By rename: whoever reads at this moment sees the old or the new file, never half of one.
        let torn = out.join(format!(".{}.new", guest.name));
        fs::write(&torn, &bytes)?;
        fs::rename(&torn, &to)?;
        changed.push(guest.name.clone());
    }
    forget_removed(&out, root)?;
    Ok(changed)
}

/// Removes components whose source is gone, so that no test passes on a leftover.
fn forget_removed(out: &Path, root: &Path) -> anyhow::Result<()> {
    let known = all(root)?;
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if !known.iter().any(|g| g.name == file_stem(&path)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
