//! `pilotis up`: starts the cluster, says when it is ready and what to type next.

use std::io::{BufRead, BufReader, Write};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::dir::Dir;
use crate::network::ProxyMode;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// The cluster's folder [default: ~/.pilotis]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Return once the cluster is ready, and leave it running
    #[arg(long)]
    detach: bool,
    /// Where the API listens [default: where it did last time, or 127.0.0.1:6443, or a free port]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// What runs the pods
    #[arg(long, value_enum, default_value_t = RuntimeKind::Wasm)]
    pub runtime: RuntimeKind,
    /// The socket of containerd or CRI-O, for `--runtime cri`
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    pub cri_socket: PathBuf,
    /// How Services answer [default: nftables with `--runtime cri`, userspace otherwise]
    #[arg(long, value_enum)]
    pub proxy: Option<ProxyMode>,
    /// The network that the runtime's CNI plugins give pods addresses of; others are masqueraded
    #[arg(long)]
    pub pod_cidr: Option<String>,
    /// This machine's name in the cluster
    #[arg(long, default_value = "pilotis")]
    pub node_name: String,
    /// Keep objects in this etcd instead of the embedded store (several URLs with commas)
    #[arg(long, value_delimiter = ',')]
    pub etcd: Vec<String>,
    #[arg(long, requires = "etcd")]
    pub etcd_ca: Option<PathBuf>,
    #[arg(long, requires_all = ["etcd_key", "etcd_ca"])]
    pub etcd_cert: Option<PathBuf>,
    #[arg(long, requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
    /// Append an audit event of each request to this file (JSON lines of audit.k8s.io/v1, level Metadata)
    #[arg(long)]
    pub audit_log: Option<PathBuf>,
    /// How built-in kinds are stored [default: protobuf with `--etcd`, as a stock kube-apiserver does; JSON otherwise]
    #[arg(long, value_enum)]
    pub storage_media_type: Option<StorageMedia>,
    /// How many nodes of the fake runtime to start, for `--runtime fake`
    #[arg(long, default_value_t = 1)]
    pub fake_nodes: u32,
    /// Say on standard output when ready, for the process that detached us
    #[arg(long, hide = true)]
    announce: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeKind {
    /// The embedded runtime for Wasm components; no root, nothing to install
    Wasm,
    /// containerd or CRI-O over its socket
    Cri,
    /// Pods that are said to run, for scale tests
    Fake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StorageMedia {
    #[value(name = "application/json")]
    Json,
    #[value(name = "application/vnd.kubernetes.protobuf")]
    Protobuf,
}

/// What a detached cluster says on its standard output once it is ready.
const READY: &str = "ready";

pub fn run(options: &Options) -> Result<()> {
    let dir = Dir::of(options.dir.as_deref())?;
    dir.create()?;
    if options.detach {
        detach(&dir)
    } else {
        serve(&dir, options)
    }
}

/// Starts this program again without a terminal, and waits for its word.
fn detach(dir: &Dir) -> Result<()> {
    // Said here, where a person reads it; the child would only log it.
    drop(dir.lock()?);
    let progress = spinner();
    let mut child = Command::new(std::env::current_exe()?);
    child
        .args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"))
        .arg("--announce");
    child
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = child.spawn().context("cannot start myself again")?;
    for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
        let line = line?;
        if line == READY {
            progress.finish_and_clear();
            say_what_next(dir);
            return Ok(());
        }
        progress.set_message(line);
    }
    progress.finish_and_clear();
    let mut why = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().context("no pipe")?, &mut why)?;
    bail!(
        "the cluster did not start; its log is {}\n{}",
        dir.log().display(),
        why.trim()
    )
}

fn serve(dir: &Dir, options: &Options) -> Result<()> {
    // Never let go of by us: the kernel does when the process is over, and with it the store's own lock, which a task that
    // outlives the runtime may hold. `down` waits for this one, so that the next `up` finds both free.
    let _lock = ManuallyDrop::new(dir.lock()?);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.log())?;
    let filter = tracing_subscriber::EnvFilter::try_from_env("PILOTIS_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log)
        .with_ansi(false)
        .init();
    let progress = if options.announce {
        ProgressBar::hidden()
    } else {
        spinner()
    };
    let step = |what: &str| {
        tracing::info!("{what}");
        progress.set_message(what.to_owned());
        if options.announce {
            // The parent may have been interrupted; that is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{what}");
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stopped = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        tokio::pin!(stopped);
        let cluster = tokio::select! {
            cluster = Cluster::start(dir, options, &step) => cluster?,
            () = &mut stopped => return Ok(()),
        };
        progress.finish_and_clear();
        if options.announce {
            let _ = writeln!(std::io::stdout(), "{READY}");
        } else {
            say_what_next(dir);
        }
        stopped.await;
        tracing::info!("stopping");
        cluster.stop().await;
        anyhow::Ok(())
    })?;
    // Nothing of ours may hold the process for long once the store is closed.
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(())
}

fn spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn say_what_next(dir: &Dir) {
    let shown = dir.path().display();
    println!("The cluster is ready.\n");
    println!("  export KUBECONFIG={}", dir.kubeconfig().display());
    println!("  kubectl get nodes,plugins");
    println!("  pilotis image import hello:v1 hello.wasm --dir {shown}    # a component to run as a pod");
    println!("  kubectl apply -f tests/manifests/hello.yaml");
    println!("\nIts log is {shown}/pilotis.log; `pilotis down --dir {shown}` stops it.");
}
