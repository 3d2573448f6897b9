//! Sessions at a terminal, as text: what is typed after `$`, and below it what a person must see.
//!
//! ```text
//! # A comment.
//! $ kubectl get configmap nothing
//! exit 1
//! Error from server (NotFound): configmaps "nothing" not found
//!
//! 1.30+ until $ kubectl get pods
//! > -o name
//! pod/…
//! ```
//! `>` continues a command. Without `exit` it must succeed. Both streams are compared, blank lines and the widths of columns
//! aside; `…` stands for any text, alone on a line for any lines. `$NAME` is replaced by the variable of the session.
//! Before the `$` may stand, in this order:
//! - `1.30+` or `1.27-1.29`: only these versions of the client have the step;
//! - `until`: it is repeated until it shows what it must;
//! - `into FILE`: it goes on while the session does, and what it says is in FILE.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{kill_group, output};

/// For one command, and for what `until` waits for.
const LIMIT: Duration = Duration::from_secs(90);

/// Minor version of the client, its major being 1.
pub type Minor = u32;

#[derive(Debug, Default, PartialEq)]
pub struct Step {
    line: usize,
    since: Option<Minor>,
    until_version: Option<Minor>,
    until: bool,
    into: Option<String>,
    command: String,
    exit: i32,
    shows: Vec<String>,
}

/// Where a session is held.
pub struct Terminal<'a> {
    pub script: &'a Path,
    pub version: Minor,
    /// The working folder.
    pub dir: PathBuf,
    pub env: Vec<(&'static str, String)>,
}

impl Terminal<'_> {
    /// How many steps were taken. `Err` tells of each that went wrong.
    pub fn hold(&self) -> Result<usize, String> {
        let text = fs::read_to_string(self.script).map_err(|error| format!("{}: {error}", self.script.display()))?;
        let steps = parse(&text).map_err(|why| format!("{}:{why}", self.script.display()))?;
        let mut background = Background::default();
        let (mut taken, mut wrong) = (0, String::new());
        for step in steps.iter().filter(|step| step.is_for(self.version)) {
            taken += 1;
            if let Err(why) = self.take(step, &mut background) {
                wrong += &format!("{}:{}: $ {}\n{why}\n", self.script.display(), step.line, step.command);
            }
        }
        if wrong.is_empty() { Ok(taken) } else { Err(wrong) }
    }

    fn take(&self, step: &Step, background: &mut Background) -> Result<(), String> {
        if let Some(file) = &step.into {
            let file = File::create(self.dir.join(file)).map_err(|error| format!("{file}: {error}"))?;
            let errors = file.try_clone().map_err(|error| error.to_string())?;
            let mut command = self.shell(&step.command);
            command.stdin(Stdio::null()).stdout(file).stderr(errors);
            let child = command.spawn().map_err(|error| error.to_string())?;
            background.0.push(child);
            return Ok(());
        }
        let shows: Vec<String> = step.shows.iter().map(|line| self.filled(line)).collect();
        let started = Instant::now();
        loop {
            let output = output(&mut self.shell(&format!("exec 2>&1\n{}", step.command)), None, LIMIT)?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let code = output.status.code().unwrap_or(-1);
            if code == step.exit && shown(&shows, &said) {
                return Ok(());
            }
            if !step.until || started.elapsed() > LIMIT {
                let expected = shows.join("\n");
                return Err(format!(
                    "  expected exit {} and\n{expected}\n  got exit {code} and\n{said}",
                    step.exit
                ));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// It leads a process group, so that what it started can be ended with it.
    fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).current_dir(&self.dir).process_group(0);
        shell.envs(self.env.iter().map(|(name, value)| (name, value)));
        shell
    }

    fn filled(&self, line: &str) -> String {
        self.env.iter().fold(line.to_owned(), |line, (name, value)| {
            line.replace(&format!("${name}"), value)
        })
    }
}

/// What goes on beside the session, until it ends.
#[derive(Default)]
struct Background(Vec<Child>);

impl Drop for Background {
    fn drop(&mut self) {
        for mut child in self.0.drain(..) {
            kill_group(child.id());
            let _ = child.wait();
        }
    }
}

impl Step {
    fn is_for(&self, version: Minor) -> bool {
        self.since.is_none_or(|since| since <= version) && self.until_version.is_none_or(|last| version <= last)
    }
}

/// `Err` begins with the number of the line.
fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let n = n + 1;
        if let Some(step) = begin(n, line)? {
            steps.push(step);
            continue;
        }
        if line.trim().is_empty() || line.starts_with("# ") {
            continue;
        }
        let step = steps
            .last_mut()
            .ok_or_else(|| format!("{n}: text before the first `$`"))?;
        if let Some(more) = line.strip_prefix("> ") {
            step.command.push('\n');
            step.command.push_str(more);
        } else if let Some(code) = line.strip_prefix("exit ").and_then(|code| code.parse().ok()) {
            step.exit = code;
        } else {
            step.shows.push(line.to_owned());
        }
    }
    Ok(steps)
}

