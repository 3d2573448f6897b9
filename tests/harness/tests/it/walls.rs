//! The map of the house, held by a machine: who imports whom, what lies where, and that every part has its test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use harness::root;

/// README's table, as data. Adding an edge here is adding a dependency to the design.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("cel", &["model"]),
    ("schema", &["model", "cel"]),
    ("spdy", &[]),
    ("store", &["model"]),
    ("client", &["model"]),
    ("view", &["model", "client"]),
    ("auth", &["model", "client"]),
    ("registry", &["model", "schema", "store", "client"]),
    ("policy", &["model", "cel", "schema", "client", "registry"]),
    ("plugin", &["model", "client", "view"]),
    (
        "admission",
        &["model", "schema", "client", "view", "registry", "plugin"],
    ),
    ("scheduler", &["model", "client", "plugin"]),
    ("controllers", &["model", "client", "view", "plugin"]),
    ("kubelet", &["model", "client", "spdy"]),
    ("proxy", &["model", "client"]),
    ("api", &["model", "schema", "client", "spdy", "auth", "registry"]),
    (
        "server",
        &[
            "model",
            "store",
            "client",
            "view",
            "auth",
            "registry",
            "policy",
            "plugin",
            "admission",
            "scheduler",
            "controllers",
            "kubelet",
            "proxy",
            "api",
        ],
    ),
];

/// What lies at the top beside what every Rust workspace has. What git does not keep (`target`) is nobody's business.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "host",
    "plugins",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "sdk",
    "tests",
    "wit",
];

#[test]
fn crates_import_what_the_map_says() {
    let mapped: BTreeSet<String> = MAY_IMPORT.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders("host"), mapped, "host/ and the map list the same crates");
    let ours = our_crates();
    for (name, allowed) in MAY_IMPORT {
        let mut imports = dependencies(&root().join("host").join(name));
        imports.retain(|import| ours.contains(import));
        let allowed: BTreeSet<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(imports, allowed, "host/{name}: see README, `The map`");
    }
}

#[test]
fn the_maps_arrows_point_down() {
    let mut above = BTreeSet::new();
    for (name, allowed) in MAY_IMPORT {
        for import in *allowed {
            assert!(
                above.contains(import),
                "{name} imports {import}, which stands below it in the map"
            );
        }
        above.insert(name);
    }
}

#[test]
fn plugins_import_the_sdk_and_nothing_else_of_ours() {
    let ours = our_crates();
    for plugin in folders("plugins") {
        let mut imports = dependencies(&root().join("plugins").join(&plugin));
        imports.retain(|import| ours.contains(import));
        assert_eq!(imports, BTreeSet::from(["sdk".to_owned()]), "plugins/{plugin}");
    }
}

#[test]
fn plugins_are_named_by_world_and_thing() {
    let worlds = folders("wit");
    for plugin in folders("plugins") {
        let (world, thing) = plugin.split_once('-').unwrap_or_default();
        assert!(
            worlds.contains(world) && !thing.is_empty(),
            "plugins/{plugin} is not named <world>-<thing>, with a world of {worlds:?}"
        );
        assert_eq!(
            package(&root().join("plugins").join(&plugin)),
            plugin,
            "the crate of plugins/{plugin}"
        );
    }
}

#[test]
fn the_top_level_holds_what_it_may() {
    let git = root().join(".git").exists();
    for name in names(&root()) {
        // `target` folders are git's to ignore; dotfiles are settings.
        let ignored = name.starts_with('.') || name == "target" || (git && name.starts_with("target-"));
        assert!(
            ignored || TOP_LEVEL.contains(&name.as_str()),
            "{name} at the top level: find it a place below"
        );
    }
}

#[test]
fn every_guest_is_used_by_a_test() {
    let mut tests = String::new();
    for top in ["host", "tests"] {
        for file in rust_files(&root().join(top)) {
            let below = file
                .strip_prefix(root())
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            let guests_own = below.starts_with("tests/guests") || below.starts_with("tests/xtask");
            if below.contains("tests/") && !guests_own {
                tests += &fs::read_to_string(&file).expect("a source file");
            }
        }
    }
    for guest in names(&root().join("tests/guests/examples")) {
        let name = guest.trim_end_matches(".rs");
        let used = tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("{name}.wasm"));
        assert!(used, "tests/guests/examples/{guest} is used by no test");
    }
}

#[test]
fn every_client_is_got_and_driven() {
    let read = |file: PathBuf| fs::read_to_string(file).expect("a source file");
    let got = read(root().join("tests/xtask/src/clients.rs"));
    let driven: String = rust_files(&root().join("tests/harness/tests/it/clients"))
        .into_iter()
        .map(read)
        .collect();
    for client in folders("tests/clients") {
        for (text, does) in [(&got, "xtask gets"), (&driven, "test drives")] {
            assert!(
                text.contains(&format!("\"{client}\"")),
                "no {does} tests/clients/{client}"
            );
        }
    }
}

