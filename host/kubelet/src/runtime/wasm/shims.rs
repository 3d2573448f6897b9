//! The shims of this node, one process a pod: started, followed, and ended; and the code they run, compiled once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use model::{Failure, GroupResource, ObjectKey};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::images::{Compiled, ImageStore};
use super::line::{Connection, gone};
use super::protocol::{Answer, Hello, Request, State};
use super::{ShimCommand, guest, protocol};
use crate::proc;
use crate::runtime::{ContainerState, Exit, PodFacts, PodUsage, Usage};

pub(super) struct Shims {
    /// `DIR/ID/{sandbox.json, shim.sock, pid}`, one folder a sandbox.
    pub(super) dir: PathBuf,
    pub(super) images: ImageStore,
    shim: ShimCommand,
    engine: OnceLock<String>,
    pods: Mutex<BTreeMap<String, Pod>>,
    tell: mpsc::Sender<PodFacts>,
    /// One compilation at a time for each component.
    compiling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A shim as last heard of, by sandbox id.
#[derive(Clone)]
pub(super) struct Pod {
    pub(super) state: State,
    pub(super) alive: bool,
    log_dir: PathBuf,
}

impl Pod {
    pub(super) fn facts(&self) -> PodFacts {
        PodFacts {
            pod: self.state.pod.clone(),
            sandbox: self.state.sandbox.clone(),
            sandbox_ready: self.alive,
            containers: self.state.containers.clone(),
            observed: self.state.observed,
        }
    }
}

/// Kills the shim of a folder. `false` if none ran.
pub(super) fn kill(dir: &Path) -> bool {
    process(dir).is_some_and(|pid| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok())
}

/// The process of a folder's shim, while it runs.
fn process(dir: &Path) -> Option<Pid> {
    let pid: i32 = std::fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
    // A number may belong to somebody else by now: the folder in its arguments tells.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = line
        .split(|b| *b == 0)
        .any(|arg| arg == dir.as_os_str().as_encoded_bytes());
    ours.then(|| Pid::from_raw(pid))
}

/// What a shim has used. Of its memory what is its own: the code is mapped from files and shared with every other shim.
fn used(pid: Pid) -> Usage {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let (stat, status) = (file("stat"), file("status"));
    let own = || Some(proc::bytes(&status, "RssAnon:")? + proc::bytes(&status, "RssShmem:")?);
    Usage {
        at: Timestamp::now(),
        cpu: proc::used(&stat),
        memory: own(),
    }
}

pub(super) fn no_container(id: &str) -> Failure {
    Failure::NotFound(ObjectKey::new(GroupResource::new("", "containers"), "", id))
}

/// Container ids are `SANDBOX.NAME.ATTEMPT`; neither sandbox ids nor container names have a dot.
pub(super) fn sandbox_of(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

impl Shims {
    pub(super) fn new(dir: PathBuf, images: ImageStore, shim: ShimCommand, tell: mpsc::Sender<PodFacts>) -> Self {
        Self {
            dir,
            images,
            shim,
            engine: OnceLock::new(),
            pods: Mutex::default(),
            tell,
            compiling: Mutex::default(),
        }
    }

    pub(super) fn pods(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Pod>> {
        self.pods.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) async fn connect(&self, sandbox: &str) -> Result<Connection, Failure> {
        let door = protocol::door(&self.dir.join(sandbox)).map_err(gone)?;
        let (read, write) = UnixStream::connect(&door.path).await.map_err(gone)?.into_split();
        Ok(Connection {
            read: BufReader::new(read),
            write,
        })
    }

    /// Holds a line to a shim: every change is told, and its end. Returns once the first state is known.
    pub(super) async fn follow(self: &Arc<Self>, sandbox: &str, log_dir: PathBuf) -> Result<State, Failure> {
        let mut line = self.connect(sandbox).await?;
        protocol::send(&mut line.write, &Request::Watch).await.map_err(gone)?;
        let first: Option<State> = protocol::receive(&mut line.read).await.map_err(gone)?;
        let state = first.ok_or_else(|| gone("it closed the connection"))?;
        let pod = Pod {
            state: state.clone(),
            alive: true,
            log_dir,
        };
        self.pods().insert(sandbox.into(), pod);
        let (shims, sandbox) = (self.clone(), sandbox.to_owned());
        tokio::spawn(async move {
            loop {
                let next: Option<State> = protocol::receive(&mut line.read).await.unwrap_or_default();
                let ended = next.is_none();
                let facts = {
                    let mut pods = shims.pods();
                    // Removed on purpose: nobody needs to be told.
                    let Some(pod) = pods.get_mut(&sandbox) else {
                        return;
                    };
                    match next {
                        Some(state) => pod.state = state,
                        None => lost(pod),
                    }
                    pod.facts()
                };
                if shims.tell.send(facts).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(state)
    }

    pub(super) async fn engine(&self) -> Result<String, Failure> {
        if let Some(name) = self.engine.get() {
            return Ok(name.clone());
        }
        let name = tokio::task::spawn_blocking(|| guest::engine().map(|engine| guest::engine_name(&engine)));
        let name = name
            .await
            .map_err(Failure::internal)?
            .map_err(|e| Failure::Internal(format!("{e:#}")))?;
        Ok(self.engine.get_or_init(|| name).clone())
    }

    /// The component's code for this machine, compiled if nobody has done it yet.
    pub(super) async fn compiled(&self, hex: &str) -> Result<Compiled, Failure> {
        let engine = self.engine().await?;
        let (images, name, wanted) = (self.images.clone(), hex.to_owned(), engine.clone());
        let look = move || images.compiled(&name, &wanted);
        if let Some(compiled) = tokio::task::spawn_blocking(look.clone())
            .await
            .map_err(Failure::internal)?
        {
            return Ok(compiled);
        }
        let turn = self
            .compiling
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .entry(hex.into())
            .or_default()
            .clone();
        let _turn = turn.lock().await;
        if let Some(compiled) = tokio::task::spawn_blocking(look).await.map_err(Failure::internal)? {
            return Ok(compiled);
        }
        let code = self.images.code(hex, &engine);
        let fresh = code.with_extension(format!("tmp-{}", std::process::id()));
        let mut command = self.command();
        command.arg("compile").arg(self.images.blob(hex)).arg(&fresh);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let output = command.output().await.map_err(|e| self.cannot_start(&e))?;
        if !output.status.success() {
            let _ = tokio::fs::remove_file(&fresh).await;
            return Err(Failure::BadRequest(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        let compiled: Compiled = serde_json::from_slice(&output.stdout).map_err(Failure::internal)?;
        let (images, hex, said) = (self.images.clone(), hex.to_owned(), compiled.clone());
        let kept = tokio::task::spawn_blocking(move || {
            std::fs::rename(&fresh, &code)?;
            images.vouch(&hex, &engine, &said)
        });
        kept.await.map_err(Failure::internal)?.map_err(Failure::internal)?;
        Ok(compiled)
    }

    fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.shim.program);
        // Nothing of the server's environment is a pod's business.
        command.args(&self.shim.args).env_clear();
        command
    }

    fn cannot_start(&self, e: &std::io::Error) -> Failure {
        Failure::Internal(format!("cannot start {}: {e}", self.shim.program.display()))
    }

    pub(super) async fn spawn(&self, id: &str, dir: &Path) -> Result<Hello, Failure> {
        let mut command = self.command();
        command.arg("serve").arg(dir).current_dir(dir);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own: Ctrl-C in the server's terminal is not meant for pods.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| self.cannot_start(&e))?;
        if let Some(pid) = child.id() {
            tokio::fs::write(dir.join("pid"), pid.to_string())
                .await
                .map_err(Failure::internal)?;
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut hello = String::new();
        let mut lines = stdout.map(BufReader::new).ok_or_else(|| gone("it has no output"))?;
        let read = tokio::time::timeout(Duration::from_secs(10), lines.read_line(&mut hello)).await;
        let heard = serde_json::from_str::<Hello>(&hello);
        let sandbox = id.to_owned();
        let (tell, said) = oneshot::channel();
        tokio::spawn(async move {
            // Whatever the shim has to say in its life is an error of its own.
            let mut said = Some(tell);
            if let Some(stderr) = stderr {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    tracing::warn!(sandbox, "shim: {line}");
                    if let Some(said) = said.take() {
                        let _ = said.send(line);
                    }
                }
            }
            drop(said);
            // Waited for, so that it leaves no zombie.
            let _ = child.wait().await;
        });
        match (read, heard) {
            (Ok(Ok(_)), Ok(hello)) => Ok(hello),
            (Err(_), _) => Err(gone("it did not say that it is ready")),
            _ => {
                let why = tokio::time::timeout(Duration::from_secs(1), said).await;
                Err(Failure::Internal(
                    why.ok()
                        .and_then(Result::ok)
                        .unwrap_or_else(|| "the shim ended at once".into()),
                ))
            }
        }
    }

    pub(super) async fn remove(&self, sandbox: &str) -> Result<(), Failure> {
        // Forgotten first: its end is then no news.
        self.pods().remove(sandbox);
        if let Ok(mut line) = self.connect(sandbox).await {
            let _ = tokio::time::timeout(Duration::from_secs(1), line.ask(&Request::End)).await;
            // The connection ends with the process.
            let ended = protocol::receive::<Answer>(&mut line.read);
            let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
        }
        let dir = self.dir.join(sandbox);
        let swept = tokio::task::spawn_blocking(move || {
            kill(&dir);
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            }
        });
        swept.await.map_err(Failure::internal)?.map_err(Failure::internal)
    }

    /// Blocks: it reads `/proc`.
    pub(super) fn usage(&self) -> Vec<PodUsage> {
        let alive: Vec<State> = self
            .pods()
            .values()
            .filter(|pod| pod.alive)
            .map(|pod| pod.state.clone())
            .collect();
        let of_pod = |state: State| {
            let whole = used(process(&self.dir.join(&state.sandbox.id))?);
            let mut running = state
                .containers
                .into_iter()
                .filter(|c| matches!(c.state, ContainerState::Running { .. }));
            // Several in one process cannot be told apart.
            let containers = match (running.next(), running.next()) {
                (Some(only), None) => BTreeMap::from([(only.id, whole)]),
                _ => BTreeMap::new(),
            };
            Some(PodUsage {
                uid: state.pod.uid,
                whole: Some(whole),
                containers,
            })
        };
        alive.into_iter().filter_map(of_pod).collect()
    }

    pub(super) fn container(&self, id: &str) -> Option<(ContainerState, PathBuf)> {
        let pods = self.pods();
        let pod = pods.get(sandbox_of(id))?;
        let c = pod.state.containers.iter().find(|c| c.id == id)?;
        Some((
            c.state.clone(),
            pod.log_dir.join(&c.name).join(format!("{}.log", c.attempt)),
        ))
    }
}

/// The shim is gone, and all in it.
fn lost(pod: &mut Pod) {
    pod.alive = false;
    for c in &mut pod.state.containers {
        if let ContainerState::Running { started } = c.state {
            let message = "the pod's process was killed".into();
            let exit = Exit {
                code: 137,
                reason: "Error".into(),
                message,
                started,
                finished: Timestamp::now(),
            };
            c.state = ContainerState::Exited(exit);
        }
    }
}
