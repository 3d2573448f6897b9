//! `cargo xtask bench NAME`: figures, a line each, with the ratio to a peer that ran beside it where there is one.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::build::{self, cargo};
use crate::guests;

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

/// Name, and what cargo runs for it. Each prints lines of [`Figure`]; other lines are for people.
const BENCHES: &[(&str, &[&str])] = &[
    (
        "guest-call",
        &["run", "--release", "--package", "plugin", "--example", "guest_call"],
    ),
    (
        "placing",
        &["run", "--release", "--package", "scheduler", "--example", "placing"],
    ),
    (
        "one-change",
        &[
            "run",
            "--release",
            "--package",
            "controllers",
            "--example",
            "one_change",
        ],
    ),
    ("cluster", &["run", "--package", "harness", "--example", "cluster"]),
    ("api", &["run", "--release", "--package", "harness", "--example", "api"]),
    ("store", &["bench", "--package", "store", "--bench", "store"]),
];

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
        BENCHES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    let chosen: Vec<_> = BENCHES
        .iter()
        .filter(|(name, _)| options.name == "all" || options.name == *name)
        .collect();
    ensure!(
        !chosen.is_empty(),
        "there is no bench {}; `cargo xtask bench list` shows them",
        options.name
    );
    ensure!(
        options.peer.is_none() || options.name == "api",
        "only `api` can be pointed at another server"
    );
    guests::build_all()?;
    // These start the binary as it ships.
    let binary = if chosen.iter().any(|(name, _)| matches!(*name, "cluster" | "api")) {
        Some(build::run(&build::Options { release: true })?)
    } else {
        None
    };
    let mut figures = Vec::new();
    for (name, args) in chosen {
        println!("== {name}");
        let mut args = args.to_vec();
        if let Some(peer) = &options.peer {
            args.extend(["--", peer]);
        }
        figures.extend(one(&args, binary.as_deref()).with_context(|| format!("bench {name}"))?);
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
    Ok(())
}

fn one(args: &[&str], binary: Option<&Path>) -> Result<Vec<Figure>> {
    let mut cargo = cargo();
    if let Some(binary) = binary {
        cargo.env("PILOTIS_BIN", binary);
    }
    let mut child = cargo
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let Some(output) = child.stdout.take() else {
        bail!("cargo has no output")
    };
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
