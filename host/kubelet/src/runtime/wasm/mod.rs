//! The embedded runtime: Wasm components, one process a pod, no root and nothing to install.
//!
//! **One shim process a pod**, not one a node: a fault in the host's own code, a guest that eats its machine or a
//! `kill -9` ends one pod and is told as that pod's end; pods outlive a restart of the server; and the operating system
//! accounts for each. Its cost is measured in `tests/wasm.rs` (`what_a_pod_costs`): the code is shared with the server's,
//! what is private is a few MB. Starting it is most of a pod's start time.
//!
//! A pod's address is one of 127.64.0.0/11, claimed by the shim (see `shim.rs`).
//!
//! Stopping: a server takes connections half a second longer (proxies learn of it meanwhile), finishes its requests, and
//! ends with 0. A command has no signals in WASI 0.2 and ends at once with 143, as a process without a handler does.

mod guest;
mod images;
mod output;
mod protocol;
mod pulse;
mod serve;
mod shim;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use client::node::{ExecRequest, LogOptions, SESSION_BUFFER, Session};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use model::{Failure, GroupResource, ObjectKey};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use self::images::Compiled;
pub use self::images::{Image, ImageStore};
use self::protocol::{Answer, Hello, Refused, Request, Sandbox, Start, State, channel};
pub use self::shim::shim_main;
use super::{
    ContainerConfig, ContainerState, ExecOutput, Exit, ImageFacts, ImageTrouble, ImageWanted, PodFacts, Runtime,
    RuntimeInfo, SandboxConfig, SandboxFacts,
};
use crate::files::private_dir;
use crate::pod::spec::PullPolicy;

/// How to start the shim: a program and the words before `serve DIR`.
#[derive(Debug, Clone)]
pub struct ShimCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

impl Default for ShimCommand {
    /// This very binary with its hidden subcommand, also after the file it was started from was replaced.
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            args: vec!["wasm-shim".into()],
        }
    }
}

pub struct WasmRuntime {
    inner: Arc<Inner>,
    told: Mutex<Option<mpsc::Receiver<PodFacts>>>,
}

struct Inner {
    /// `DIR/ID/{sandbox.json, shim.sock, pid}`, one folder a sandbox.
    dir: PathBuf,
    images: ImageStore,
    shim: ShimCommand,
    engine: OnceLock<String>,
    pods: Mutex<BTreeMap<String, Pod>>,
    tell: mpsc::Sender<PodFacts>,
    /// One compilation at a time for each component.
    compiling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A shim as last heard of, by sandbox id.
#[derive(Clone)]
struct Pod {
    state: State,
    alive: bool,
    log_dir: PathBuf,
}

impl Pod {
    fn facts(&self) -> PodFacts {
        PodFacts {
            pod: self.state.pod.clone(),
            sandbox: self.state.sandbox.clone(),
            sandbox_ready: self.alive,
            containers: self.state.containers.clone(),
            observed: Timestamp::now(),
        }
    }
}

impl WasmRuntime {
    /// Keeps sandboxes in `dir` and runs what is in `images`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(dir: impl Into<PathBuf>, images: ImageStore, shim: ShimCommand) -> std::io::Result<Self> {
        let dir = dir.into();
        private_dir(&dir)?;
        let (tell, told) = mpsc::channel(1024);
        let inner = Inner {
            dir,
            images,
            shim,
            engine: OnceLock::new(),
            pods: Mutex::default(),
            tell,
            compiling: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            told: Mutex::new(Some(told)),
        })
    }

    /// Ends every pod below a folder given to [`WasmRuntime::new`], also those of a process that is gone. Blocks shortly.
    /// For `down`: afterwards no process is left.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn end_all(dir: &Path) -> std::io::Result<usize> {
        let mut ended = 0;
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(e),
        };
        for entry in entries.flatten() {
            ended += usize::from(kill(&entry.path()));
            std::fs::remove_dir_all(entry.path())?;
        }
        Ok(ended)
    }
}

/// Kills the shim of a folder, if the process with its id still is that shim. `false` if none ran.
fn kill(dir: &Path) -> bool {
    let Ok(pid) = std::fs::read_to_string(dir.join("pid"))
        .unwrap_or_default()
        .trim()
        .parse::<i32>()
    else {
        return false;
    };
    // A number may belong to somebody else by now: the folder in its arguments tells.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let ours = line
        .split(|b| *b == 0)
        .any(|arg| arg == dir.as_os_str().as_encoded_bytes());
    ours && nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).is_ok()
}

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Connection {
    async fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        protocol::send(&mut self.write, request).await.map_err(gone)?;
        let answer: Option<Answer> = protocol::receive(&mut self.read).await.map_err(gone)?;
        match answer {
            Some(answer) => answer.map_err(|refused| match refused {
                Refused::Damaged => Failure::Internal(DAMAGED.into()),
                Refused::Because(why) => Failure::Internal(why),
            }),
            None => Err(gone("it closed the connection")),
        }
    }
}

