//! `cargo xtask bench NAME`: figures, a line each, with the ratio to a peer that ran beside it where there is one.

use std::collections::{BTreeSet, HashMap};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::build::cargo;
use crate::{guests, images};

#[derive(clap::Args)]
pub struct Options {
    /// One of those that `list` shows, or `all`
    name: String,
    /// For `api`: the URL of another API server (with `BENCH_TOKEN`) or a kubeconfig, to stand beside ours
    peer: Option<String>,
    /// Append the figures to this file, one JSON object a line
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A program that prints lines of [`Figure`]; its other lines are for people.
struct Bench {
    name: &'static str,
    package: &'static str,
    program: Program,
}

enum Program {
    Example(&'static str),
    Bench(&'static str),
}

impl Bench {
    const fn example(name: &'static str, package: &'static str, example: &'static str) -> Self {
        Self {
            name,
            package,
            program: Program::Example(example),
        }
    }

    /// The name of the program, and how cargo is asked for it.
    fn target(&self) -> (&'static str, [&'static str; 2]) {
        match self.program {
            Program::Example(name) => (name, ["--example", name]),
            Program::Bench(name) => (name, ["--bench", name]),
        }
    }
}

const BENCHES: &[Bench] = &[
    Bench::example("guest-call", "plugin", "guest_call"),
    Bench::example("load", "plugin", "load"),
    Bench::example("placing", "scheduler", "placing"),
    Bench::example("swap", "scheduler", "swap"),
    Bench::example("one-change", "controllers", "one_change"),
    Bench::example("binding", "pilotis", "binding"),
    Bench::example(CLUSTER, "harness", "cluster"),
    Bench::example(API, "harness", "api"),
    Bench {
        name: "store",
        package: "store",
        program: Program::Bench("store"),
    },
];

/// Those that start the binary.
const CLUSTER: &str = "cluster";
const API: &str = "api";

/// One figure as a bench prints it.
#[derive(Debug, Serialize, Deserialize)]
struct Figure {
    bench: String,
    what: String,
    value: f64,
    unit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer_value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

pub fn run(options: &Options) -> Result<()> {
    if options.name == "list" {
        BENCHES.iter().for_each(|bench| println!("{}", bench.name));
        return Ok(());
    }
    let chosen: Vec<_> = BENCHES
        .iter()
        .filter(|bench| options.name == "all" || options.name == bench.name)
        .collect();
    ensure!(
        !chosen.is_empty(),
        "there is no bench {}; `cargo xtask bench list` shows them",
        options.name
    );
    ensure!(
        options.peer.is_none() || options.name == API,
        "only `{API}` can be pointed at another server"
    );
    guests::build_all()?;
    let programs = build(&chosen)?;
    let mut figures = Vec::new();
    let mut failed = Vec::new();
    for bench in chosen {
        println!("== {}", bench.name);
        match one(bench, &programs, options.peer.as_deref()) {
            Ok(more) => figures.extend(more),
            // The others took minutes, or will.
            Err(why) => {
                println!("{} failed: {why:#}", bench.name);
                failed.push(bench.name);
            }
        }
    }
    if let Some(path) = &options.json {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for figure in &figures {
            writeln!(file, "{}", serde_json::to_string(figure)?)?;
        }
    }
    println!(
        "\n{:<14} {:<58} {:>14} {:<10} {:>8}",
        "bench", "what", "value", "unit", "ratio"
    );
    for f in &figures {
        let ratio = f
            .ratio
            .map(|r| format!("{r:.2} × {}", f.peer.as_deref().unwrap_or("peer")))
            .unwrap_or_default();
        println!(
            "{:<14} {:<58} {:>14.2} {:<10} {:>8}",
            f.bench, f.what, f.value, f.unit, ratio
        );
    }
    ensure!(failed.is_empty(), "no figures of {}", failed.join(", "));
    Ok(())
}

/// Builds them all in one run of cargo, so that what they share is built once; answers where each program is.
fn build(chosen: &[&Bench]) -> Result<HashMap<String, PathBuf>> {
    // Every bench's package is named whatever was chosen: which packages are decides the features of what they share, and
    // with other features it would all be built anew.
    let packages: BTreeSet<&str> = BENCHES.iter().map(|bench| bench.package).chain(["pilotis"]).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    images::make("bench", &packages)?;
    let mut cargo = cargo();
    cargo.args([
        "build",
        "--profile",
        "bench",
        "--message-format",
        "json-render-diagnostics",
    ]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    for bench in chosen {
        cargo.args(bench.target().1);
        if matches!(bench.name, CLUSTER | API) {
            cargo.args(["--bin", "pilotis"]);
        }
    }
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut programs = HashMap::new();
    for line in BufReader::new(output).lines() {
        let Ok(built) = serde_json::from_str::<Built>(&line?) else {
            continue;
        };
        if let (Some(target), Some(executable)) = (built.target, built.executable) {
            programs.insert(target.name, executable);
        }
    }
    ensure!(child.wait()?.success(), "the benches cannot be built");
    Ok(programs)
}

/// What cargo says of one thing that it built.
#[derive(Deserialize)]
struct Built {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn one(bench: &Bench, programs: &HashMap<String, PathBuf>, peer: Option<&str>) -> Result<Vec<Figure>> {
    let name = bench.target().0;
    let program = programs.get(name).with_context(|| format!("cargo built no {name}"))?;
    let mut command = Command::new(program);
    command.current_dir(crate::root()).args(peer);
    if let Some(binary) = programs.get("pilotis") {
        command.env("PILOTIS_BIN", binary);
    }
    let mut child = command.stdout(Stdio::piped()).spawn();
    let child = child
        .as_mut()
        .map_err(|e| anyhow!("cannot run {}: {e}", program.display()))?;
    let output = child.stdout.take().context("it has no output")?;
    let mut figures = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        match serde_json::from_str::<Figure>(&line) {
            Ok(figure) => figures.push(figure),
            Err(_) => println!("{line}"),
        }
    }
    ensure!(child.wait()?.success(), "it ended with an error");
    Ok(figures)
}
