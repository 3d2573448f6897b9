//! The shim: the process that holds one pod's guests, apart from the one that holds the cluster's keys.
//!
//! It is the server's own binary, started anew as `pilotis wasm-shim serve DIR` with an empty environment. It knows its
//! folder and nothing else of the cluster. It outlives the server: whoever comes next finds its socket in the folder
//! and takes the pod up again. What a crash of it leaves: the folder, which the next listing sweeps.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::linux::net::SocketAddrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;

use super::guest::{self, Ending, Guest, Stdio};
use super::images::Compiled;
use super::output::{Log, Output};
use super::protocol::{self, Answer, Hello, Request, Sandbox, Start, State, channel};
use super::pulse::Pulse;
use super::serve::{self, Server};
use crate::runtime::{ContainerFacts, ContainerState, Exit, SandboxFacts};

/// What the hidden subcommand does with the words behind it: `serve DIR`, or `compile IN OUT`. Blocks until it is done.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let words: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    let outcome = match words.as_slice() {
        ["serve", dir] => serve_pod(Path::new(dir)),
        ["compile", from, to] => compile(Path::new(from), Path::new(to)),
        _ => Err("usage: wasm-shim serve DIR | compile IN OUT (started by the kubelet, not by hand)".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles a component; prints what it is as a line of JSON. A process of its own, so that a compiler's memory is given
/// back and a component made to exhaust it ends nothing else.
fn compile(from: &Path, to: &Path) -> Result<(), String> {
    use sha2::{Digest, Sha256};
    let engine = guest::engine().map_err(|e| format!("{e:#}"))?;
    let bytes = std::fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    let component = wasmtime::component::Component::from_binary(&engine, &bytes);
    let component = component.map_err(|e| format!("the component does not compile: {e:#}"))?;
    let ty = component.component_type();
    let has = |name: &str| {
        ty.exports(&engine)
            .any(|(export, _)| export.split('@').next() == Some(name))
    };
    let code = component.serialize().map_err(|e| format!("{e:#}"))?;
    let compiled = Compiled {
        code: hex::encode(Sha256::digest(&code)),
        runs: has("wasi:cli/run"),
        serves: has("wasi:http/incoming-handler"),
    };
    if !compiled.runs && !compiled.serves {
        return Err(
            "the component exports neither wasi:cli/run nor wasi:http/incoming-handler (WASI 0.2), \
                    so there is nothing to run"
                .into(),
        );
    }
    let mut file = std::fs::File::create(to).map_err(|e| format!("{}: {e}", to.display()))?;
    file.write_all(&code)
        .and_then(|()| file.sync_all())
        .map_err(|e| format!("{}: {e}", to.display()))?;
    println!("{}", serde_json::to_string(&compiled).map_err(|e| e.to_string())?);
    Ok(())
}

fn serve_pod(dir: &Path) -> Result<(), String> {
    let said = |e: std::io::Error| format!("{}: {e}", dir.display());
    let sandbox: Sandbox = std::fs::read(dir.join("sandbox.json"))
        .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
        .map_err(said)?;
    // No core files: a guest's memory is its pod's business.
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    let _ = nix::sys::prctl::set_no_new_privs();
    let (ip, claim) = match &sandbox.ip {
        Some(ip) => (ip.parse().map_err(|e| format!("{ip}: {e}"))?, None),
        None => claim_address(sandbox.hint).map(|(ip, claim)| (IpAddr::from(ip), Some(claim)))?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build()
        .map_err(said)?;
    let outcome = runtime.block_on(async {
        let door = protocol::door(dir).map_err(said)?;
        let listener = UnixListener::bind(&door.path).map_err(said)?;
        let engine = guest::engine().map_err(|e| format!("{e:#}"))?;
        let pulse = Pulse::start(&engine).map_err(said)?;
        let facts = SandboxFacts {
            id: sandbox.id.clone(),
            ip: if claim.is_some() { ip.to_string() } else { String::new() },
        };
        let state = State {
            pod: sandbox.pod.clone(),
            sandbox: facts,
            containers: Vec::new(),
            observed: Timestamp::now(),
        };
        let shim = Arc::new(Shim {
            ip,
            log_dir: sandbox.log_dir,
            engine,
            pulse,
            state: watch::Sender::new(state),
            running: Mutex::default(),
            end: CancellationToken::new(),
        });
        let mut out = std::io::stdout();
        let hello = serde_json::to_string(&Hello {
            ip: shim.state.borrow().sandbox.ip.clone(),
        });
        let hello = hello.map_err(|e| e.to_string())?;
        writeln!(out, "{hello}").and_then(|()| out.flush()).map_err(said)?;
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.map_err(said)?;
                    tokio::spawn(shim.clone().converse(stream));
                }
                () = shim.end.cancelled() => return Ok(()),
            }
        }
    });
    // Guests in an endless loop are not waited for.
    runtime.shutdown_background();
    drop(claim);
    outcome
}

