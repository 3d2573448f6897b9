//! Stories of pods: each file in `tests/cases/step/` is a pod, what happens to it, and what `step` ordered each time.
//!
//! `BLESS=1 cargo test -p kubelet` rewrites the answers; the diff is the review. The grammar of events is `event`, below.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::spec::Pod;
use super::state::{NodeFacts, Phase, PodState, Role, Sandbox};
use super::step::{Command, Event, Happened, ProbeKind, step};
use crate::runtime::{ContainerFacts, ContainerState, Exit, PodFacts, PodRef, SandboxFacts};

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/step");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no stories in {}", folder.display());
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let told = tell(&text);
        if told == text {
            continue;
        }
        if bless {
            std::fs::write(&file, told).unwrap();
        } else {
            wrong.push(format!("{}: the story goes differently now:\n{told}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 rewrites", wrong.join("\n"));
}

/// The story with its answers as they are now.
fn tell(text: &str) -> String {
    let (pod, events) = text.split_once("---\n").expect("a story is a pod, `---`, and events");
    let mut object: Value = serde_yaml_ng::from_str(pod).expect("the pod is YAML");
    let meta = object["metadata"].as_object_mut().expect("the pod has metadata");
    meta.entry("uid").or_insert(json!("uid"));
    meta.entry("namespace").or_insert(json!("default"));
    let mut teller = Teller {
        object,
        state: None,
        started: Vec::new(),
    };
    let mut out = format!("{pod}---\n");
    for line in events.lines() {
        if line.starts_with('>') || line.starts_with('=') {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let orders = teller.hear(line);
        for order in &orders {
            if let Some(line) = show(order) {
                writeln!(out, "> {line}").unwrap();
            }
        }
        if orders.iter().any(|o| matches!(o, Command::Report(_))) {
            writeln!(out, "= {}", summary(teller.state.as_mut().unwrap())).unwrap();
        }
    }
    out
}

struct Teller {
    object: Value,
    state: Option<PodState>,
    /// Every instance that was started: name, attempt, since.
    started: Vec<(String, u32, Timestamp)>,
}

impl Teller {
    fn pod(&self) -> Arc<Pod> {
        Arc::new(serde_json::from_value(self.object.clone()).expect("the pod reads as one"))
    }

    /// `SECONDS WORD …`
    fn hear(&mut self, line: &str) -> Vec<Command> {
        let mut words = line.split_whitespace();
        let seconds: i64 = words.next().unwrap().parse().expect("a line begins with its second");
        let at = Timestamp::from_second(seconds).unwrap();
        let words: Vec<&str> = words.collect();
        let node = Arc::new(NodeFacts {
            ip: "10.0.0.1".into(),
            runtime: "test".into(),
        });
        if words[0] == "met" {
            // `met` or `met with NAME ATTEMPT running|CODE …`: a kubelet meets the pod for the first time.
            let facts = (words.len() > 1).then(|| {
                for held in words[2..].chunks(3) {
                    self.started.push((held[0].into(), held[1].parse().unwrap(), at));
                }
                let exits = words[2..].chunks(3).filter(|h| h[2] != "running");
                self.facts(at, true, exits.map(|h| (h[0], h[2].parse().unwrap())).collect())
            });
            self.state = Some(PodState::new(self.pod(), facts.as_ref(), node, at));
            return step(
                self.state.as_mut().unwrap(),
                Event {
                    at,
                    what: Happened::Met,
                },
            );
        }
        let what = self.event(at, &words);
        step(
            self.state.as_mut().expect("a story begins with `met`"),
            Event { at, what },
        )
    }

    fn event(&mut self, at: Timestamp, words: &[&str]) -> Happened {
        let rest = |from: usize| words[from..].join(" ");
        let container = || words[1].to_owned();
        match words {
            ["tick"] => Happened::Tick,
            ["volumes", "ready"] => Happened::VolumesReady,
            ["volumes", "fail", ..] => Happened::VolumesFailed(rest(2)),
            ["sandbox", "ready"] => Happened::SandboxStarted(sandbox()),
            ["sandbox", "fail", ..] => Happened::SandboxFailed(rest(2)),
            ["sandbox", "removed"] => Happened::SandboxRemoved,
            ["sandbox", "lost"] => Happened::Facts(self.facts(at, false, Vec::new())),
            ["image", _, "ready"] => Happened::ImageReady {
                container: container(),
                image_id: "id".into(),
            },
            ["image", _, "never"] => Happened::ImageFailed {
                container: container(),
                reason: "ErrImageNeverPull",
                message: "not present".into(),
            },
            ["image", _, "fail", ..] => Happened::ImageFailed {
                container: container(),
                reason: "ErrImagePull",
                message: rest(3),
            },
            ["start", name, "ok"] => {
                let attempt = self.state.as_ref().unwrap().container(name).unwrap().attempt;
                self.started.push(((*name).into(), attempt, at));
                Happened::Started {
                    container: container(),
                    id: format!("{name}.{attempt}"),
                    attempt,
                }
            }
            ["start", _, "fail", ..] => Happened::StartFailed {
                container: container(),
                reason: "RunContainerError",
                message: rest(3),
            },
            ["exit", name, code] => Happened::Facts(self.facts(at, true, vec![(name, code.parse().unwrap())])),
            ["unheard", name] => {
                let mut facts = self.facts(at, true, Vec::new());
                facts.containers.retain(|c| c.name != *name);
                Happened::Facts(facts)
            }
            ["stale", "facts", before] => {
                let mut facts = self.facts(at, true, Vec::new());
                facts.containers.clear();
                facts.observed = Timestamp::from_second(before.parse().unwrap()).unwrap();
                Happened::Facts(facts)
            }
            ["probe", name, kind, outcome] => {
                let attempt = self.started.iter().rev().find(|s| s.0 == *name).map_or(0, |s| s.1);
                let kind = match *kind {
                    "startup" => ProbeKind::Startup,
                    "liveness" => ProbeKind::Liveness,
                    _ => ProbeKind::Readiness,
                };
                let (success, id) = (*outcome == "ok", format!("{name}.{attempt}"));
                Happened::Probed {
                    container: container(),
                    id,
                    kind,
                    success,
                    message: "no".into(),
                }
            }
            ["delete", grace] => {
                self.object["metadata"]["deletionTimestamp"] = json!(at.to_string());
                self.object["metadata"]["deletionGracePeriodSeconds"] = json!(grace.parse::<u64>().unwrap());
                Happened::Spec(self.pod())
            }
            ["image", name, "becomes", image] => {
                for c in self.object["spec"]["containers"].as_array_mut().unwrap() {
                    if c["name"] == *name {
                        c["image"] = json!(image);
                    }
                }
                Happened::Spec(self.pod())
            }
            ["debug", name] => {
                let added = json!({"name": name, "image": "debug:1"});
                match &mut self.object["spec"]["ephemeralContainers"] {
                    Value::Array(list) if list.iter().any(|c| c["name"] == *name) => {}
                    Value::Array(list) => list.push(added),
                    none => *none = json!([added]),
                }
                Happened::Spec(self.pod())
            }
            ["removed"] => Happened::Removed,
            ["cleaned"] => Happened::Cleaned,
            other => panic!("no such event: {other:?}"),
        }
    }

    /// All instances started so far; those in `exits` have just ended, and with `ready` false all have.
    fn facts(&self, at: Timestamp, ready: bool, exits: Vec<(&str, i32)>) -> PodFacts {
        let containers = self.started.iter().map(|(name, attempt, since)| {
            let newest = self
                .started
                .iter()
                .rev()
                .find(|s| s.0 == *name)
                .is_some_and(|s| s.1 == *attempt);
            let code = exits.iter().find(|(n, _)| n == name && newest).map(|(_, code)| *code);
            let state = match code {
                Some(code) => ContainerState::Exited(Exit {
                    code,
                    reason: Exit::reason_of(code).into(),
                    message: String::new(),
                    started: *since,
                    finished: at,
                }),
                None => ContainerState::Running { started: *since },
            };
            ContainerFacts {
                id: format!("{name}.{attempt}"),
                name: name.clone(),
                attempt: *attempt,
                image_id: "id".into(),
                state,
            }
        });
        PodFacts {
            pod: PodRef {
                namespace: "default".into(),
                name: "p".into(),
                uid: "uid".into(),
            },
            sandbox: sandbox(),
            sandbox_ready: ready,
            containers: containers.collect(),
            observed: at,
        }
    }
}

fn sandbox() -> SandboxFacts {
    SandboxFacts {
        id: "s".into(),
        ip: "10.1.0.1".into(),
    }
}

fn show(order: &Command) -> Option<String> {
    Some(match order {
        Command::Report(_) => return None,
        Command::PrepareVolumes => "prepare volumes".into(),
        Command::StartSandbox { attempt } => format!("start sandbox {attempt}"),
        Command::PullImage { container } => format!("pull {container}"),
        Command::StartContainer { container, attempt, .. } => format!("start {container} attempt {attempt}"),
        Command::BeginProbe { container, kind, .. } => format!("probe {container} {kind:?}"),
        Command::EndProbes { container } => format!("end probes {container}"),
        Command::StopContainer { container, grace, .. } => format!("stop {container} within {grace:?}"),
        Command::RemoveContainer { id } => format!("remove {id}"),
        Command::RemoveSandbox { id } => format!("remove sandbox {id}"),
        Command::Cleanup => "clean up".into(),
        Command::Delete => "delete".into(),
        Command::Tell { reason, message, .. } => format!("tell {reason}: {message}"),
        Command::WakeAt(at) => format!("wake at {}", at.as_second()),
        Command::Forget => "forget".into(),
    })
}

fn summary(state: &mut PodState) -> String {
    let status = state.reported.clone();
    let mut text = status["phase"].as_str().unwrap().to_owned();
    if let Some(reason) = status["reason"].as_str() {
        write!(text, "({reason})").unwrap();
    }
    let held: Vec<&str> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["status"] == "True" && c["type"] != "PodScheduled" && c["type"] != "PodReadyToStartContainers")
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    write!(text, " [{}]", held.join(" ")).unwrap();
    for list in [Role::Init, Role::Main, Role::Ephemeral].map(Role::statuses) {
        for c in status[list].as_array().into_iter().flatten() {
            let (name, state) = (c["name"].as_str().unwrap(), &c["state"]);
            let shown = if let Some(waiting) = state.get("waiting") {
                let message = waiting["message"]
                    .as_str()
                    .map(|m| format!(": {m}"))
                    .unwrap_or_default();
                format!("waiting {}{message}", waiting["reason"].as_str().unwrap())
            } else if let Some(ended) = state.get("terminated") {
                format!("ended {} {}", ended["exitCode"], ended["reason"].as_str().unwrap())
            } else {
                "running".into()
            };
            write!(text, "; {name} {shown}").unwrap();
            if c["restartCount"] != 0 {
                write!(text, " x{}", c["restartCount"]).unwrap();
            }
        }
    }
    text
}

/// Whatever order things happen in, nothing is started twice and an ending pod starts nothing.
#[test]
fn no_order_of_events_starts_anything_twice() {
    let story =
        "metadata: {name: p}\nspec: {containers: [{name: a, image: i}], initContainers: [{name: i, image: i}]}\n";
    let events = [
        "volumes ready",
        "sandbox ready",
        "image i ready",
        "start i ok",
        "exit i 0",
        "image a ready",
        "start a ok",
        "exit a 1",
        "tick",
        "sandbox lost",
        "sandbox removed",
        "delete 5",
        "cleaned",
        "stale facts 0",
        "debug e",
        "image e ready",
        "start e ok",
        "exit e 1",
    ];
    let mut seed: u64 = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0x5eed);
    for round in 0..2000 {
        let begun = seed;
        let mut object: Value = serde_yaml_ng::from_str(story).unwrap();
        object["metadata"]["uid"] = json!("uid");
        let mut teller = Teller {
            object,
            state: None,
            started: Vec::new(),
        };
        teller.hear("0 met");
        let mut flying = std::collections::BTreeSet::new();
        let mut looked = 0;
        for at in 1..40 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let event = events[(seed >> 33) as usize % events.len()];
            // Only what is under way can be answered.
            if event.starts_with("start") && !flying.remove(event.split(' ').nth(1).unwrap()) {
                continue;
            }
            if event == "sandbox ready" && teller.state.as_ref().unwrap().sandbox != Sandbox::Starting {
                continue;
            }
            let orders = teller.hear(&format!("{} {event}", at * 7));
            let state = teller.state.as_ref().unwrap();
            for order in &orders {
                if let Command::StartContainer { container, .. } = order {
                    let fresh = flying.insert(container.clone());
                    assert!(fresh, "round {round}: {container} started twice (SEED={begun})");
                    looked += usize::from(container == "e");
                    assert!(
                        looked <= 1,
                        "round {round}: {container} was started again (SEED={begun})"
                    );
                    assert!(
                        state.ending.is_none(),
                        "round {round}: an ending pod started {container} (SEED={begun})"
                    );
                }
            }
            let alive = state
                .containers
                .iter()
                .filter(|c| c.role != Role::Ephemeral && matches!(c.phase, Phase::Running { .. }))
                .count();
            assert!(alive <= 1, "round {round}: init and main run at once (SEED={begun})");
        }
    }
}
