//! Clients that tests drive, in `target/clients`: got where that can be, and where not, the reason is left for the tests to tell.
//!
//! A client lies in a folder of its name beside two files: `NAME.made-of`, all that it was made of, so that it is made
//! again only when that changes; or `NAME.lacks`, one line, why it is not there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::build::cargo;

/// The newest patch of each minor version that is not beside Google's kubectl (`kubectl.1.27` to `kubectl.1.33`).
const KUBECTL: [&str; 4] = ["v0.34.13", "v0.35.10", "v0.36.6", "v0.37.2"];

/// A command of its module.
const HELM: &str = "v3.22.0";

/// kubectl as its own repository builds it: its module holds all but this.
const KUBECTL_MAIN: &str = r#"package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
"#;

/// The variable that names the versions of kubectl whose sessions are held, `1.27,1.36`; without it they all are.
pub const KUBECTLS: &str = "KUBECTL_VERSIONS";

/// Gets what is missing or old, of kubectl only the versions that `kubectls` names, where it names any. Never fails: a client
/// that cannot be had must not keep the other tests from running.
pub fn install(kubectls: &str) {
    let place = crate::root().join("target/clients");
    for version in KUBECTL {
        let minor = version.split('.').nth(1).unwrap_or_default();
        if !kubectls.is_empty() && !kubectls.split(',').any(|wanted| wanted == format!("1.{minor}")) {
            continue;
        }
        let name = format!("kubectl-1.{minor}");
        let recipe = format!("k8s.io/kubectl {version}\n{KUBECTL_MAIN}");
        get(&place, &name, &recipe, |into| kubectl(into, minor, version));
    }
    get(&place, "helm", &format!("helm.sh/helm/v3 {HELM}"), helm);
    for (name, make) in PROGRAMS {
        let from = crate::root().join("tests/clients").join(name);
        get(&place, name, &sources(&from), |into| make(&from, into));
    }
}

/// The one of these programs that is Rust: no member of the workspace, below whose root this is.
pub const KUBE_RS: &str = "tests/clients/kube-rs/Cargo.toml";

/// Programs of ours on a client's library: a folder of `tests/clients` each, and how it is made ready to run.
type Make = fn(&Path, &Path) -> Result<()>;
const PROGRAMS: [(&str, Make); 4] = [
    ("kube-rs", kube_rs),
    ("controller-runtime", controller_runtime),
    ("python", python),
    ("javascript", javascript),
];

/// Every file of a folder, one after the other.
fn sources(folder: &Path) -> String {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    let texts = paths.iter().map(|path| {
        if path.is_dir() {
            sources(path)
        } else {
            fs::read_to_string(path).unwrap_or_default()
        }
    });
    texts.collect()
}

/// Built beside its folder, so that a change of ours does not build its libraries again.
fn kube_rs(from: &Path, into: &Path) -> Result<()> {
    let target = into.with_extension("build");
    let mut cargo = cargo();
    cargo
        .args(["build", "--locked", "--manifest-path"])
        .arg(from.join("Cargo.toml"));
    run(cargo.arg("--target-dir").arg(&target))?;
    fs::copy(target.join("debug/client-kube-rs"), into.join("client-kube-rs"))?;
    Ok(())
}

fn controller_runtime(from: &Path, into: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(from).env("CGO_ENABLED", "0");
    go.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]);
    run(go.arg(into.join("controller-runtime")).arg("."))
}

fn python(from: &Path, into: &Path) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(into))?;
    let mut pip = Command::new(into.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(pip.arg(from.join("requirements.txt")))
}

/// Node looks for libraries beside the program, so that it is copied.
fn javascript(from: &Path, into: &Path) -> Result<()> {
    for file in fs::read_dir(from)? {
        let file = file?.path();
        fs::copy(&file, into.join(file.file_name().unwrap_or_default()))?;
    }
    run(Command::new("npm")
        .args(["ci", "--no-fund", "--no-audit"])
        .current_dir(into))
}

/// Makes `place/name`, unless it is there and made of the same.
fn get(place: &Path, name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) {
    let into = place.join(name);
    let beside = |what: &str| place.join(format!("{name}.{what}"));
    if into.is_dir() && fs::read_to_string(beside("made-of")).is_ok_and(|old| old == recipe) {
        return;
    }
    eprintln!("getting {name} into {}", into.display());
    // The recipe is written last: a client that is half made is made again.
    let made = || -> Result<()> {
        let _ = fs::remove_file(beside("made-of"));
        let _ = fs::remove_file(beside("lacks"));
        if into.exists() {
            fs::remove_dir_all(&into)?;
        }
        fs::create_dir_all(&into)?;
        make(&into)?;
        fs::write(beside("made-of"), recipe)?;
        Ok(())
    };
    if let Err(error) = made() {
        let why = format!("{error:#}").replace('\n', " ");
        eprintln!("not there: {name}: {why}");
        let _ = fs::remove_dir_all(&into);
        let _ = fs::write(beside("lacks"), why);
    }
}

fn kubectl(into: &Path, minor: &str, version: &str) -> Result<()> {
    fs::write(into.join("main.go"), KUBECTL_MAIN)?;
    let git = version.replacen("v0.", "v1.", 1);
    let about = [("gitVersion", git.as_str()), ("gitMajor", "1"), ("gitMinor", minor)];
    let flags = about.map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}"));
    go_build(
        into,
        &format!("k8s.io/kubectl {version}"),
        &flags.join(" "),
        ".",
        "kubectl",
    )
}

fn helm(into: &Path) -> Result<()> {
    let flags = format!("-X helm.sh/helm/v3/internal/version.version={HELM}");
    let package = "helm.sh/helm/v3/cmd/helm";
    go_build(into, &format!("helm.sh/helm/v3 {HELM}"), &flags, package, "helm")
}

/// Builds `package` of a module that requires only `module`, whose own requirements settle all versions.
fn go_build(into: &Path, module: &str, ldflags: &str, package: &str, program: &str) -> Result<()> {
    fs::write(
        into.join("go.mod"),
        format!("module client\n\ngo 1.24\n\nrequire {module}\n"),
    )?;
    let mut go = Command::new("go");
    go.current_dir(into).env("CGO_ENABLED", "0");
    go.args([
        "build",
        "-mod=mod",
        "-trimpath",
        "-ldflags",
        &format!("-s -w {ldflags}"),
    ]);
    run(go.args(["-o", program, package]))
}

/// Runs a tool to its end without letting it speak; the last line it said is the reason when it fails.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    if !program.contains('/') {
        let path = env::var_os("PATH").unwrap_or_default();
        ensure!(
            env::split_paths(&path).any(|folder| folder.join(&program).is_file()),
            "{program} is not installed"
        );
    }
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    bail!("{program} ended with {}: {said}", output.status)
}