/// `None` if the line begins no step.
fn begin(n: usize, line: &str) -> Result<Option<Step>, String> {
    let (before, command) = match line.split_once("$ ") {
        Some(("", command)) => ("", command),
        Some((before, command)) if before.ends_with(' ') => (before, command),
        _ => return Ok(None),
    };
    let mut step = Step {
        line: n,
        command: command.to_owned(),
        ..Step::default()
    };
    let mut words = before.split_whitespace();
    while let Some(word) = words.next() {
        let minor = |version: &str| version.strip_prefix("1.")?.parse::<Minor>().ok();
        match word {
            "until" => step.until = true,
            "into" => step.into = Some(words.next().ok_or_else(|| format!("{n}: into what?"))?.to_owned()),
            _ if word.ends_with('+') && minor(word.trim_end_matches('+')).is_some() => {
                step.since = minor(word.trim_end_matches('+'));
            }
            _ => match word.split_once('-').map(|(first, last)| (minor(first), minor(last))) {
                Some((Some(first), Some(last))) => (step.since, step.until_version) = (Some(first), Some(last)),
                // A `$` in what a command says.
                _ => return Ok(None),
            },
        }
    }
    Ok(Some(step))
}

/// Whether `said` is what `wanted` describes.
fn shown(wanted: &[String], said: &str) -> bool {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: Vec<String> = said
        .lines()
        .filter(|line| !is_noise(line))
        .map(words)
        .filter(|line| !line.is_empty())
        .collect();
    let wanted: Vec<String> = wanted.iter().map(|line| words(line)).collect();
    lines_match(&wanted, &said)
}

/// What client-go says of itself, or does not, as the machine is fast or slow. Up to 1.33 it reads a WebSocket before it has
/// opened its streams, and complains of the empty message by which any API server says that a stream is ready; from 1.34 it
/// complains when the time that it was given to wait ends while it opens a watch.
fn is_noise(line: &str) -> bool {
    line.contains("Unknown stream id") && line.ends_with("discarding message")
        || line.contains("reflector.go:") && line.contains("\"Failed to watch\" err=\"context deadline exceeded\"")
}

fn lines_match(wanted: &[String], said: &[String]) -> bool {
    match wanted.split_first() {
        None => said.is_empty(),
        Some((any, rest)) if any == "…" => (0..=said.len()).any(|from| lines_match(rest, &said[from..])),
        Some((first, rest)) => said
            .split_first()
            .is_some_and(|(line, left)| line_matches(first, line) && lines_match(rest, left)),
    }
}

fn line_matches(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[test]
fn steps_are_read_as_they_are_written() {
    let text =
        "# Why.\n1.30+ until $ kubectl get\n> pods\nexit 1\nNAME …\n\n1.27-1.29 into log $ kubectl logs\n$ true\n";
    let steps = parse(text).unwrap();
    let first = Step {
        line: 2,
        since: Some(30),
        until: true,
        command: "kubectl get\npods".into(),
        exit: 1,
        shows: vec!["NAME …".into()],
        ..Step::default()
    };
    assert_eq!(steps[0], first);
    assert_eq!(
        (steps[1].since, steps[1].until_version, steps[1].into.as_deref()),
        (Some(27), Some(29), Some("log"))
    );
    let of = |version| steps.iter().filter(|step| step.is_for(version)).count();
    assert_eq!([of(28), of(30), of(37)], [2, 2, 2]);
}

#[test]
fn what_is_shown_is_compared_by_words() {
    for (wanted, said, matches) in [
        ("NAME AGE\nweb …s", "NAME   AGE\nweb    3s\n", true),
        ("NAME AGE\nweb …s", "NAME   AGE\nweb    3m\n", false),
        ("", "something", false),
        ("…", "", true),
        ("a\n…\nb", "a\n\nx\ny\nb\n", true),
        ("a\n…\nb", "a\nx\n", false),
        ("pod/web-…-… created", "pod/web-12-ab created", true),
        ("pod/web-…-… created", "pod/web-12 created", false),
        ("one", "one\ntwo", false),
        (
            "one",
            "one\nE1122 00:23:49.05 26 reflector.go:205] \"Failed to watch\" err=\"context deadline exceeded\" reflector=\"r\"",
            true,
        ),
    ] {
        let wanted: Vec<String> = wanted.lines().map(str::to_owned).collect();
        assert_eq!(shown(&wanted, said), matches, "{wanted:?} and {said:?}");
    }
}
