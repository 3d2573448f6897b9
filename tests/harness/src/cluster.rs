//! A cluster of the built binary in a folder of its own, and kubectl for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::containerd::Containerd;
use crate::run::{self, run};
use crate::{binary, eventually, guest};

/// Two clusters at once would only make each other slow on a small machine.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed in its turn has left nothing: its cluster was dropped.
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A first start compiles every plugin.
const START: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(90);
/// For one kubectl. Longer than what the tests let kubectl itself wait for.
const KUBECTL: Duration = Duration::from_secs(120);

/// What `cargo xtask up` imports, too.
const IMAGES: [(&str, &str); 3] = [
    ("hello:v1", "pod-http"),
    ("hello:v2", "pod-http"),
    ("job:v1", "pod-command"),
];

/// What is shown of the cluster of a failed test: who waits for whom can be told from it.
const LAST_LOOK: [&[&str]; 4] = [
    &["get", "plugins"],
    &["get", "nodes,pods", "--all-namespaces", "-o", "wide"],
    &["get", "deployments,replicasets,pods", "--all-namespaces", "-o", "yaml"],
    &["get", "events", "--all-namespaces"],
];

/// Runs until dropped; then nothing of it is left, and a failed test has shown the end of its log and its objects.
pub struct TestCluster {
    place: TempDir,
    options: Vec<String>,
    started_before: bool,
    _turn: MutexGuard<'static, ()>,
}

impl TestCluster {
    /// With one node that runs Wasm components.
    pub fn wasm() -> Self {
        Self::with(&[], &IMAGES)
    }

    /// With one node that runs OCI images on `containerd`, and Services in the kernel.
    pub fn on(containerd: &Containerd) -> Self {
        let socket = containerd.socket();
        let socket = socket.to_str().expect("UTF-8");
        Self::with(
            &[
                "--runtime",
                "cri",
                "--cri-socket",
                socket,
                "--pod-cidr",
                Containerd::POD_CIDR,
            ],
            &[],
        )
    }

    /// With nodes whose pods are only said to run, `pilotis-0` and on.
    pub fn fake(nodes: usize) -> Self {
        Self::with(&["--runtime", "fake", "--fake-nodes", &nodes.to_string()], &[])
    }

    fn with(options: &[&str], images: &[(&str, &str)]) -> Self {
        let turn = turn();
        let mut cluster = Self {
            place: tempfile::Builder::new()
                .prefix("pilotis-e2e-")
                .tempdir()
                .expect("a temporary folder"),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            started_before: false,
            _turn: turn,
        };
        for (image, of) in images {
            let file = guest(of);
            let file = file.to_str().expect("UTF-8");
            cluster.pilotis(&["image", "import", image, file], STOP).unwrap();
        }
        cluster.up();
        cluster
    }

    /// The folder the cluster was told to use.
    pub fn dir(&self) -> PathBuf {
        self.place.path().join("cluster")
    }

    /// A file beside the cluster's folder, for what a test hands to kubectl.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Returns when it is ready. A later start must find its address by itself: kubeconfigs name it.
    pub fn up(&mut self) {
        let mut args = vec!["up", "--detach"];
        if !std::mem::replace(&mut self.started_before, true) {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        args.extend(self.options.iter().map(String::as_str));
        if let Err(why) = self.pilotis(&args, START) {
            panic!("the cluster does not start: {why}");
        }
    }

    pub fn down(&self) {
        self.pilotis(&["down"], STOP).unwrap();
    }

    /// `pilotis ARGS --dir DIR`.
    pub fn pilotis(&self, args: &[&str], limit: Duration) -> Result<String, String> {
        run(
            Command::new(binary()).args(args).arg("--dir").arg(self.dir()),
            None,
            limit,
        )
    }

    /// `kill -9` of the server. Pods' processes live on, as they would.
    pub fn kill_server(&self) {
        let lock = self.dir().join("lock");
        let pid = fs::read_to_string(&lock).expect("a running cluster has a lock file");
        run::kill(pid.trim().parse().expect("which holds its process id"));
        // Its threads end one by one, and the lock is held until the last has.
        eventually("the killed server is gone", Duration::from_secs(10), || {
            let lock = fs::File::open(&lock).map_err(|error| error.to_string())?;
            lock.try_lock().map_err(|error| error.to_string())
        });
    }

    /// Process id and command line of each process that has this cluster's folder in its arguments.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let dir = self.dir().to_str().expect("UTF-8").to_owned();
        let all = fs::read_dir("/proc")
            .expect("Linux")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter_map(|pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&dir).then_some((pid, line))
        })
        .collect()
    }

    /// Those of [`processes`](Self::processes) that pods run in.
    pub fn pod_processes(&self) -> Vec<(u32, String)> {
        let sandboxes = format!("{}/", self.dir().join("sandboxes").display());
        let mut all = self.processes();
        all.retain(|(_, line)| line.contains(&sandboxes));
        all
    }

    /// `kill -9` of one process of this cluster.
    pub fn kill(&self, pid: u32) {
        assert!(
            self.processes().iter().any(|(ours, _)| *ours == pid),
            "{pid} is not of this cluster"
        );
        run::kill(pid);
    }

    /// Standard output of `kubectl ARGS`, which must succeed.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|why| panic!("{why}"))
    }

    /// `Err` is all that kubectl said.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        run(self.kubectl_command().args(args), None, KUBECTL)
    }

    /// `kubectl apply -f -`.
    pub fn try_apply(&self, manifest: &str) -> Result<String, String> {
        run(
            self.kubectl_command().args(["apply", "-f", "-"]),
            Some(manifest),
            KUBECTL,
        )
    }

    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.try_apply(manifest).unwrap_or_else(|why| panic!("{why}"))
    }

    /// `kubectl ARGS -o json`.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("kubectl {args:?}: {error}: {text}"))
    }

    /// The items of `kubectl ARGS -o json`.
    #[track_caller]
    pub fn items(&self, args: &[&str]) -> Vec<Value> {
        match self.json(args)["items"].take() {
            Value::Array(items) => items,
            other => panic!("kubectl {args:?} gave no items but {other}"),
        }
    }

    /// A kubectl that goes on until it is killed, its output in a file: for watches.
    pub fn kubectl_into(&self, args: &[&str], file: &Path) -> Child {
        let file = fs::File::create(file).expect("a file in the temporary folder");
        let mut command = self.kubectl_command();
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::inherit());
        command.spawn().expect("kubectl starts")
    }

    fn kubectl_command(&self) -> Command {
        let mut command = Command::new("kubectl");
        // Its caches belong to this cluster: another one may get the same port later.
        command
            .env("KUBECONFIG", self.dir().join("kubeconfig"))
            .env("HOME", self.place.path());
        command
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir().join("pilotis.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!(
                "---- the end of {}/pilotis.log\n{}\n----",
                self.dir().display(),
                self.log_tail()
            );
            for (pid, line) in self.processes() {
                eprintln!("{pid} {line}");
            }
            for args in LAST_LOOK {
                let shown = self.try_kubectl(args).unwrap_or_else(|why| why);
                eprintln!("---- kubectl {}\n{shown}", args.join(" "));
            }
        }
        let down = self.pilotis(&["down"], STOP);
        for (pid, line) in self.processes() {
            // Left although the cluster was stopped; the test of `down` is where that is a failure.
            eprintln!("killing what was left: {pid} {line}");
            run::kill(pid);
        }
        if let Err(why) = down {
            eprintln!("the cluster did not stop: {why}");
        }
    }
}