/// Told only when making the code again did not help.
const DAMAGED: &str = "the compiled code in the image store is damaged";

fn gone(why: impl Into<model::BoxError>) -> Failure {
    Failure::Unavailable {
        what: "the pod's shim",
        source: why.into(),
    }
}

fn no_container(id: &str) -> Failure {
    Failure::NotFound(ObjectKey::new(GroupResource::new("", "containers"), "", id))
}

/// Container ids are `SANDBOX.NAME.ATTEMPT`; neither sandbox ids nor container names have a dot.
fn sandbox_of(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

impl Inner {
    fn pods(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Pod>> {
        self.pods.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn connect(&self, sandbox: &str) -> Result<Connection, Failure> {
        let door = protocol::door(&self.dir.join(sandbox)).map_err(gone)?;
        let (read, write) = UnixStream::connect(&door.path).await.map_err(gone)?.into_split();
        Ok(Connection {
            read: BufReader::new(read),
            write,
        })
    }

    /// Holds a line to a shim: every change is told, and its end. Returns once the first state is known.
    async fn follow(self: &Arc<Self>, sandbox: &str, log_dir: PathBuf) -> Result<State, Failure> {
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
        let (inner, sandbox) = (self.clone(), sandbox.to_owned());
        tokio::spawn(async move {
            loop {
                let next: Option<State> = protocol::receive(&mut line.read).await.unwrap_or_default();
                let ended = next.is_none();
                let facts = {
                    let mut pods = inner.pods();
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
                if inner.tell.send(facts).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(state)
    }

    async fn engine(&self) -> Result<String, Failure> {
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
    async fn compiled(&self, hex: &str) -> Result<Compiled, Failure> {
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

    async fn remove(&self, sandbox: &str) -> Result<(), Failure> {
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

    fn container(&self, id: &str) -> Option<(ContainerState, PathBuf)> {
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

#[async_trait]
impl Runtime for WasmRuntime {
    async fn info(&self) -> Result<RuntimeInfo, Failure> {
        Ok(RuntimeInfo {
            name: "pilotis-wasm".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            trouble: None,
        })
    }

    /// Takes up what an earlier process left running, and sweeps the folders of shims that are gone.
    async fn list(&self) -> Result<Vec<PodFacts>, Failure> {
        let mut entries = tokio::fs::read_dir(&self.inner.dir).await.map_err(Failure::internal)?;
        while let Some(entry) = entries.next_entry().await.map_err(Failure::internal)? {
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            if self.inner.pods().contains_key(&id) {
                continue;
            }
            let sandbox = tokio::fs::read(entry.path().join("sandbox.json"))
                .await
                .unwrap_or_default();
            let log_dir = serde_json::from_slice::<Sandbox>(&sandbox).map(|s| s.log_dir);
            let taken = match log_dir {
                Ok(log_dir) => self.inner.follow(&id, log_dir).await.map(drop),
                Err(e) => Err(gone(e)),
            };
            if let Err(failure) = taken {
                tracing::info!("sweeping the sandbox {id}: {failure}");
                self.inner.remove(&id).await?;
            }
        }
        Ok(self.inner.pods().values().map(Pod::facts).collect())
    }

    async fn pod(&self, uid: &str) -> Result<Option<PodFacts>, Failure> {
        Ok(self
            .inner
            .pods()
            .values()
            .rev()
            .find(|p| p.state.pod.uid == uid)
            .map(Pod::facts))
    }

    fn changes(&self) -> BoxStream<'static, PodFacts> {
        match self.told.lock().unwrap_or_else(|e| e.into_inner()).take() {
            Some(told) => tokio_stream::wrappers::ReceiverStream::new(told).boxed(),
            None => futures::stream::pending().boxed(),
        }
    }

    async fn image(&self, wanted: &ImageWanted) -> Result<String, ImageTrouble> {
        let (images, name) = (self.inner.images.clone(), wanted.image.clone());
        let trouble = |message: String| ImageTrouble {
            reason: "ErrImagePull",
            message,
        };
        let found = tokio::task::spawn_blocking(move || images.find(&name)).await;
        let found = found
            .map_err(|e| trouble(e.to_string()))?
            .map_err(|e| trouble(e.to_string()))?;
        let Some(image) = found else {
            let name = &wanted.image;
            return Err(match wanted.policy {
                PullPolicy::Never => ImageTrouble {
                    reason: "ErrImageNeverPull",
                    message: format!("Container image \"{name}\" is not present with pull policy of Never"),
                },
                PullPolicy::Always | PullPolicy::IfNotPresent => trouble(format!(
                    "image \"{name}\" is not in this node's store, and the wasm runtime pulls from no registry: \
                     run `pilotis image import {name} FILE.wasm`"
                )),
            });
        };
        let compiled = self.inner.compiled(image.digest.trim_start_matches("sha256:")).await;
        compiled.map_err(|failure| trouble(format!("image \"{}\": {failure}", wanted.image)))?;
        Ok(image.digest)
    }

    async fn images(&self) -> Result<Vec<ImageFacts>, Failure> {
        let images = self.inner.images.clone();
        let list = tokio::task::spawn_blocking(move || images.list())
            .await
            .map_err(Failure::internal)?;
        let list = list.map_err(Failure::internal)?.into_iter();
        Ok(list
            .map(|i| ImageFacts {
                names: vec![i.reference],
                bytes: i.bytes,
            })
            .collect())
    }

    async fn start_sandbox(&self, config: &SandboxConfig) -> Result<SandboxFacts, Failure> {
        let now = Timestamp::now().as_nanosecond();
        let id = format!("{}-{now:x}", config.pod.uid);
        let dir = self.inner.dir.join(&id);
        let sandbox = Sandbox {
            pod: config.pod.clone(),
            id: id.clone(),
            log_dir: config.log_dir.clone(),
            ip: config.host_network.then(|| "127.0.0.1".into()),
            // Spread, so that clusters side by side seldom ask for the same address.
            hint: (now as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(32) as u32,
        };
        private_dir(&dir).map_err(Failure::internal)?;
        let json = serde_json::to_vec(&sandbox).map_err(Failure::internal)?;
        tokio::fs::write(dir.join("sandbox.json"), json)
            .await
            .map_err(Failure::internal)?;
        let started = self.spawn(&id, &dir).await;
        if started.is_err() {
            self.inner.remove(&id).await?;
        }
        started?;
        match self.inner.follow(&id, config.log_dir.clone()).await {
            Ok(state) => Ok(state.sandbox),
            Err(failure) => {
                self.inner.remove(&id).await?;
                Err(failure)
            }
        }
    }

    async fn start_container(
        &self,
        sandbox: &SandboxFacts,
        _: &SandboxConfig,
        config: &ContainerConfig,
    ) -> Result<String, Failure> {
        let hex = config.image_id.trim_start_matches("sha256:");
        let id = format!("{}.{}.{}", sandbox.id, config.name, config.attempt);
        let mut line = self.inner.connect(&sandbox.id).await?;
        let mut again = true;
        loop {
            let compiled = self.inner.compiled(hex).await?;
            let code = self.inner.images.code(hex, &self.inner.engine().await?);
            // Where a component can do both, a declared port says which is wanted.
            let serves = compiled.serves && (!compiled.runs || !config.ports.is_empty());
            let start = Start {
                id: id.clone(),
                config: config.clone(),
                digest: compiled.code,
                serves,
                code: code.clone(),
            };
            match line.ask(&Request::Start(Box::new(start))).await {
                Ok(()) => return Ok(id),
                Err(Failure::Internal(why)) if why == DAMAGED && again => {
                    tracing::warn!("{}: not what was compiled; compiling again", code.display());
                    again = false;
                    let images = self.inner.images.clone();
                    let (hex, engine) = (hex.to_owned(), self.inner.engine().await?);
                    let forgotten = tokio::task::spawn_blocking(move || images.disown(&hex, &engine));
                    forgotten.await.map_err(Failure::internal)?.map_err(Failure::internal)?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Failure> {
        let sandbox = sandbox_of(id);
        if !self.inner.pods().get(sandbox).is_some_and(|p| p.alive) {
            return Err(no_container(id));
        }
        let request = Request::Stop {
            id: id.into(),
            grace_ms: grace.as_millis() as u64,
        };
        match self.inner.connect(sandbox).await?.ask(&request).await {
            // Gone while it was asked: it has ended.
            Err(Failure::Unavailable { .. }) => Ok(()),
            other => other,
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), Failure> {
        let sandbox = sandbox_of(id);
        if !self.inner.pods().get(sandbox).is_some_and(|p| p.alive) {
            return Ok(());
        }
        self.inner
            .connect(sandbox)
            .await?
            .ask(&Request::Remove { id: id.into() })
            .await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Failure> {
        self.inner.remove(id).await
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, Failure> {
        let request = ExecRequest {
            command: command.to_vec(),
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let Session {
            stdin,
            mut stdout,
            mut stderr,
            exit,
            ..
        } = self.exec(id, &request).await?;
        drop(stdin);
        let work = async {
            let (out, err) = tokio::join!(gather(&mut stdout), gather(&mut stderr));
            let code = exit.await.map_err(Failure::internal)??;
            Ok(ExecOutput {
                code,
                stdout: out,
                stderr: err,
            })
        };
        let late = |_| Failure::Timeout(format!("command {command:?} timed out after {timeout:?}"));
        tokio::time::timeout(timeout, work).await.map_err(late)?
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Session, Failure> {
        let mut line = self.inner.connect(sandbox_of(id)).await?;
        let ask = Request::Exec {
            id: id.into(),
            command: request.command.clone(),
            stdin: request.stdin,
        };
        line.ask(&ask).await?;
        Ok(session(line, request.stdin))
    }

    /// Follows the log from now on: a guest's streams are its log. Standard input is closed.
    async fn attach(&self, id: &str, _: &ExecRequest) -> Result<Session, Failure> {
        let (_, path) = self.inner.container(id).ok_or_else(|| no_container(id))?;
        let (inner, of) = (self.inner.clone(), id.to_owned());
        let alive: crate::log::Alive = Box::new(move || {
            let running = inner
                .container(&of)
                .is_some_and(|(state, _)| matches!(state, ContainerState::Running { .. }));
            Box::pin(async move { running })
        });
        let options = LogOptions {
            follow: true,
            tail_lines: Some(0),
            ..LogOptions::default()
        };
        let mut log = crate::log::read(path, options, alive);
        let (stdin, _) = mpsc::channel(SESSION_BUFFER);
        let (out, stdout) = mpsc::channel(SESSION_BUFFER);
        let (_, stderr) = mpsc::channel(1);
        let (resize, _) = mpsc::channel(1);
        let (told, exit) = oneshot::channel();
        let (inner, of) = (self.inner.clone(), id.to_owned());
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = log.next().await {
                if out.send(bytes).await.is_err() {
                    return;
                }
            }
            let code = match inner.container(&of) {
                Some((ContainerState::Exited(exit), _)) => exit.code,
                _ => 0,
            };
            let _ = told.send(Ok(code));
        });
        Ok(Session {
            stdin,
            stdout,
            stderr,
            resize,
            exit,
        })
    }
}

impl WasmRuntime {
    async fn spawn(&self, id: &str, dir: &Path) -> Result<Hello, Failure> {
        let mut command = self.inner.command();
        command.arg("serve").arg(dir).current_dir(dir);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own: Ctrl-C in the server's terminal is not meant for pods.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| self.inner.cannot_start(&e))?;
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
}

async fn gather(from: &mut mpsc::Receiver<Bytes>) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(bytes) = from.recv().await {
        let room = (16 << 10) - all.len().min(16 << 10);
        all.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    all.freeze()
}

/// Frames of a connection as the channels of a session.
fn session(line: Connection, stdin_wanted: bool) -> Session {
    let (stdin, mut input) = mpsc::channel::<Bytes>(SESSION_BUFFER);
    let (out, stdout) = mpsc::channel(SESSION_BUFFER);
    let (err, stderr) = mpsc::channel(SESSION_BUFFER);
    let (resize, _) = mpsc::channel(1);
    let (told, exit) = oneshot::channel();
    let Connection { mut read, mut write } = line;
    let (over, done) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let forward = async {
            while let Some(bytes) = input.recv().await {
                if !bytes.is_empty() && protocol::send_frame(&mut write, channel::STDIN, &bytes).await.is_err() {
                    return;
                }
            }
            if stdin_wanted {
                let _ = protocol::send_frame(&mut write, channel::STDIN, &[]).await;
            }
        };
        tokio::pin!(done);
        tokio::select! {
            () = forward => { let _ = done.await; }
            _ = &mut done => {}
        }
        let _ = write.shutdown().await;
    });
    tokio::spawn(async move {
        let mut code = None;
        while let Ok(Some((channel, bytes))) = protocol::receive_frame(&mut read).await {
            let sent = match channel {
                channel::STDOUT => out.send(bytes).await,
                channel::STDERR => err.send(bytes).await,
                channel::EXIT => {
                    code = bytes.first_chunk::<4>().map(|b| i32::from_be_bytes(*b));
                    break;
                }
                _ => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
        drop((out, err, over));
        let _ = told.send(code.ok_or_else(|| gone("the command was lost")));
    });
    Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    }
}