/// Who copies the README's plugin gets one that compiles and does what it says: `admission.rs` loads it.
#[test]
fn the_readme_shows_a_plugin_that_is_built() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let (_, shown) = readme
        .split_once("2. `plugins/admission-imagetag/src/lib.rs`:\n\n   ```rust\n")
        .expect("its second step");
    let (shown, _) = shown.split_once("   ```\n").expect("the end of the code");
    let lines = shown
        .lines()
        .map(|line| line.strip_prefix("   ").unwrap_or(line).to_owned() + "\n");
    let built = fs::read_to_string(root().join("tests/guests/examples/admission-imagetag.rs")).expect("the guest");
    assert_eq!(
        lines.collect::<String>(),
        built,
        "README and tests/guests/examples/admission-imagetag.rs differ"
    );
}

#[test]
fn every_source_file_begins_with_its_sentence() {
    for top in ["host", "plugins", "sdk", "tests"] {
        for file in rust_files(&root().join(top)) {
            let text = fs::read_to_string(&file).expect("a source file");
            assert!(
                text.starts_with("//! "),
                "{} does not say in its first line what it is",
                file.display()
            );
        }
    }
}

/// The README shows the map as a table: a crate in the first column, what it may import in the last.
#[test]
fn the_readme_shows_this_map() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let rows = map_table(&readme);
    let shown: BTreeSet<String> = rows.keys().cloned().collect();
    assert_eq!(shown, folders("host"), "README's map and host/ list the same crates");
    for (name, allowed) in MAY_IMPORT {
        let allowed: BTreeSet<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        let told = &rows[*name];
        let all = told.contains("all") && allowed.len() == MAY_IMPORT.len() - 1;
        assert!(
            all || *told == allowed,
            "README's map: {name} imports {allowed:?}, not {told:?}"
        );
    }
}

#[test]
fn a_map_is_read_as_it_is_shown() {
    let text = "| a | b |\n|---|---|\n| x | y |\n\n## The map\n\n| host crate | one line | may import |\n|---|---|---|\n\
                | `model` | words | – |\n| `host/view` | indexes | model, `client` |\n\n| other | table | here |\n";
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let expected = [
        ("model".to_owned(), set(&[])),
        ("view".to_owned(), set(&["model", "client"])),
    ];
    assert_eq!(map_table(text), expected.into());
}

/// The first table with a column named `… import` or a first column named `… crate`: crate → words of the last column.
fn map_table(markdown: &str) -> BTreeMap<String, BTreeSet<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner
            .split('|')
            .map(|cell| cell.replace('`', "").trim().to_owned())
            .collect()
    };
    let mut lines = markdown.lines().skip_while(|line| {
        let header = cells(line);
        !(line.starts_with('|') && header.last().is_some_and(|last| last.contains("import")))
    });
    let header = lines.next();
    assert!(
        header.is_some(),
        "README has no table whose last column says what a crate may import"
    );
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells = cells(line);
        let name = cells[0].rsplit('/').next().unwrap_or_default().to_owned();
        let words = cells[cells.len() - 1]
            .split([' ', ','])
            .filter(|word| word.starts_with(char::is_alphabetic));
        (name, words.map(str::to_owned).collect())
    };
    rows.map(row).collect()
}

/// What cargo calls our crates, but for those of tests.
fn our_crates() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for top in ["host", "plugins", "sdk"] {
        all.extend(
            folders(top)
                .iter()
                .map(|folder| package(&root().join(top).join(folder))),
        );
    }
    all
}

/// The name in a crate's `Cargo.toml`.
fn package(folder: &Path) -> String {
    let manifest = manifest(folder);
    let line = manifest.lines().find_map(|line| line.strip_prefix("name = \""));
    let name = line.unwrap_or_else(|| panic!("{} has no name", folder.display()));
    name.trim_end_matches('"').to_owned()
}

/// What a crate needs to be built as others use it: its dependencies on every platform, without those of its tests.
fn dependencies(folder: &Path) -> BTreeSet<String> {
    let manifest = manifest(folder);
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies" || section.ends_with("'.dependencies");
            // `[dependencies.name]`
            found.extend(section.strip_prefix("dependencies.").map(str::to_owned));
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.insert(name.trim_matches('"').to_owned());
        }
    }
    found
}

fn manifest(folder: &Path) -> String {
    let path = folder.join("Cargo.toml");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders in a top-level folder.
fn folders(top: &str) -> BTreeSet<String> {
    let top = root().join(top);
    let mut all = names(&top);
    all.retain(|name| top.join(name).is_dir());
    all
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// All Rust sources below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