/// The pods' addresses: 127.64.0.0/11. Linux answers the whole of 127/8 on this machine, without any privilege; what lies
/// above is left to Services (127.96.0.0/16 by default).
const FIRST: u32 = u32::from_be_bytes([127, 64, 0, 0]);
const SIZE: u32 = 1 << 21;

/// An address nobody on this machine uses. The claim is an abstract socket with the address in its name: the kernel lets
/// one process have it and takes it back when that process ends, however it ends; clusters side by side need no other
/// agreement.
fn claim_address(hint: u32) -> Result<(Ipv4Addr, std::os::unix::net::UnixListener), String> {
    for step in 0..4096 {
        let number = hint.wrapping_add(step) % SIZE;
        let ip = Ipv4Addr::from(FIRST + number);
        // .0 and .255 look like networks to people and tools.
        if matches!(ip.octets()[3], 0 | 255) {
            continue;
        }
        let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("pilotis-pod-{ip}"));
        let name = name.map_err(|e| e.to_string())?;
        match std::os::unix::net::UnixListener::bind_addr(&name) {
            Ok(claim) => return Ok((ip, claim)),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(format!("cannot claim the address {ip}: {e}")),
        }
    }
    Err("no address is free in 127.64.0.0/11".into())
}

struct Shim {
    ip: IpAddr,
    log_dir: std::path::PathBuf,
    engine: Engine,
    pulse: Pulse,
    /// What the kubelet is told; the one truth about the containers.
    state: watch::Sender<State>,
    running: Mutex<HashMap<String, Running>>,
    end: CancellationToken,
}

struct Running {
    guest: Arc<Guest>,
    /// Asks a server to finish; a command, which cannot hear, is ended at once.
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Shim {
    async fn converse(self: Arc<Self>, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        while let Ok(Some(request)) = protocol::receive::<Request>(&mut read).await {
            let answer: Answer = match request {
                Request::Start(start) => self.start(*start).await,
                Request::Stop { id, grace_ms } => self.stop(&id, Duration::from_millis(grace_ms)).await,
                Request::Remove { id } => {
                    self.state.send_modify(|state| {
                        state
                            .containers
                            .retain(|c| c.id != id || !matches!(c.state, ContainerState::Exited(_)));
                    });
                    Ok(())
                }
                Request::Watch => {
                    let mut state = self.state.subscribe();
                    loop {
                        // Before the look, so that nothing seen is newer than the time it is said to be of.
                        let observed = Timestamp::now();
                        let mut seen = state.borrow_and_update().clone();
                        seen.observed = observed;
                        if protocol::send(&mut write, &seen).await.is_err() || state.changed().await.is_err() {
                            return;
                        }
                    }
                }
                Request::Exec {
                    id,
                    command,
                    stdin,
                    tty,
                } => {
                    let guest = self
                        .running
                        .lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .get(&id)
                        .map(|r| r.guest.clone());
                    let answer: Answer = guest
                        .as_ref()
                        .map(drop)
                        .ok_or_else(|| "the container is not running".to_owned().into());
                    if protocol::send(&mut write, &answer).await.is_err() {
                        return;
                    }
                    if let Some(guest) = guest {
                        exec(&guest, command, stdin, tty, read, write).await;
                    }
                    return;
                }
                Request::End => {
                    let _ = protocol::send(&mut write, &Answer::Ok(())).await;
                    self.end.cancel();
                    return;
                }
            };
            if protocol::send(&mut write, &answer).await.is_err() {
                return;
            }
        }
    }

    async fn start(self: &Arc<Self>, start: Start) -> Answer {
        let Start {
            id,
            config,
            code,
            digest,
            serves,
        } = start;
        let (name, attempt, image_id) = (config.name.clone(), config.attempt, config.image_id.clone());
        let log = Log::create(self.log_dir.join(&config.log_path))
            .map_err(|e| format!("{}: {e}", config.log_path.display()))?;
        let engine = self.engine.clone();
        // Hashing and mapping megabytes: not on a thread that serves.
        let component = tokio::task::spawn_blocking(move || guest::load(&engine, &code, &digest));
        let component = component.await.map_err(|e| e.to_string())??;
        let guest = Arc::new(Guest::new(
            &self.engine,
            component,
            config,
            self.ip,
            log,
            self.pulse.clone(),
        )?);
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let started = Timestamp::now();
        let work: futures::future::BoxFuture<'static, Ending> = if serves {
            let listeners = serve::listen(&guest).await?;
            let server = Server::new(guest.clone())?;
            let tasks: Vec<_> = listeners
                .into_iter()
                .map(|l| server.clone().serve(l, stop.clone()))
                .collect();
            Box::pin(async move {
                futures::future::join_all(tasks).await;
                Ending::of_code(0)
            })
        } else {
            // Looked at before it is said to run, so that a mistake is told as a failed start.
            let (guest, stop) = (guest.clone(), stop.clone());
            Box::pin(async move {
                let (args, stdio) = (guest.args(), guest.log_stdio());
                tokio::select! {
                    ending = guest.run(&args, stdio) => ending,
                    // WASI has no signals: what a process that does not handle SIGTERM would do.
                    () = stop.cancelled() => Ending::of_code(143),
                }
            })
        };
        let running = Running {
            guest: guest.clone(),
            stop,
            kill: kill.clone(),
        };
        self.running
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .insert(id.clone(), running);
        self.state.send_modify(|state| {
            let state_now = ContainerState::Running { started };
            state.containers.push(ContainerFacts {
                id: id.clone(),
                name,
                attempt,
                image_id,
                state: state_now,
            });
        });
        let shim = self.clone();
        tokio::spawn(async move {
            // As a task of its own, so that a panic in the host's code is an ending like others.
            let mut work = tokio::spawn(work);
            let ending = tokio::select! {
                ended = &mut work => ended.unwrap_or_else(|e| Ending {
                    code: 139,
                    reason: "Error",
                    message: format!("the host failed: {e}"),
                }),
                () = kill.cancelled() => {
                    work.abort();
                    let _ = work.await;
                    Ending::of_code(137)
                }
            };
            shim.ended(&id, &guest, ending, started);
        });
        Ok(())
    }

