//! One container's guest: engine, limits, WASI, and the two ways it runs: to completion, or called for each request.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, ResourceLimiter, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::output::{Log, Output};
use super::protocol::Refused;
use super::pulse::{CpuShare, Pulse, pace};
use crate::log::Stream;
use crate::runtime::ContainerConfig;

/// The one engine configuration: what `compile` writes, `load` maps.
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// Names the engine in file names: code of another version, machine or configuration is never looked at.
pub(crate) fn engine_name(engine: &Engine) -> String {
    use std::hash::{Hash, Hasher};
    struct Sum(Sha256);
    impl Hasher for Sum {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut sum = Sum(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sum);
    hex::encode(&sum.0.finalize()[..8])
}

/// Maps compiled code after comparing its digest.
pub(crate) fn load(engine: &Engine, code: &Path, digest: &str) -> Result<Component, Refused> {
    let said = |e: &dyn std::fmt::Display| Refused::Because(format!("{}: {e}", code.display()));
    let bytes = std::fs::read(code).map_err(|e| said(&e))?;
    if hex::encode(Sha256::digest(&bytes)) != digest {
        return Err(Refused::Damaged);
    }
    drop(bytes);
    #[expect(
        unsafe_code,
        reason = "mapping machine code is what makes a start fast (0.3 ms a megabyte, measured)"
    )]
    // SAFETY: the file lies in a folder that only our user may write, was written by our own compiler, and was compared
    // with the digest taken when it was.
    unsafe { Component::deserialize_file(engine, code) }.map_err(|e| said(&format!("{e:#}")))
}

/// Memory and tables of all instances of one container, counted together.
pub(crate) struct Memory {
    /// Bytes; `usize::MAX` when there is no limit.
    limit: usize,
    used: AtomicUsize,
    /// A growth was refused.
    exceeded: AtomicBool,
}

/// One store's part of it, given back with the store.
struct Part {
    of: Arc<Memory>,
    held: usize,
}

/// A table may hold so many elements: each costs the host eight bytes.
const MAX_TABLE: usize = 1 << 20;

impl ResourceLimiter for Part {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let before = self.of.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.of.limit {
            self.of.used.fetch_sub(more, Ordering::Relaxed);
            self.of.exceeded.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.held += more;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

pub(crate) struct Data {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    memory: Part,
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Data {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: Default::default(),
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub code: i32,
    pub reason: &'static str,
    pub message: String,
}

impl Ending {
    pub fn of_code(code: i32) -> Self {
        Self {
            code,
            reason: crate::runtime::Exit::reason_of(code),
            message: String::new(),
        }
    }
}

/// Everything one container's instances share.
pub(crate) struct Guest {
    pub engine: Engine,
    pub component: Component,
    pub linker: Linker<Data>,
    pub config: ContainerConfig,
    pub ip: IpAddr,
    pub log: Log,
    pub pulse: Pulse,
    memory: Arc<Memory>,
    share: Option<Arc<CpuShare>>,
}

impl Guest {
    pub fn new(
        engine: &Engine,
        component: Component,
        config: ContainerConfig,
        ip: IpAddr,
        log: Log,
        pulse: Pulse,
    ) -> Result<Self, String> {
        let mut linker = Linker::new(engine);
        let linked = wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .and_then(|()| wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker));
        linked.map_err(|e| format!("{e:#}"))?;
        let limits = &config.resources;
        let limit = usize::try_from(limits.memory_limit)
            .ok()
            .filter(|l| *l > 0)
            .unwrap_or(usize::MAX);
        let memory = Arc::new(Memory {
            limit,
            used: AtomicUsize::new(0),
            exceeded: AtomicBool::new(false),
        });
        let share = CpuShare::new(limits.cpu_quota, limits.cpu_period).map(Arc::new);
        Ok(Self {
            engine: engine.clone(),
            component,
            linker,
            config,
            ip,
            log,
            pulse,
            memory,
            share,
        })
    }

