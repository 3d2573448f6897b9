//! `cargo xtask conformance`: Kubernetes' own `e2e.test` against a cluster of ours, a line per test and a total.
//!
//! The binary is built elsewhere and named by `--e2e`. It is asked what it holds ([`Suite::names`]), and then runs the chosen
//! tests in batches, each a process with a focus of exactly its names, so that a crash costs one batch, and what is
//! printed comes while the others run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use serde::Deserialize;

use crate::build;

#[derive(clap::Args)]
pub struct Options {
    /// Kubernetes' `e2e.test` (of 1.36: `go test -c ./test/e2e` in its sources)
    #[arg(long)]
    e2e: PathBuf,
    /// Full names of the tests to run, one a line [default: every one with `[Conformance]`]
    #[arg(long)]
    focus_file: Option<PathBuf>,
    /// Of those, only the tests whose name matches this regular expression
    #[arg(long)]
    focus: Option<Regex>,
    /// Leave out the tests whose name matches this regular expression
    #[arg(long)]
    skip: Option<Regex>,
    /// A running cluster's kubeconfig [default: a new cluster of two nodes that only say that they run pods]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The binary to start that cluster from [default: built now]
    #[arg(long, conflicts_with = "kubeconfig")]
    pilotis: Option<PathBuf>,
    /// Where reports, the tests' output and the new cluster's folder go [default: target/conformance]
    #[arg(long)]
    output: Option<PathBuf>,
    /// Processes at a time; tests with `[Serial]` run alone at the end
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Tests a process
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// More for `pilotis up`
    #[arg(last = true)]
    more: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    let output = options
        .output
        .clone()
        .unwrap_or_else(|| build::target().join("conformance"));
    fs::create_dir_all(&output).with_context(|| format!("{} cannot be made", output.display()))?;
    let output = output.canonicalize()?;
    let e2e = options.e2e.canonicalize();
    let suite = Suite {
        e2e: e2e.with_context(|| format!("there is no {}", options.e2e.display()))?,
        output: output.clone(),
    };
    let chosen = choose(options, &suite.names()?)?;
    ensure!(!chosen.is_empty(), "no test was chosen");
    let cluster = match &options.kubeconfig {
        Some(_) => None,
        None => Some(Cluster::start(options, &output.join("cluster"))?),
    };
    let kubeconfig = match (&options.kubeconfig, &cluster) {
        (Some(path), _) => path.canonicalize()?,
        (None, Some(cluster)) => cluster.dir.join("kubeconfig"),
        (None, None) => bail!("there is no cluster"),
    };
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|name| name.contains("[Serial]"));
    let mut tally = Tally::default();
    for (names, jobs) in [(together, options.jobs), (alone, 1)] {
        tally.add(suite.run(&names, jobs.max(1), options.batch.max(1), &kubeconfig)?);
    }
    println!("{tally}; reports and output are in {}", output.display());
    ensure!(tally.of(State::Failed) == 0, "some tests failed");
    Ok(())
}

/// The names to run, in order of the file or of the suite.
fn choose(options: &Options, known: &BTreeSet<String>) -> Result<Vec<String>> {
    let names: Vec<String> = match &options.focus_file {
        None => known
            .iter()
            .filter(|name| name.contains("[Conformance]"))
            .cloned()
            .collect(),
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let lines = text.lines().map(str::trim);
            lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
        }
    };
    // A name that selects nothing would count as neither passed nor failed, and nobody would notice.
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !known.contains(*name))
        .collect();
    ensure!(
        unknown.is_empty(),
        "{} does not hold these tests:\n{}",
        options.e2e.display(),
        unknown.join("\n")
    );
    let wanted = |name: &String| {
        options.focus.as_ref().is_none_or(|focus| focus.is_match(name))
            && !options.skip.as_ref().is_some_and(|skip| skip.is_match(name))
    };
    Ok(names.into_iter().filter(wanted).collect())
}

/// A cluster that lives as long as the run.
struct Cluster {
    pilotis: PathBuf,
    dir: PathBuf,
}

