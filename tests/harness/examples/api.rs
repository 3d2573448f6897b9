//! A load on an API server from one client process, over TLS and HTTP/2: creates, gets, lists, watches.
//!
//! Without an argument it starts a cluster of the built binary (`PILOTIS_BIN`). With the URL of an API server or the path
//! of a kubeconfig it puts the same load on that one as well, as the peer to compare with (`BENCH_TOKEN`: a token for the
//! URL). With `BENCH_ONLY` the peer alone. The objects it makes are in a namespace of their own, which is removed.
//!
//! Of a server on this machine whose process is known (ours; `BENCH_PID` for the peer) it also tells what each thing cost
//! it in processor time, which other work on the machine does not change much, and its memory.

#[path = "api/client.rs"]
mod client;
#[path = "api/process.rs"]
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness::TestCluster;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use client::{Client, Server};
use process::Process;

/// What a list is measured on.
const PODS: usize = 10_000;
/// Requests on their way at once, over so many connections.
const AT_ONCE: usize = 64;
const CONNECTIONS: usize = 4;
const GETS: Duration = Duration::from_secs(5);
const LISTS: usize = 9;
const LISTS_AT_ONCE: usize = 50;
const WATCHERS: usize = 1000;
/// A stock kube-apiserver takes 100 streams a connection.
const STREAMS: usize = 100;
const CHANGES: usize = 300;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What was measured, its unit, and whether less is better.
type Figure = (String, f64, &'static str, bool);

fn main() -> Result<()> {
    let peer = std::env::args().nth(1);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut ours = Vec::new();
    if std::env::var_os("BENCH_ONLY").is_none() {
        let cluster = TestCluster::fake(1);
        let server = Server::of_kubeconfig(&cluster.dir().join("kubeconfig"))?;
        let pid = cluster.processes().first().map(|(pid, _)| *pid);
        ours = runtime.block_on(measure(&server, "pilotis", Process(pid)))?;
    }
    let theirs = match &peer {
        Some(peer) => {
            let pid = std::env::var("BENCH_PID").ok().and_then(|pid| pid.parse().ok());
            runtime.block_on(measure(&Server::parse(peer)?, peer, Process(pid)))?
        }
        None => Vec::new(),
    };
    let alone = ours.is_empty();
    for (i, (what, value, unit, less)) in if alone { &theirs } else { &ours }.iter().enumerate() {
        let mut line = json!({"bench": "api", "what": what, "value": value, "unit": unit});
        if let (false, Some(peer), Some((_, theirs, ..))) = (alone, &peer, theirs.get(i)) {
            line["peer"] = peer.as_str().into();
            line["peer_value"] = (*theirs).into();
            // How many times better.
            let ratio = if *less { theirs / value } else { value / theirs };
            if ratio.is_finite() {
                line["ratio"] = ratio.into();
            }
        }
        println!("{line}");
    }
    Ok(())
}

/// Figures as they come, with what each cost the server.
struct Figures {
    server: Process,
    all: Vec<Figure>,
}

impl Figures {
    /// `times`: how often it was done since `before`, by the server's processor time then.
    fn push(&mut self, what: String, value: f64, unit: &'static str, before: Option<Duration>, times: usize) {
        if let Some((before, after)) = before.zip(self.server.cpu()) {
            let each = (after - before).as_secs_f64() * 1e6 / times as f64;
            self.all.push((
                format!("{what}: processor time of the server for each"),
                each,
                "µs",
                true,
            ));
        }
        self.all.push((what, value, unit, unit != "/s"));
    }
}

async fn measure(server: &Server, who: &str, process: Process) -> Result<Vec<Figure>> {
    eprintln!("measuring {who}");
    let namespace = format!("bench-{}", std::process::id());
    let clients = clients(server, CONNECTIONS).await?;
    let document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    clients[0]
        .expect(Method::POST, "/api/v1/namespaces", JSON, document.to_string())
        .await?;
    // Pods are refused until a controller has made the namespace's account.
    let query = "watch=1&fieldSelector=metadata.name%3Ddefault";
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts?{query}");
    let mut account = clients[0].open(&account, JSON, false).await?;
    while account.next().await?.is_some_and(|frame| frame.is_empty()) {}
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let mut figures = Figures {
        server: process,
        all: Vec::new(),
    };

    let (cpu, begun) = (process.cpu(), Instant::now());
    over(&clients, PODS, |client, i| {
        let (pods, body) = (pods.clone(), pod(i).to_string());
        async move { client.expect(Method::POST, &pods, JSON, body).await.map(drop) }
    })
    .await?;
    let rate = PODS as f64 / begun.elapsed().as_secs_f64();
    figures.push("creates of pods".into(), rate, "/s", cpu, PODS);

    let (cpu, begun, asked) = (process.cpu(), Instant::now(), Arc::new(AtomicUsize::new(0)));
    over(&clients, AT_ONCE, |client, worker| {
        let (pods, asked) = (pods.clone(), asked.clone());
        async move {
            let mut turn = worker;
            while begun.elapsed() < GETS {
                turn = (turn * 31 + 17) % PODS;
                client
                    .expect(Method::GET, &format!("{pods}/pod-{turn}"), JSON, String::new())
                    .await?;
                asked.fetch_add(1, Relaxed);
            }
            Ok(())
        }
    })
    .await?;
    let asked = asked.load(Relaxed);
    let rate = asked as f64 / begun.elapsed().as_secs_f64();
    figures.push("gets of pods".into(), rate, "/s", cpu, asked);

    for (name, accept, gzip) in [
        ("JSON", JSON, false),
        ("protobuf", PROTOBUF, false),
        ("gzipped JSON", JSON, true),
    ] {
        // Whoever is first pays for what is made once and shared.
        let mut size = clients[0].read(&pods, accept, gzip).await?;
        let cpu = process.cpu();
        let mut took = Vec::new();
        for _ in 0..LISTS {
            let begun = Instant::now();
            size = clients[0].read(&pods, accept, gzip).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_unstable_by(f64::total_cmp);
        let what = format!("list of {PODS} pods, {name}, {:.1} MB", size as f64 / 1e6);
        figures.push(what, took[LISTS / 2], "ms", cpu, LISTS);
    }
    let idle = process.forget_peak();
    let apart = self::clients(server, LISTS_AT_ONCE).await?;
    let (cpu, begun) = (process.cpu(), Instant::now());
    over(&apart, LISTS_AT_ONCE, |client, _| {
        let pods = pods.clone();
        async move { client.read(&pods, JSON, false).await.map(drop) }
    })
    .await?;
    let what = format!("{LISTS_AT_ONCE} lists at once, JSON, until all are read");
    figures.push(what, begun.elapsed().as_secs_f64() * 1e3, "ms", cpu, LISTS_AT_ONCE);
    if let Some((idle, peak)) = idle.zip(process.peak()) {
        figures.push("resident before them".into(), idle, "MB", None, 1);
        figures.push("resident at their peak".into(), peak, "MB", None, 1);
    }
    drop(apart);

    let cpu = process.cpu();
    let took = watch_start(&clients[0], &pods).await?;
    figures.push(
        format!("watch start on {PODS} pods, the whole state"),
        took,
        "ms",
        cpu,
        1,
    );
    fan_out(server, &clients, &namespace, &mut figures).await?;

    clients[0].expect(Method::DELETE, &pods, JSON, String::new()).await?;
    let namespace = format!("/api/v1/namespaces/{namespace}");
    clients[0]
        .expect(Method::DELETE, &namespace, JSON, String::new())
        .await?;
    Ok(figures.all)
}

async fn clients(server: &Server, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(server.connect().await?);
    }
    Ok(clients)
}

/// Does `count` pieces of work, `AT_ONCE` at a time, spread over the clients.
async fn over<W>(clients: &[Client], count: usize, work: impl Fn(Client, usize) -> W) -> Result<()>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for i in 0..count {
        if running.len() >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            done??;
        }
        running.spawn(work(clients[i % clients.len()].clone(), i));
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// About 1 KB as it is sent. Nobody schedules it, so that it stays as it is.
fn pod(i: usize) -> Value {
    let environment: Vec<Value> = (0..8)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value {n} of {i}")}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{i}"), "labels": {"app": "bench", "part": (i % 100).to_string()}},
        "spec": {
            "schedulerName": "nobody", "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "registry.example.com/bench/main:1.0.0", "env": environment,
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "ports": [{"containerPort": 8080, "name": "http"}],
            }],
        },
    })
}