    /// A fresh store: nothing of an earlier call is in it.
    pub fn store(&self, args: &[String], stdio: Stdio) -> Result<Store<Data>, String> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(args).envs(&self.config.env);
        wasi.stdout(stdio.stdout).stderr(stdio.stderr);
        if let Some(stdin) = stdio.stdin {
            wasi.stdin(stdin);
        }
        for mount in &self.config.mounts {
            let perms = if mount.read_only {
                FsPerms::ReadOnly
            } else {
                FsPerms::ReadWrite
            };
            wasi.preopened_dir(&mount.host_path, &mount.container_path, perms)
                .map_err(|e| {
                    format!(
                        "cannot mount {}: {e}; a component sees folders, not single files",
                        mount.container_path
                    )
                })?;
        }
        if !self.config.working_dir.is_empty() {
            wasi.initial_cwd(&self.config.working_dir);
        }
        // A pod listens on its own address only; it may connect anywhere, as pods may.
        let ip = self.ip;
        wasi.socket_addr_check(move |addr, purpose| {
            let allowed = match purpose {
                SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => {
                    addr.ip() == ip || addr.ip().is_unspecified() && addr.port() == 0
                }
                _ => true,
            };
            Box::pin(async move { allowed })
        });
        wasi.allow_ip_name_lookup(true);
        let data = Data {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            memory: Part {
                of: self.memory.clone(),
                held: 0,
            },
        };
        let mut store = Store::new(&self.engine, data);
        store.limiter(|data| &mut data.memory);
        pace(&mut store, self.share.clone());
        Ok(store)
    }

    /// The program's name and arguments, as a process would have them.
    pub fn args(&self) -> Vec<String> {
        let config = &self.config;
        let name = if config.command.is_empty() {
            vec![config.name.clone()]
        } else {
            config.command.clone()
        };
        name.into_iter().chain(config.args.iter().cloned()).collect()
    }

    /// Runs `wasi:cli/run` to its end.
    pub async fn run(&self, args: &[String], stdio: Stdio) -> Ending {
        let run = async {
            let mut store = self.store(args, stdio).map_err(Stopped::Text)?;
            let pre = self
                .linker
                .instantiate_pre(&self.component)
                .and_then(CommandPre::new)
                .map_err(Stopped::Error)?;
            let command = pre.instantiate_async(&mut store).await.map_err(Stopped::Error)?;
            command
                .wasi_cli_run()
                .call_run(&mut store)
                .await
                .map_err(Stopped::Error)
        };
        match self.pulse.around(run).await {
            Ok(Ok(())) => Ending::of_code(0),
            Ok(Err(())) => Ending::of_code(1),
            Err(Stopped::Text(message)) => Ending {
                code: 128,
                reason: "StartError",
                message,
            },
            Err(Stopped::Error(error)) => self.ending(&error),
        }
    }

    /// A trap, or an exit that was asked for.
    pub fn ending(&self, error: &wasmtime::Error) -> Ending {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Ending::of_code(exit.0);
        }
        let message = format!("{error:?}");
        if self.memory.exceeded.load(Ordering::Relaxed) {
            return Ending {
                code: 137,
                reason: "OOMKilled",
                message,
            };
        }
        // 128 + SIGABRT: what a process that aborts leaves behind.
        Ending {
            code: 134,
            reason: "Error",
            message,
        }
    }

    pub fn log_stdio(&self) -> Stdio {
        Stdio {
            stdin: None,
            stdout: self.log.stream(Stream::Stdout),
            stderr: self.log.stream(Stream::Stderr),
        }
    }

    /// What the host has to say, where the container's owner will look.
    pub fn say(&self, message: &str) {
        let _ = self
            .log
            .write(Stream::Stderr, format!("{}\n", message.trim_end()).as_bytes());
    }
}

pub(crate) struct Stdio {
    pub stdin: Option<wasmtime_wasi::cli::AsyncStdinStream>,
    pub stdout: Output,
    pub stderr: Output,
}

enum Stopped {
    Text(String),
    Error(wasmtime::Error),
}

/// How long after a stop new connections are still taken: proxies learn of it about now.
pub(crate) const LINGER: Duration = Duration::from_millis(500);
