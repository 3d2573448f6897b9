//! `cargo xtask test [PART]`: everything that must hold, with what it needs installed first.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::build::{cargo, finish};
use crate::{build, clients, debian};

#[derive(clap::Args)]
pub struct Options {
    /// Only this part: `lint`, `unit`, `e2e`, `api` (real clients), or the name of a crate
    part: Option<String>,
}

/// Everything but the end-to-end tests, and the guests, whose exports only a component's linker takes.
const NATIVE: [&str; 5] = ["--workspace", "--exclude", "harness", "--exclude", "guests"];
const HARNESS: [&str; 2] = ["--package", "harness"];

pub fn run(options: &Options) -> Result<()> {
    let mut tally = Tally::default();
    match options.part.as_deref() {
        None => {
            lint()?;
            prepare()?;
            clients::install(&kubectls());
            tests(&NATIVE, &mut tally)?;
            tests(&HARNESS, &mut tally)?;
        }
        Some("lint") => return lint(),
        Some("unit") => {
            prepare()?;
            tests(&NATIVE, &mut tally)?;
        }
        Some("e2e") => {
            prepare()?;
            clients::install(&kubectls());
            tests(&HARNESS, &mut tally)?;
        }
        Some("api") => {
            prepare()?;
            tally.every_kubectl = true;
            clients::install("");
            tests(&[&HARNESS[..], &["clients::"]].concat(), &mut tally)?;
        }
        Some(name) => {
            prepare()?;
            tests(&["--package", name], &mut tally)?;
        }
    }
    for line in &tally.clients {
        println!("{line}");
    }
    for line in &tally.skips {
        println!("{line}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed.saturating_sub(tally.skips.len()),
        tally.failed,
        tally.skips.len()
    );
    ensure!(tally.failed == 0 && !tally.broken, "some tests failed");
    Ok(())
}

/// The oldest, one between and the newest: all eleven hold their sessions in `cargo xtask test api`.
fn kubectls() -> String {
    env::var(clients::KUBECTLS).unwrap_or_else(|_| "1.27,1.33,1.37".to_owned())
}

fn prepare() -> Result<()> {
    debian::install();
    build::run(&build::Options::default()).map(|_| ())
}

fn lint() -> Result<()> {
    finish(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;
    let apart = ["fmt", "--check", "--manifest-path", clients::KUBE_RS];
    finish(cargo().args(apart)).with_context(|| format!("run `cargo fmt --manifest-path {}`", clients::KUBE_RS))?;
    // The binary holds the guests, so clippy sees what ships only once they are built.
    crate::guests::build_all()?;
    finish(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// `skipped: …` lines that tests wrote.
    skips: Vec<String>,
    /// `client NAME VERSION: …` lines: what each real client did.
    clients: Vec<String>,
    every_kubectl: bool,
    broken: bool,
}

/// Runs `cargo test` and passes on what it says, counting as it goes by.
fn tests(which: &[&str], tally: &mut Tally) -> Result<()> {
    let started = Instant::now();
    let mut cargo = cargo();
    if !tally.every_kubectl {
        cargo.env(clients::KUBECTLS, kubectls());
    }
    cargo
        .args(["test", "--no-fail-fast"])
        .args(which)
        .args(["--", "--show-output"]);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let Some(output) = child.stdout.take() else {
        bail!("cargo has no output")
    };
    let mut shown = Shown::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                let before = rest.split(what).next().unwrap_or_default().trim_end();
                before
                    .rsplit(' ')
                    .next()
                    .and_then(|n| n.parse::<usize>().ok())
                    .unwrap_or(0)
            };
            tally.passed += count("passed");
            tally.failed += count("failed");
        }
        if line.trim_start().starts_with("skipped: ") {
            tally.skips.push(line.trim().to_owned());
        }
        if line.starts_with("client ") {
            tally.clients.push(line.clone());
        }
        if shown.wants(&line) {
            println!("{line}");
        }
    }
    tally.broken |= !child.wait()?.success();
    println!("{} took {:.0?}", which.join(" "), started.elapsed());
    Ok(())
}

/// What of a test run people want to see: which tests ran, and everything a failed one said.
#[derive(Default)]
struct Shown {
    failures: bool,
}

impl Shown {
    fn wants(&mut self, line: &str) -> bool {
        match line {
            "failures:" => self.failures = true,
            "successes:" => self.failures = false,
            _ if line.starts_with("test result: ") => self.failures = false,
            _ => return self.failures || line.starts_with("test "),
        }
        self.failures || line.starts_with("test result: ")
    }
}
