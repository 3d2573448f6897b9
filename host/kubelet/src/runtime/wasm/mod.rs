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
mod line;
mod output;
mod protocol;
mod pulse;
mod serve;
mod shim;
mod shims;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use client::node::{ExecRequest, LogOptions, SESSION_BUFFER, Session};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use model::Failure;
use tokio::sync::{mpsc, oneshot};

pub use self::images::{Image, ImageStore};
use self::line::{DAMAGED, gather, gone, session};
use self::protocol::{Request, Sandbox, Start};
pub use self::shim::shim_main;
use self::shims::{Pod, Shims, kill, no_container, sandbox_of};
use super::{
    ContainerConfig, ContainerState, ExecOutput, ImageFacts, ImageTrouble, ImageWanted, PodFacts, PodUsage, Runtime,
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
    shims: Arc<Shims>,
    told: Mutex<Option<mpsc::Receiver<PodFacts>>>,
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
        Ok(Self {
            shims: Arc::new(Shims::new(dir, images, shim, tell)),
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
        let mut entries = tokio::fs::read_dir(&self.shims.dir).await.map_err(Failure::internal)?;
        while let Some(entry) = entries.next_entry().await.map_err(Failure::internal)? {
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            if self.shims.pods().contains_key(&id) {
                continue;
            }
            let sandbox = tokio::fs::read(entry.path().join("sandbox.json"))
                .await
                .unwrap_or_default();
            let log_dir = serde_json::from_slice::<Sandbox>(&sandbox).map(|s| s.log_dir);
            let taken = match log_dir {
                Ok(log_dir) => self.shims.follow(&id, log_dir).await.map(drop),
                Err(e) => Err(gone(e)),
            };
            if let Err(failure) = taken {
                tracing::info!("sweeping the sandbox {id}: {failure}");
                self.shims.remove(&id).await?;
            }
        }
        Ok(self.shims.pods().values().map(Pod::facts).collect())
    }

    async fn pod(&self, uid: &str) -> Result<Option<PodFacts>, Failure> {
        Ok(self
            .shims
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
        let (images, name) = (self.shims.images.clone(), wanted.image.clone());
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
        let compiled = self.shims.compiled(image.digest.trim_start_matches("sha256:")).await;
        compiled.map_err(|failure| trouble(format!("image \"{}\": {failure}", wanted.image)))?;
        Ok(image.digest)
    }

    async fn images(&self) -> Result<Vec<ImageFacts>, Failure> {
        let images = self.shims.images.clone();
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
        let dir = self.shims.dir.join(&id);
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
        let started = self.shims.spawn(&id, &dir).await;
        if started.is_err() {
            self.shims.remove(&id).await?;
        }
        started?;
        match self.shims.follow(&id, config.log_dir.clone()).await {
            Ok(state) => Ok(state.sandbox),
            Err(failure) => {
                self.shims.remove(&id).await?;
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
        let mut line = self.shims.connect(&sandbox.id).await?;
        let mut again = true;
        loop {
            let compiled = self.shims.compiled(hex).await?;
            let code = self.shims.images.code(hex, &self.shims.engine().await?);
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
                    let images = self.shims.images.clone();
                    let (hex, engine) = (hex.to_owned(), self.shims.engine().await?);
                    let forgotten = tokio::task::spawn_blocking(move || images.disown(&hex, &engine));
                    forgotten.await.map_err(Failure::internal)?.map_err(Failure::internal)?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, Failure> {
        let shims = self.shims.clone();
        tokio::task::spawn_blocking(move || shims.usage())
            .await
            .map_err(Failure::internal)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Failure> {
        let sandbox = sandbox_of(id);
        if !self.shims.pods().get(sandbox).is_some_and(|p| p.alive) {
            return Err(no_container(id));
        }
        let request = Request::Stop {
            id: id.into(),
            grace_ms: grace.as_millis() as u64,
        };
        match self.shims.connect(sandbox).await?.ask(&request).await {
            // Gone while it was asked: it has ended.
            Err(Failure::Unavailable { .. }) => Ok(()),
            other => other,
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), Failure> {
        let sandbox = sandbox_of(id);
        if !self.shims.pods().get(sandbox).is_some_and(|p| p.alive) {
            return Ok(());
        }
        self.shims
            .connect(sandbox)
            .await?
            .ask(&Request::Remove { id: id.into() })
            .await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Failure> {
        self.shims.remove(id).await
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
        let mut line = self.shims.connect(sandbox_of(id)).await?;
        let ask = Request::Exec {
            id: id.into(),
            command: request.command.clone(),
            stdin: request.stdin,
            tty: request.tty,
        };
        line.ask(&ask).await?;
        Ok(session(line, request))
    }

    /// Follows the log from now on: a guest's streams are its log. Standard input is closed.
    async fn attach(&self, id: &str, _: &ExecRequest) -> Result<Session, Failure> {
        let (_, path) = self.shims.container(id).ok_or_else(|| no_container(id))?;
        let (shims, of) = (self.shims.clone(), id.to_owned());
        let alive: crate::log::Alive = Box::new(move || {
            let running = shims
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
        let (shims, of) = (self.shims.clone(), id.to_owned());
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = log.next().await {
                if out.send(bytes).await.is_err() {
                    return;
                }
            }
            let code = match shims.container(&of) {
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
