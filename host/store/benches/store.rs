//! The embedded store beside a real etcd: same load, same file system, both through the `Store` trait.
//!
//! `cargo bench -p store --bench store [-- --seconds N] [DIR]`. DIR is where both keep their files; by default beside the
//! build. Prints one JSON object a line: `bench what value unit`, and `peer peer_value ratio` where etcd ran as well. The
//! ratio is ours to theirs. etcd runs with its defaults on loopback; where it is not installed its part is left out.

#[path = "../tests/store/etcd_server.rs"]
mod etcd_server;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_server::EtcdServer;
use store::etcd::{EtcdOptions, EtcdStore};
use store::{LocalStore, Outcome, Range, Store, StoreError, Txn, embedded};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const WRITERS: usize = 1000;
const VALUE: usize = 1024;
const KEYS_A_WRITER: usize = 100;
const WATCHERS: usize = 100;
const PODS: usize = 100_000;

/// What one engine did.
#[derive(Default)]
struct Figures {
    writes: f64,
    p50: f64,
    p99: f64,
    syncs: f64,
    writes_a_sync: f64,
    one_writer: f64,
    delivered: f64,
    late_p50: f64,
}

fn main() -> Fallible<()> {
    let mut seconds = 5;
    let mut parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut memory_of = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().ok_or("--seconds wants a number")?.parse()?,
            // What cargo adds.
            "--bench" => {}
            "--memory" => memory_of = arguments.next(),
            dir => parent = dir.into(),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let Some(dir) = memory_of {
        return runtime.block_on(memory(Path::new(&dir)));
    }
    runtime.block_on(compare(&parent, Duration::from_secs(seconds)))
}

async fn compare(parent: &Path, time: Duration) -> Fallible<()> {
    // In a process of its own, after another has filled the store: what was freed is not taken for free.
    let pods = tempfile::tempdir_in(parent)?;
    fill(&embedded::open(pods.path(), embedded::Options::default())?).await?;
    let status = Command::new(std::env::current_exe()?)
        .arg("--memory")
        .arg(pods.path())
        .status()?;
    if !status.success() {
        return Err(format!("measuring memory: {status}").into());
    }

    let dir = tempfile::tempdir_in(parent)?;
    let store = Arc::new(embedded::open(dir.path(), embedded::Options::default())?);
    let syncs = {
        let store = store.clone();
        move || store.log_syncs() as f64
    };
    let ours = measure(store, syncs, time).await?;

    let etcd_dir = tempfile::tempdir_in(parent)?;
    let theirs = match EtcdServer::start(etcd_dir.path()) {
        None => None,
        Some(server) => {
            let store = Arc::new(EtcdStore::connect(EtcdOptions::new(vec![server.endpoint.clone()])).await?);
            let syncs = || etcd_syncs(&server).unwrap_or_default();
            Some(measure(store, syncs, time).await?)
        }
    };
    let print =
        |what: &str, unit: &str, of: fn(&Figures) -> f64| report(what, unit, of(&ours), theirs.as_ref().map(of));
    print("durable writes, 1000 clients, 1 KB", "writes/s", |f| f.writes);
    print("wait for a write p50, 1000 clients", "ms", |f| f.p50);
    print("wait for a write p99, 1000 clients", "ms", |f| f.p99);
    print("fsyncs of the log, 1000 clients", "1/s", |f| f.syncs);
    print("writes for each fsync, 1000 clients", "writes", |f| f.writes_a_sync);
    print("durable writes, 1 client, 1 KB", "writes/s", |f| f.one_writer);
    print("watch fan-out, 100 watchers", "events/s", |f| f.delivered);
    print("acknowledged write to watcher p50, idle", "ms", |f| f.late_p50);
    Ok(())
}