    fn ended(&self, id: &str, guest: &Guest, ending: Ending, started: Timestamp) {
        if !ending.message.is_empty() {
            guest.say(&ending.message);
        }
        guest.log.finish();
        self.running.lock().unwrap_or_else(|e| e.into_inner()).remove(id);
        // The status holds at most 4 KiB of it.
        let message = ending.message.chars().take(2048).collect();
        let exit = Exit {
            code: ending.code,
            reason: ending.reason.into(),
            message,
            started,
            finished: Timestamp::now(),
        };
        self.state.send_modify(|state| {
            if let Some(c) = state.containers.iter_mut().find(|c| c.id == id) {
                c.state = ContainerState::Exited(exit);
            }
        });
    }

    /// Returns when the container has ended.
    async fn stop(&self, id: &str, grace: Duration) -> Answer {
        let tokens = {
            let running = self.running.lock().unwrap_or_else(|e| e.into_inner());
            running.get(id).map(|r| (r.stop.clone(), r.kill.clone()))
        };
        let Some((stop, kill)) = tokens else {
            return Ok(());
        };
        let mut state = self.state.subscribe();
        let over = |state: &State| {
            !state
                .containers
                .iter()
                .any(|c| c.id == id && !matches!(c.state, ContainerState::Exited(_)))
        };
        stop.cancel();
        if tokio::time::timeout(grace, state.wait_for(over)).await.is_err() {
            kill.cancel();
            let _ = state.wait_for(over).await;
        }
        Ok(())
    }
}

/// A fresh instance of the same component with other arguments: what comes nearest to a second process in a container
/// that has no processes. It shares the container's mounts, environment and limits, not its memory.
async fn exec(
    guest: &Guest,
    command: Vec<String>,
    stdin: bool,
    tty: bool,
    mut read: impl AsyncRead + Unpin + Send + 'static,
    mut write: impl AsyncWriteExt + Unpin,
) {
    let (out, mut stdout) = mpsc::channel::<Bytes>(16);
    let (err, mut stderr) = mpsc::channel::<Bytes>(16);
    let (mut feed, input) = tokio::io::duplex(64 * 1024);
    let gone = CancellationToken::new();
    let closed = gone.clone();
    let reader = tokio::spawn(async move {
        let mut open = stdin;
        while let Ok(Some((channel, bytes))) = protocol::receive_frame(&mut read).await {
            if channel == channel::STDIN && open {
                open = !bytes.is_empty() && feed.write_all(&bytes).await.is_ok();
                if !open {
                    let _ = feed.shutdown().await;
                }
            }
        }
        closed.cancel();
    });
    let stdio = Stdio {
        stdin: stdin.then(|| wasmtime_wasi::cli::AsyncStdinStream::new(input)),
        // A terminal shows both in the order they were written.
        stderr: Output::channel(if tty { out.clone() } else { err }),
        stdout: Output::channel(out),
    };
    let run = guest.run(&command, stdio);
    tokio::pin!(run);
    let mut ending = None;
    loop {
        let frame = tokio::select! {
            // Output first: it is whole before the exit is told.
            biased;
            Some(bytes) = stdout.recv() => protocol::send_frame(&mut write, channel::STDOUT, &bytes).await,
            Some(bytes) = stderr.recv() => protocol::send_frame(&mut write, channel::STDERR, &bytes).await,
            () = gone.cancelled() => break,
            ended = &mut run, if ending.is_none() => {
                ending = Some(ended);
                Ok(())
            }
            else => break,
        };
        if frame.is_err() {
            break;
        }
        if ending.is_some() && stdout.is_empty() && stderr.is_empty() {
            break;
        }
    }
    if let Some(ending) = ending {
        if !ending.message.is_empty() {
            let errors = if tty { channel::STDOUT } else { channel::STDERR };
            let _ = protocol::send_frame(&mut write, errors, format!("{}\n", ending.message).as_bytes()).await;
        }
        let _ = protocol::send_frame(&mut write, channel::EXIT, &ending.code.to_be_bytes()).await;
        let _ = write.flush().await;
    }
    reader.abort();
}
