//! Gets a Rust compiler that knows `wasm32-wasip2`: from rustup, or where that cannot be reached, from Debian.
//!
//! Debian's compiler is newer than the machine's own libraries, so its packages are unpacked into a private folder and
//! run by that folder's own dynamic loader. Nothing is installed and no root is needed. The linkers come from the
//! rustup toolchain, which carries them for every host.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, bail, ensure};

pub const TARGET: &str = "wasm32-wasip2";

/// The newest suite first. A suite's compiler must be able to build the workspace (`rust-version` in `Cargo.toml`).
const SUITES: &[&str] = &["forky", "sid"];
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the compiler needs of its packages' dependencies: itself and its shared libraries, not gcc and binutils. A
/// name ending in `*` stands for whichever version the suite depends on.
const PACKAGES: &[&str] = &[
    "rustc",
    "libstd-rust-1.*",
    "libstd-rust-dev",
    "libstd-rust-dev-wasm32",
    "libllvm*",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libxml2*",
    "libz3-4",
    "libedit2",
    "libffi8",
    "libzstd1",
    "zlib1g",
    "libtinfo6",
    "libbsd0",
    "libmd0",
    "liblzma5",
    "libicu*",
];

/// How long rustup may take before Debian is asked instead. It prints its progress meanwhile.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// The compiler to build guests with.
#[derive(Debug)]
pub enum Toolchain {
    /// The active one has the target.
    Active,
    /// A wrapper to run as `RUSTC`, and where its linkers are.
    Unpacked { rustc: PathBuf, linkers: PathBuf },
}

impl Toolchain {
    pub fn apply(&self, cargo: &mut Command) {
        if let Toolchain::Unpacked { rustc, linkers } = self {
            let path = env::var_os("PATH").unwrap_or_default();
            let folders = [linkers.clone(), linkers.join("gcc-ld")]
                .into_iter()
                .chain(env::split_paths(&path));
            cargo.env("RUSTC", rustc);
            cargo.env("PATH", env::join_paths(folders).expect("PATH was split a line above"));
        }
    }
}

/// The first that works of: what is there, rustup, Debian. `PILOTIS_TOOLCHAIN=debian` skips the first two.
pub fn get(target: &Path) -> anyhow::Result<Toolchain> {
    let forced = env::var("PILOTIS_TOOLCHAIN").is_ok_and(|choice| choice == "debian");
    if !forced && (has_target() || rustup_adds_it()) {
        return Ok(Toolchain::Active);
    }
    let folder = match env::var_os("HOME") {
        Some(home) if !home.is_empty() => Path::new(&home).join(".cache/pilotis/toolchain"),
        _ => target.join("toolchain"),
    };
    let mut refusals = Vec::new();
    for suite in SUITES {
        match from_debian(&folder.join(suite), suite) {
            Ok(rustc) => {
                return Ok(Toolchain::Unpacked {
                    rustc,
                    linkers: linkers()?,
                });
            }
            Err(error) => refusals.push(format!("Debian {suite}: {error:#}")),
        }
    }
    bail!(
        "no compiler for {TARGET}: `rustup target add {TARGET}` did not work, nor did\n  {}\nWith a network, run the first by hand; it says what it lacks.",
        refusals.join("\n  ")
    )
}

fn has_target() -> bool {
    sysroot().is_ok_and(|root| root.join("lib/rustlib").join(TARGET).join("lib").is_dir())
}

fn sysroot() -> anyhow::Result<PathBuf> {
    Ok(run(Command::new("rustc")
        .current_dir(crate::root())
        .args(["--print", "sysroot"]))?
    .trim()
    .into())
}

fn rustup_adds_it() -> bool {
    let rustup = Command::new("rustup")
        .current_dir(crate::root())
        .args(["target", "add", TARGET])
        .spawn();
    let Ok(mut rustup) = rustup else { return false };
    let started = Instant::now();
    loop {
        match rustup.try_wait() {
            Ok(Some(status)) => return status.success() && has_target(),
            Ok(None) if started.elapsed() < RUSTUP_LIMIT => thread::sleep(Duration::from_millis(50)),
            _ => {
                // Both may fail only if it ended by itself.
                let _ = rustup.kill();
                let _ = rustup.wait();
                return false;
            }
        }
    }
}

