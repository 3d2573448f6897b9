//! Puts the built-in plugins into the binary: a table of the components that `cargo xtask guests` left in `target/guests`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guests = root.join("target/guests");
    let mut table = String::from(
        "/// Name and component of every built-in plugin, in order of their names.\npub const EMBEDDED: &[(&str, &[u8])] = &[\n",
    );
    for name in names(&root.join("plugins")) {
        let file = guests.join(format!("{name}.wasm"));
        println!("cargo::rerun-if-changed={}", file.display());
        // Without its guests the workspace still compiles (for `cargo check`, clippy, an editor); `up` says what is missing.
        if let Ok(file) = file.canonicalize() {
            writeln!(
                table,
                "    ({name:?}, include_bytes!({:?})),",
                file.display().to_string()
            )
            .expect("a String takes it");
        }
    }
    table.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(out, table).expect("OUT_DIR can be written");
    println!("cargo::rerun-if-changed={}", root.join("plugins").display());
}

fn names(plugins: &Path) -> Vec<String> {
    let entries = fs::read_dir(plugins).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