/// Milliseconds until a watch has sent the whole state.
async fn watch_start(client: &Client, pods: &str) -> Result<f64> {
    let begun = Instant::now();
    let query = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut watch = client.open(&format!("{pods}?{query}"), JSON, false).await?;
    let mut seen = 0;
    // The bookmark follows the objects.
    while seen <= PODS {
        let Some(frame) = watch.next().await? else {
            return Err("the watch ended before its bookmark".into());
        };
        seen += frame.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Events a second, all watchers together, from the first change to the last event read; and how many watches the server
/// gave up before they had seen all (kube-apiserver does with those that are slower than its buffers are long).
async fn fan_out(server: &Server, writers: &[Client], namespace: &str, figures: &mut Figures) -> Result<()> {
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let apart = clients(server, WATCHERS.div_ceil(STREAMS)).await?;
    let mut watchers = JoinSet::new();
    for i in 0..WATCHERS {
        let client = &apart[i / STREAMS];
        let path = format!("{maps}?watch=1&labelSelector=app%3Dbench");
        let mut watch = client.open(&path, JSON, false).await?;
        watchers.spawn(async move {
            let mut seen = 0;
            while seen < CHANGES {
                let Some(frame) = watch.next().await? else { break };
                seen += frame.iter().filter(|byte| **byte == b'\n').count();
            }
            Result::Ok(seen)
        });
    }
    let (cpu, begun) = (figures.server.cpu(), Instant::now());
    over(writers, CHANGES, |client, i| {
        let maps = maps.clone();
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("map-{i}"), "labels": {"app": "bench"}}, "data": {"text": "x".repeat(500)},
        });
        async move {
            client
                .expect(Method::POST, &maps, JSON, body.to_string())
                .await
                .map(drop)
        }
    })
    .await?;
    let (mut events, mut given_up) = (0, 0.0);
    while let Some(done) = watchers.join_next().await {
        let seen = done??;
        events += seen;
        given_up += f64::from(u8::from(seen < CHANGES));
    }
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    figures.push(format!("watch events to {WATCHERS} watchers"), rate, "/s", cpu, events);
    figures.push("watches of them that were given up".into(), given_up, "", None, 1);
    Ok(())
}