impl Cluster {
    fn start(options: &Options, dir: &Path) -> Result<Self> {
        let pilotis = match &options.pilotis {
            Some(path) => path.canonicalize()?,
            None => build::run(&build::Options::default())?,
        };
        let cluster = Self {
            pilotis,
            dir: dir.to_owned(),
        };
        // What an earlier run left, were it killed.
        cluster.stop();
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        let mut up = cluster.command("up");
        // Some tests ask for two nodes; whose pods really run are in the end-to-end tests of `cargo xtask test`.
        up.args(["--detach", "--listen", "127.0.0.1:0"]);
        up.args(["--runtime", "fake", "--fake-nodes", "2"]).args(&options.more);
        build::finish(up.stdout(Stdio::null()))?;
        Ok(cluster)
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.pilotis);
        command.arg(what).arg("--dir").arg(&self.dir);
        command
    }

    fn stop(&self) {
        if self.dir.exists()
            && let Err(error) = build::finish(self.command("down").stdout(Stdio::null()))
        {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The binary, and where it may write.
struct Suite {
    e2e: PathBuf,
    output: PathBuf,
}

/// How long a batch may take for each of its tests, beside a fixed start. Ginkgo ends it then, with a report.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

impl Suite {
    /// Every test there is.
    fn names(&self) -> Result<BTreeSet<String>> {
        let report = self.output.join("names.json");
        let mut dry = Command::new(&self.e2e);
        dry.arg("--ginkgo.dry-run")
            .arg(format!("--ginkgo.json-report={}", report.display()));
        let done = dry.output().with_context(|| format!("cannot run {dry:?}"))?;
        let specs = read(&report).with_context(|| {
            let said = String::from_utf8_lossy(&done.stdout);
            format!("{dry:?} ended with {} and said:\n{said}", done.status)
        })?;
        Ok(specs.iter().filter(|spec| spec.is_test()).map(Spec::name).collect())
    }

    fn run(&self, names: &[String], jobs: usize, batch: usize, kubeconfig: &Path) -> Result<Tally> {
        let batches: VecDeque<(usize, &[String])> = names.chunks(batch).enumerate().collect();
        let (batches, tally) = (Mutex::new(batches), Mutex::new(Tally::default()));
        let work = || -> Result<()> {
            loop {
                let next = lock(&batches).pop_front();
                let Some((number, names)) = next else { return Ok(()) };
                let results = self.batch(&format!("{jobs}-{number}"), names, kubeconfig)?;
                let mut tally = lock(&tally);
                for result in results {
                    println!("{result}");
                    tally.count(result.state);
                }
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let ends = workers.into_iter().map(|worker| match worker.join() {
                Ok(end) => end,
                Err(_) => bail!("a worker panicked"),
            });
            ends.collect::<Result<Vec<()>>>()
        })?;
        Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// One process. A test that its report does not tell of (the process died, or its set-up failed) has failed.
    fn batch(&self, number: &str, names: &[String], kubeconfig: &Path) -> Result<Vec<Outcome>> {
        let (report, log) = (self.file(number, "json"), self.file(number, "log"));
        if report.exists() {
            fs::remove_file(&report)?;
        }
        let focus: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
        let patience = PATIENCE * u32::try_from(names.len() + 1)?;
        let out = fs::File::create(&log)?;
        let mut e2e = Command::new(&self.e2e);
        e2e.arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args(["--provider=local", "--ginkgo.v", "--ginkgo.no-color"])
            .arg(format!("--ginkgo.timeout={}s", patience.as_secs()))
            // Ginkgo matches the suite's own name and a space before a test's.
            .arg(format!("--ginkgo.focus= (?:{})$", focus.join("|")))
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out);
        let ended = e2e
            .status()
            .with_context(|| format!("cannot run {}", self.e2e.display()))?;
        let specs = if report.exists() { read(&report)? } else { Vec::new() };
        let told: BTreeMap<String, &Spec> = specs.iter().filter(|s| s.is_test()).map(|s| (s.name(), s)).collect();
        // Why nothing ran: a failure before the tests, such as a cluster that was not ready.
        let before = specs.iter().find(|spec| !spec.is_test() && spec.failed());
        let outcome = |name: &String| match told.get(name) {
            Some(spec) if spec.state != "skipped" || spec.why().is_some() => spec.outcome(),
            _ => Outcome {
                name: name.clone(),
                state: State::Failed,
                took: Duration::ZERO,
                why: Some(match before.and_then(Spec::why) {
                    Some(why) => format!("before the tests: {why}"),
                    None => format!("it did not run: e2e.test ended with {ended}; see {}", log.display()),
                }),
            },
        };
        Ok(names.iter().map(outcome).collect())
    }

    fn file(&self, number: &str, extension: &str) -> PathBuf {
        self.output.join(format!("batch-{number}.{extension}"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of Ginkgo's JSON report is of use here (`types.Report` of ginkgo v2).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    #[serde(default)]
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
    #[serde(default)]
    forwarded_panic: String,
}

impl Spec {
    fn is_test(&self) -> bool {
        self.leaf_node_type == "It"
    }

    fn failed(&self) -> bool {
        !matches!(self.state.as_str(), "passed" | "skipped" | "pending")
    }

    fn name(&self) -> String {
        let hierarchy = self.container_hierarchy_texts.iter().flatten().map(String::as_str);
        let words: Vec<&str> = hierarchy.chain([self.leaf_node_text.as_str()]).collect();
        words.join(" ")
    }

    /// What a failed test said, or why one was skipped while it ran; nothing for one that was not asked for.
    fn why(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        let said = [failure.message.as_str(), failure.forwarded_panic.as_str()];
        let lines: Vec<&str> = said
            .iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        (!lines.is_empty()).then(|| shortened(&lines.join(" ")))
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            name: self.name(),
            state: match self.state.as_str() {
                "passed" => State::Passed,
                "skipped" | "pending" => State::Skipped,
                _ => State::Failed,
            },
            took: Duration::from_nanos(self.run_time),
            why: self.why(),
        }
    }
}

/// Gomega prints whole objects; the beginning says what it is about.
fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<Spec>> {
    let text = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let reports: Vec<Report> =
        serde_json::from_slice(&text).with_context(|| format!("{} is no report of Ginkgo", path.display()))?;
    Ok(reports.into_iter().filter_map(|r| r.spec_reports).flatten().collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Passed,
    Failed,
    Skipped,
}

struct Outcome {
    name: String,
    state: State,
    took: Duration,
    why: Option<String>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Passed => "passed ",
            State::Failed => "FAILED ",
            State::Skipped => "skipped",
        };
        write!(f, "{state} {:>6.1} s  {}", self.took.as_secs_f64(), self.name)?;
        match (&self.why, self.state) {
            (Some(why), State::Failed | State::Skipped) => write!(f, "\n                  {why}"),
            _ => Ok(()),
        }
    }
}

#[derive(Default)]
struct Tally(BTreeMap<State, usize>);

impl Tally {
    fn count(&mut self, state: State) {
        *self.0.entry(state).or_default() += 1;
    }

    fn add(&mut self, other: Tally) {
        for (state, count) in other.0 {
            *self.0.entry(state).or_default() += count;
        }
    }

    fn of(&self, state: State) -> usize {
        self.0.get(&state).copied().unwrap_or(0)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [passed, failed, skipped] = [State::Passed, State::Failed, State::Skipped].map(|state| self.of(state));
        let all = passed + failed + skipped;
        write!(f, "{passed} of {all} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).expect("a report of one spec")
    }

    #[test]
    fn a_report_is_read_as_ginkgo_writes_it() {
        let failed = spec(
            r#"{"ContainerHierarchyTexts": ["[sig-node] Pods", "when made"], "LeafNodeText": "should run [Conformance]",
                "LeafNodeType": "It", "State": "failed", "RunTime": 1500000000,
                "Failure": {"Message": "wanted 2\n    got 1\n\n", "ForwardedPanic": ""}}"#,
        );
        let outcome = failed.outcome();
        assert_eq!(outcome.name, "[sig-node] Pods when made should run [Conformance]");
        assert_eq!(
            (outcome.state, outcome.took),
            (State::Failed, Duration::from_millis(1500))
        );
        assert_eq!(outcome.why.as_deref(), Some("wanted 2 got 1"));
    }

    #[test]
    fn a_test_that_was_not_asked_for_says_nothing() {
        let skipped = spec(r#"{"LeafNodeText": "x", "LeafNodeType": "It", "State": "skipped"}"#);
        assert_eq!((skipped.why(), skipped.failed()), (None, false));
    }
}