fn linkers() -> anyhow::Result<PathBuf> {
    let rustlib = sysroot()?.join("lib/rustlib");
    let found = fs::read_dir(&rustlib)?
        .filter_map(Result::ok)
        .map(|e| e.path().join("bin"));
    let found = found.into_iter().find(|bin| bin.join("wasm-component-ld").is_file());
    found.with_context(|| {
        format!(
            "no wasm-component-ld below {}; Rust 1.82 and later bring it",
            rustlib.display()
        )
    })
}

/// Downloads, unpacks and tries out the suite's compiler; returns the wrapper to run it by.
///
/// Whatever was finished before an interruption is kept: apt continues or repeats torn downloads and checks their
/// hashes, and `stamp` is written last, after the compiler has answered.
fn from_debian(folder: &Path, suite: &str) -> anyhow::Result<PathBuf> {
    let wrapper = folder.join("rustc");
    let stamp = folder.join("stamp");
    if stamp.is_file() && answers(&wrapper).is_ok() {
        return Ok(wrapper);
    }
    eprintln!(
        "guest toolchain: rustc of Debian {suite} into {} (about 200 MB to fetch, 800 MB unpacked)",
        folder.display()
    );
    let apt = Apt::new(folder, suite)?;
    apt.update()?;
    let packages = apt.packages()?;
    let debs = folder.join("debs");
    fs::create_dir_all(&debs)?;
    apt.download(&packages, &debs)?;
    // Unpacked beside its place and moved there whole, so that a half-unpacked tree is never taken for one.
    let (fresh, tree) = (folder.join("root.new"), folder.join("root"));
    for old in [&fresh, &tree] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    fs::create_dir_all(&fresh)?;
    for deb in files(&debs)? {
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&fresh))?;
    }
    fs::rename(&fresh, &tree)?;
    write_wrapper(&wrapper, &tree)?;
    let version = answers(&wrapper)?;
    fs::remove_dir_all(&debs)?;
    fs::write(&stamp, format!("{version}\n"))?;
    Ok(wrapper)
}