fn report(what: &str, unit: &str, value: f64, peer: Option<f64>) {
    let peer = peer.map_or_else(String::new, |peer| {
        format!(r#","peer":"etcd","peer_value":{peer:.3},"ratio":{:.2}"#, value / peer)
    });
    println!(r#"{{"bench":"store","what":"{what}","value":{value:.3},"unit":"{unit}"{peer}}}"#);
}

async fn measure<S: Store>(store: Arc<S>, syncs: impl Fn() -> f64, time: Duration) -> Fallible<Figures> {
    let mut figures = Figures::default();
    // First, while there is no snapshot or compaction to take part of the disk.
    let (writes, _, took) = write(store.clone(), 1, "one", time / 5).await?;
    figures.one_writer = writes as f64 / took;

    // Caches fill and connections open before the clock starts.
    write(store.clone(), WRITERS, "warm", time / 5).await?;

    let before = syncs();
    let (writes, waits, took) = write(store.clone(), WRITERS, "pods", time).await?;
    let synced = syncs() - before;
    figures.writes = writes as f64 / took;
    figures.p50 = percentile(&waits, 50);
    figures.p99 = percentile(&waits, 99);
    figures.syncs = synced / took;
    figures.writes_a_sync = writes as f64 / synced;

    figures.delivered = fan_out(store.clone(), time).await?;
    figures.late_p50 = lateness(store).await?;
    Ok(figures)
}

/// Each writer writes its next key when the last one is acknowledged. Says how many, how long each took, and the time.
async fn write<S: Store>(
    store: Arc<S>,
    writers: usize,
    kind: &str,
    time: Duration,
) -> Fallible<(usize, Vec<Duration>, f64)> {
    let value = bytes::Bytes::from(vec![b'x'; VALUE]);
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, value, kind) = (store.clone(), value.clone(), kind.to_owned());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for n in 0.. {
                    if began.elapsed() >= time {
                        break;
                    }
                    let key = format!(
                        "/registry/{kind}/namespace-{}/{writer:04}-{}",
                        writer % 50,
                        n % KEYS_A_WRITER
                    );
                    let sent = Instant::now();
                    // A copy, as a writer that encodes an object has one of its own.
                    store.txn(Txn::put(key, value.to_vec())).await?;
                    waits.push(sent.elapsed());
                }
                Ok::<_, StoreError>(waits)
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let took = began.elapsed().as_secs_f64();
    waits.sort_unstable();
    Ok((waits.len(), waits, took))
}

/// Events delivered a second, to all watchers together, while some write; the clock stops when everyone has everything.
async fn fan_out<S: Store>(store: Arc<S>, time: Duration) -> Fallible<f64> {
    let mut watchers = Vec::new();
    let start = store.revision().await?;
    for _ in 0..WATCHERS {
        watchers.push(store.watch("/registry/fan/".into(), start).await?);
    }
    let began = Instant::now();
    let (end, ended) = tokio::sync::watch::channel(None);
    let tasks: Vec<_> = watchers
        .into_iter()
        .map(|mut watch| {
            let mut ended = ended.clone();
            tokio::spawn(async move {
                let (mut count, mut total) = (0, None);
                while total.is_none_or(|total| count < total) {
                    tokio::select! {
                        batch = watch.next() => count += batch?.events.len(),
                        changed = ended.changed(), if total.is_none() => {
                            changed.map_err(|_| StoreError::Closed)?;
                            total = *ended.borrow_and_update();
                        }
                    }
                }
                Ok::<_, StoreError>(count)
            })
        })
        .collect();
    let (writes, ..) = write(store, 200, "fan", time).await?;
    end.send(Some(writes))?;
    let mut delivered = 0;
    for task in tasks {
        delivered += task.await??;
    }
    Ok(delivered as f64 / began.elapsed().as_secs_f64())
}

/// How long after the answer to a write a watcher has its event, when nothing else happens, in milliseconds.
async fn lateness<S: Store>(store: Arc<S>) -> Fallible<f64> {
    let start = store.revision().await?;
    let mut watch = store.watch("/registry/late/".into(), start).await?;
    let mut waits = Vec::new();
    for n in 0..200 {
        let answered = match store.txn(Txn::put("/registry/late/k", format!("{n}"))).await? {
            Outcome::Done { .. } => Instant::now(),
            Outcome::Refused { .. } => return Err("an unconditional put was refused".into()),
        };
        watch.next().await?;
        waits.push(answered.elapsed());
    }
    waits.sort_unstable();
    Ok(percentile(&waits, 50))
}

/// What 100,000 pods of 1 KB cost in memory and when the store is opened again.
async fn memory(dir: &Path) -> Fallible<()> {
    let before = resident();
    let began = Instant::now();
    let store = embedded::open(dir, embedded::Options::default())?;
    report(
        "open with 100,000 pods of 1 KB",
        "ms",
        began.elapsed().as_secs_f64() * 1e3,
        None,
    );
    // What a restart brings back includes a history; a pod's own cost is without it.
    let now = store.revision().await?;
    store.compact(now).await?;
    let each = resident().saturating_sub(before) as f64 / PODS as f64;
    report("memory for a pod of 1 KB, key and value included", "bytes", each, None);
    let began = Instant::now();
    let page = store.range(Range::prefix("/registry/pods/")).await?;
    report("list of 100,000", "ms", began.elapsed().as_secs_f64() * 1e3, None);
    assert_eq!(page.entries.len(), PODS);
    Ok(())
}

async fn fill(store: &LocalStore) -> Fallible<()> {
    for thousand in 0..PODS / 1000 {
        let writes = (0..1000).map(|n| {
            let key = format!(
                "/registry/pods/namespace-{:03}/deployment-7c5ddbdf54-{:06}",
                n % 50,
                thousand * 1000 + n
            );
            store.txn(Txn::create(key, vec![b'x'; VALUE]))
        });
        futures::future::try_join_all(writes).await?;
    }
    Ok(())
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted
        .get(sorted.len() * percent / 100)
        .map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
}

fn etcd_syncs(server: &EtcdServer) -> Option<f64> {
    let metrics = server.get("/metrics")?;
    let log = metrics
        .lines()
        .find_map(|line| line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_count "))?;
    log.trim().parse().ok()
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or_default()
        * 4096
}
