//! Puts the built-in plugins into the binary: the components that `cargo xtask guests` left in `target/guests`, and the code
//! that `plugin-images` made of them in `target/images`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let plugins = names(&root.join("plugins"));
    let mut tables = String::from(
        "/// Name and component of every built-in plugin, in order of their names.\npub const EMBEDDED: &[(&str, &[u8])] = &[\n",
    );
    for (name, file) in built(&plugins, &root.join("target/guests"), "wasm") {
        writeln!(tables, "    ({name:?}, include_bytes!({file:?})),").expect("a String takes it");
    }
    tables.push_str("];\n/// Their code, compiled; one that is stale is passed over when it is loaded.\npub const IMAGES: &[&[u8]] = &[\n");
    for (_, file) in built(&plugins, &root.join("target/images"), "image") {
        writeln!(tables, "    include_bytes!({file:?}),").expect("a String takes it");
    }
    tables.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(out, tables).expect("OUT_DIR can be written");
    println!("cargo::rerun-if-changed={}", root.join("plugins").display());
}

/// What was built of each plugin. Without it the workspace still compiles (for `cargo check`, clippy, an editor); `up` says
/// what is missing.
fn built(plugins: &[String], folder: &Path, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in plugins {
        let file = folder.join(name).with_extension(extension);
        println!("cargo::rerun-if-changed={}", file.display());
        if let Ok(file) = file.canonicalize() {
            found.push((name.clone(), file.display().to_string()));
        }
    }
    found
}

fn names(plugins: &Path) -> Vec<String> {
    let entries = fs::read_dir(plugins).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