/// Runs the tree's compiler by the tree's loader on the tree's libraries. `--argv0` makes it find its own sysroot.
fn write_wrapper(wrapper: &Path, tree: &Path) -> anyhow::Result<()> {
    let loader = find(tree, &|name| {
        name.starts_with("ld-linux") || name.starts_with("ld64.so")
    })
    .context("the packages hold no dynamic loader")?;
    let libraries = find(tree, &|name| name == "libc.so.6").context("the packages hold no libc")?;
    let libraries = libraries.parent().expect("a file lies in a folder").to_owned();
    let mut file = fs::File::create(wrapper)?;
    writeln!(file, "#!/bin/sh")?;
    writeln!(
        file,
        "exec '{}' --library-path '{}' --argv0 rustc '{}/usr/bin/rustc' \"$@\"",
        loader.display(),
        libraries.display(),
        tree.display()
    )?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The compiler's version, if it runs and has the target.
fn answers(wrapper: &Path) -> anyhow::Result<String> {
    let libs = run(Command::new(wrapper).args(["--target", TARGET, "--print", "target-libdir"]))?;
    ensure!(Path::new(libs.trim()).is_dir(), "it has no library for {TARGET}");
    Ok(run(Command::new(wrapper).arg("--version"))?.trim().to_owned())
}

/// apt with its own sources, lists and cache: it neither sees nor changes the machine's packages.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path, suite: &str) -> anyhow::Result<Self> {
        ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is missing, so downloads could not be checked"
        );
        let at = |name: &str| folder.join("apt").join(name);
        fs::create_dir_all(at("lists/partial"))?;
        fs::create_dir_all(at("cache/archives/partial"))?;
        // No package counts as installed, so everything is there to be picked.
        fs::write(at("status"), "")?;
        fs::write(
            at("sources.list"),
            format!("deb [signed-by={KEYRING}] {MIRROR} {suite} main\n"),
        )?;
        let dir = |key: &str, value: &Path| format!("Dir::{key}={}", value.display());
        let options = vec![
            dir("State", &folder.join("apt")),
            dir("State::status", &at("status")),
            dir("Cache", &at("cache")),
            dir("Etc::SourceList", &at("sources.list")),
            dir("Etc::SourceParts", Path::new("/dev/null")),
            dir("Etc::Preferences", Path::new("/dev/null")),
            dir("Etc::PreferencesParts", Path::new("/dev/null")),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "APT::Update::Error-Mode=any".into(),
            "APT::Sandbox::User=".into(),
        ];
        Ok(Self { options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.options.iter().flat_map(|option| ["-o", option]));
        command
    }

    fn update(&self) -> anyhow::Result<()> {
        run(self.command("apt-get").args(["-q", "update"])).map(drop)
    }

    /// Those of [`PACKAGES`] that the suite's compiler depends on, with their versions filled in.
    fn packages(&self) -> anyhow::Result<Vec<String>> {
        let mut query = self.command("apt-cache");
        query.args([
            "depends",
            "--recurse",
            "--no-pre-depends",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
        ]);
        query.args([
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            "rustc",
            "libstd-rust-dev-wasm32",
        ]);
        let text = run(&mut query)?;
        let mut names: Vec<String> = text.lines().filter(|line| wanted(line)).map(String::from).collect();
        names.sort();
        names.dedup();
        ensure!(
            names.iter().any(|n| n == "libstd-rust-dev-wasm32"),
            "the suite has no libstd-rust-dev-wasm32"
        );
        Ok(names)
    }

    /// Into `folder`. apt checks each file against the signed index and does not fetch again what is whole.
    fn download(&self, packages: &[String], folder: &Path) -> anyhow::Result<()> {
        run(self
            .command("apt-get")
            .current_dir(folder)
            .args(["-q", "download"])
            .args(packages))
        .map(drop)
    }
}

/// A line of `apt-cache depends` that names a package of ours: names stand at the line's beginning.
fn wanted(line: &str) -> bool {
    PACKAGES.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => line.starts_with(start) && !line.contains(' ') && !line.ends_with("-dev"),
        None => line == *pattern,
    })
}

fn find(folder: &Path, is_it: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.filter_map(Result::ok) {
            let kind = entry.file_type().ok()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if is_it(&entry.file_name().to_string_lossy()) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// What lies in a folder, in order; nothing where there is no folder.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<PathBuf>>>()?;
    files.sort();
    Ok(files)
}

/// What the command prints; its errors, when it fails.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        status.success(),
        "{program} failed ({status}): {}",
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(String::from_utf8(stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_compiler_and_its_libraries_only() {
        for name in [
            "rustc",
            "libstd-rust-1.97",
            "libllvm22",
            "libxml2-16",
            "libxml2",
            "zlib1g",
        ] {
            assert!(wanted(name), "{name}");
        }
        for name in [
            "gcc",
            "libc6-dev",
            "  Depends: rustc",
            "libllvm22-dev",
            "<libxml2-abi>",
            "binutils",
        ] {
            assert!(!wanted(name), "{name}");
        }
    }

    #[test]
    fn an_unpacked_compiler_is_run_with_its_linkers_in_front() {
        let toolchain = Toolchain::Unpacked {
            rustc: "/t/rustc".into(),
            linkers: "/l/bin".into(),
        };
        let mut cargo = Command::new("cargo");
        toolchain.apply(&mut cargo);
        let set = |name: &str| {
            let value = cargo
                .get_envs()
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value);
            value.unwrap_or_default().to_string_lossy().into_owned()
        };
        assert_eq!(set("RUSTC"), "/t/rustc");
        assert!(set("PATH").starts_with("/l/bin:/l/bin/gcc-ld:"), "{}", set("PATH"));
    }
}
