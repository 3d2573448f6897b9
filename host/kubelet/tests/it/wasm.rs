//! The Wasm runtime with real components in real processes. Guests come from `cargo xtask guests`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::fake::Fake;
use client::node::{ExecRequest, LogOptions, Session};
use futures::StreamExt;
use kubelet::runtime::Runtime;
use kubelet::runtime::wasm::{ImageStore, ShimCommand, WasmRuntime};
use serde_json::{Value, json};

use crate::support::{TestNode, eventually, looking, skip, state};

struct Wasm {
    dir: tempfile::TempDir,
    node: TestNode,
}

impl Drop for Wasm {
    /// Whatever a test did, it leaves no process.
    fn drop(&mut self) {
        self.node.abandon();
        // Until nothing was started behind our back any more.
        while WasmRuntime::end_all(&self.dir.path().join("wasm")).unwrap_or(0) > 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn guest(name: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/guests")
        .join(format!("{name}.wasm"));
    if !file.exists() {
        skip(&format!("{name} is not built; run `cargo xtask guests`"));
        return None;
    }
    Some(file)
}

fn runtime(dir: &Path) -> Arc<dyn Runtime> {
    let images = ImageStore::open(dir.join("images")).expect("a store");
    let shim = ShimCommand {
        program: env!("CARGO_BIN_EXE_pilotis-wasm-shim").into(),
        args: Vec::new(),
    };
    Arc::new(WasmRuntime::new(dir.join("wasm"), images, shim).expect("a runtime"))
}

fn start() -> Option<Wasm> {
    let (command, http) = (guest("pod-command")?, guest("pod-http")?);
    let dir = tempfile::tempdir().expect("a folder");
    let images = ImageStore::open(dir.path().join("images")).expect("a store");
    images.import("command", &command).expect("a component");
    images.import("http:v1", &http).expect("a component");
    let node = TestNode::start(dir.path().join("kubelet"), Fake::new(), runtime(dir.path()));
    Some(Wasm { dir, node })
}

fn command(args: &[&str]) -> Value {
    json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "command", "args": args}]})
}

fn server() -> Value {
    json!({
        "terminationGracePeriodSeconds": 5,
        "containers": [{
            "name": "web", "image": "http:v1", "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        }],
    })
}

/// Status and body; `None` if nobody answered.
async fn get(ip: &str, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect((ip, 8080)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1;
    // Chunked: the longest line is the text.
    Some((
        status,
        body.lines().max_by_key(|l| l.len()).unwrap_or_default().to_owned(),
    ))
}

async fn finished(node: &TestNode, name: &str) -> Value {
    node.until(&format!("{name} has ended"), |n| {
        !state(&n.status(name), 0, "terminated").is_null()
    })
    .await;
    state(&node.status(name), 0, "terminated").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_to_its_end_and_its_output_is_its_log() {
    let Some(mut wasm) = start() else { return };
    let node = &wasm.node;
    node.put("hello", command(&["echo", "hello", "$(WHO)", "world"]));
    node.put("three", command(&["exit", "3"]));
    node.put("trap", command(&["nothing-like-this"]));
    assert_eq!(finished(node, "hello").await["reason"], "Completed");
    assert_eq!(node.status("hello")["phase"], "Succeeded");
    assert_eq!(
        node.logs("hello", "c", LogOptions::default()).await,
        "hello $(WHO) world\n"
    );
    // WASI 0.2 exits well or badly; the number does not cross.
    assert_eq!(finished(node, "three").await["exitCode"], 1);
    assert_eq!(finished(node, "trap").await["reason"], "Error");
    assert!(node.logs("trap", "c", LogOptions::default()).await.contains("unknown"));
    for name in ["hello", "three", "trap"] {
        node.delete(name, 30);
        node.until_gone(name).await;
    }
    let left: Vec<_> = std::fs::read_dir(wasm.dir.path().join("wasm")).unwrap().collect();
    assert!(left.is_empty(), "sandboxes are left: {left:?}");
    for folder in ["kubelet/logs", "kubelet/pods"] {
        let left = std::fs::read_dir(wasm.dir.path().join(folder)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{folder} is not empty");
    }
    wasm.node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_serves_on_its_pods_own_address() {
    let Some(mut wasm) = start() else { return };
    let node = &wasm.node;
    node.put("a", server());
    node.put("b", server());
    node.until_running("a").await;
    node.until_running("b").await;
    let ip = |name: &str| node.status(name)["podIP"].as_str().expect("an address").to_owned();
    assert_ne!(ip("a"), ip("b"));
    assert_eq!(get(&ip("a"), "/").await, Some((200, "hello from a".into())));
    assert_eq!(get(&ip("b"), "/").await, Some((200, "hello from b".into())));
    assert_eq!(get(&ip("a"), "/missing").await.map(|a| a.0), Some(404));
    // A trap is one request's end, and is told in the log.
    assert_eq!(get(&ip("a"), "/trap").await.map(|a| a.0), Some(500));
    assert_eq!(get(&ip("a"), "/").await.map(|a| a.0), Some(200));
    let log = node.logs("a", "web", LogOptions::default()).await;
    assert!(
        log.contains("/missing 404\n") && log.contains("a request failed"),
        "{log}"
    );
    // An endless request does not keep others from being answered.
    let (slow, address) = (ip("a"), ip("a"));
    let spin = tokio::spawn(async move { get(&slow, "/spin").await });
    assert_eq!(get(&address, "/").await.map(|a| a.0), Some(200));
    let begun = Instant::now();
    node.delete("a", 2);
    node.until_gone("a").await;
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "the grace ends what does not end"
    );
    drop(spin);
    assert!(get(&address, "/").await.is_none());
    wasm.node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_container_looks_at_a_pod_that_runs() {
    let Some(mut wasm) = start() else { return };
    let node = &wasm.node;
    node.put("a", server());
    node.until_running("a").await;
    node.look(
        "a",
        json!({"name": "look", "image": "command", "args": ["echo", "looking"], "targetContainerName": "web"}),
    );
    node.until("it has ended", |n| {
        looking(&n.status("a"), 0, "terminated")["reason"] == "Completed"
    })
    .await;
    assert_eq!(node.logs("a", "look", LogOptions::default()).await, "looking\n");
    let ip = node.status("a")["podIP"].as_str().expect("an address").to_owned();
    assert_eq!(get(&ip, "/").await, Some((200, "hello from a".into())));
    node.delete("a", 1);
    node.until_gone("a").await;
    wasm.node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_finishes_what_it_has_begun() {
    let Some(mut wasm) = start() else { return };
    wasm.node.put("a", server());
    wasm.node.until_running("a").await;
    let ip = wasm.node.status("a")["podIP"].as_str().expect("an address").to_owned();
    let address = ip.clone();
    let slow = tokio::spawn(async move { get(&address, "/slow").await });
    eventually("the request is being answered", async || {
        // The connection is there once another one is: both are taken in order.
        get(&ip, "/healthz").await.is_some()
    })
    .await;
    wasm.node.delete("a", 30);
    assert_eq!(slow.await.unwrap(), Some((200, "slow".into())));
    wasm.node.until_gone("a").await;
    wasm.node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_and_an_endless_loop_can_be_stopped() {
    let Some(mut wasm) = start() else { return };
    let node = &wasm.node;
    let mut hog = command(&["eat"]);
    hog["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    node.put("hog", hog);
    assert_eq!(finished(node, "hog").await["reason"], "OOMKilled");
    assert_eq!(state(&node.status("hog"), 0, "terminated")["exitCode"], 137);
    let mut spin = command(&["spin"]);
    spin["containers"][0]["resources"] = json!({"limits": {"cpu": "100m"}});
    node.put("spin", spin);
    node.until_running("spin").await;
    let sandbox = sandbox_of(&wasm, "spin");
    let pid = std::fs::read_to_string(sandbox.join("pid")).unwrap();
    let (before, begun) = (cpu_time(&pid), Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let share = (cpu_time(&pid) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share < 0.25, "a tenth of a CPU was granted, {share:.2} was used");
    let begun = Instant::now();
    node.delete("spin", 30);
    node.until_gone("spin").await;
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "it was not waited for: {:?}",
        begun.elapsed()
    );
    wasm.node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pods_use_is_told() {
    let Some(mut wasm) = start() else { return };
    wasm.node.put("spin", command(&["spin"]));
    wasm.node.until_running("spin").await;
    let used = |summary: &Value, at: &str| summary.pointer(at).and_then(Value::as_u64);
    let cpu = "/pods/0/containers/0/cpu/usageCoreNanoSeconds";
    eventually("it has used a tenth of a second", async || {
        used(&wasm.node.summary().await, cpu) >= Some(100_000_000)
    })
    .await;
    let summary = wasm.node.summary().await;
    assert_eq!(summary["pods"][0]["podRef"]["name"], "spin");
    assert!(
        used(&summary, "/pods/0/cpu/usageCoreNanoSeconds") >= Some(100_000_000),
        "{summary:#}"
    );
    assert!(
        used(&summary, "/pods/0/memory/workingSetBytes") > Some(100_000),
        "{summary:#}"
    );
    assert!(
        used(&summary, "/node/cpu/usageCoreNanoSeconds") > used(&summary, cpu),
        "{summary:#}"
    );
    wasm.node.halt().await;
}

fn sandbox_of(wasm: &Wasm, pod: &str) -> PathBuf {
    let uid = wasm.node.pod(pod).expect("the pod is there")["metadata"]["uid"]
        .as_str()
        .expect("a uid")
        .to_owned();
    let entries = std::fs::read_dir(wasm.dir.path().join("wasm"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let mut of_pod = entries.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(&uid));
    of_pod.next().expect("the pod has a sandbox")
}

fn cpu_time(pid: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).expect("the process runs");
    let after = stat.rsplit(") ").next().unwrap();
    let ticks: u64 = after
        .split(' ')
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_folders_that_follow_the_cluster() {
    let Some(mut wasm) = start() else { return };
    let node = &wasm.node;
    let map = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"greeting": text}});
    node.fake.put(map("good morning"));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "c2VzYW1l"}});
    node.fake.put(secret);
    let container = |name: &str, args: &[&str]| {
        json!({"name": name, "image": "command", "args": args, "volumeMounts": [
            {"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"},
            {"name": "shared", "mountPath": "/shared"}, {"name": "pod", "mountPath": "/pod"}]})
    };
    let volumes = json!([
        {"name": "map", "configMap": {"name": "m"}},
        {"name": "secret", "secret": {"secretName": "s", "items": [{"key": "key", "path": "deep/word"}]}},
        {"name": "shared", "emptyDir": {}},
        {"name": "pod", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]);
    node.put(
        "p",
        json!({
            "restartPolicy": "Never", "volumes": volumes,
            "initContainers": [container("writer", &["write", "/shared/note", "from init"])],
            "containers": [
                container("map", &["cat", "/map/greeting"]), container("secret", &["cat", "/secret/deep/word"]),
                container("shared", &["cat", "/shared/note"]), container("pod", &["cat", "/pod/name"]),
                container("refused", &["write", "/map/greeting", "x"]),
            ],
        }),
    );
    node.until("it is over", |n| n.status("p")["phase"] == "Failed").await;
    for (name, text) in [
        ("map", "good morning"),
        ("secret", "sesame"),
        ("shared", "from init"),
        ("pod", "p"),
    ] {
        assert_eq!(
            node.logs("p", name, LogOptions::default()).await,
            format!("{text}\n"),
            "{name}"
        );
    }
    assert_eq!(
        state(&node.status("p"), 4, "terminated")["exitCode"],
        1,
        "a ConfigMap is read-only"
    );
    let mut sleeper = command(&["sleep"]);
    sleeper["volumes"] = json!([{"name": "map", "configMap": {"name": "m"}}]);
    sleeper["containers"][0]["volumeMounts"] = json!([{"name": "map", "mountPath": "/map"}]);
    node.put("q", sleeper);
    node.until_running("q").await;
    node.fake.put(map("good evening"));
    eventually("the change is seen", async || {
        exec(node, "q", "c", &["cat", "/map/greeting"], "").await.1 == "good evening"
    })
    .await;
    wasm.node.halt().await;
}

/// Exit code, standard output, standard error.
async fn exec(node: &TestNode, pod: &str, container: &str, args: &[&str], input: &str) -> (i32, String, String) {
    let streams = ExecRequest {
        stdin: !input.is_empty(),
        stdout: true,
        stderr: true,
        ..ExecRequest::default()
    };
    exec_with(node, pod, container, args, input, streams).await
}

async fn exec_with(
    node: &TestNode,
    pod: &str,
    container: &str,
    args: &[&str],
    input: &str,
    streams: ExecRequest,
) -> (i32, String, String) {
    let request = ExecRequest {
        command: std::iter::once("command")
            .chain(args.iter().copied())
            .map(String::from)
            .collect(),
        ..streams
    };
    let session = node
        .streams
        .exec(&node.container(pod, container), &request)
        .await
        .expect("it starts");
    let Session {
        stdin,
        mut stdout,
        mut stderr,
        exit,
        ..
    } = session;
    if !input.is_empty() {
        stdin
            .send(Bytes::copy_from_slice(input.as_bytes()))
            .await
            .expect("it listens");
    }
    drop(stdin);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    tokio::join!(
        async {
            while let Some(bytes) = stdout.recv().await {
                out.extend_from_slice(&bytes)
            }
        },
        async {
            while let Some(bytes) = stderr.recv().await {
                err.extend_from_slice(&bytes)
            }
        },
    );
    let code = exit.await.expect("it ends").expect("it ran");
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_runs_the_component_again_and_logs_can_be_followed() {
    let Some(mut wasm) = start() else { return };
    let node = &wasm.node;
    node.put("p", command(&["sleep"]));
    node.until_running("p").await;
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut log = node
        .streams
        .logs(&node.container("p", "c"), &options)
        .await
        .expect("there is a log");
    assert_eq!(log.next().await.unwrap().unwrap(), "sleeping\n");
    assert_eq!(
        exec(node, "p", "c", &["upper"], "quiet").await,
        (0, "QUIET".into(), String::new())
    );
    assert_eq!(exec(node, "p", "c", &["exit", "7"], "").await.0, 1);
    assert_eq!(
        exec(node, "p", "c", &["complain", "no"], "").await,
        (0, String::new(), "no\n".into())
    );
    let terminal = ExecRequest {
        stdout: true,
        tty: true,
        ..ExecRequest::default()
    };
    assert_eq!(
        exec_with(node, "p", "c", &["complain", "no"], "", terminal).await,
        (0, "no\n".into(), String::new()),
        "a terminal has one output, with input or without"
    );
    let only_errors = ExecRequest {
        stderr: true,
        ..ExecRequest::default()
    };
    assert_eq!(
        exec_with(node, "p", "c", &["echo", "yes"], "", only_errors).await,
        (0, String::new(), String::new()),
        "what was not asked for is not sent"
    );
    let big = "x".repeat(300_000);
    assert_eq!(exec(node, "p", "c", &["upper"], &big).await.1.len(), big.len());
    node.delete("p", 30);
    assert!(log.next().await.is_none(), "a followed log ends with its container");
    node.until_gone("p").await;
    assert!(
        node.streams
            .exec(
                &node.container("p", "c"),
                &ExecRequest {
                    command: vec!["x".into()],
                    ..Default::default()
                }
            )
            .await
            .is_err()
    );
    wasm.node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_a_restart_and_pods_outlive_the_kubelet() {
    let Some(mut wasm) = start() else { return };
    wasm.node.put("p", server());
    wasm.node.until_running("p").await;
    let pid = std::fs::read_to_string(sandbox_of(&wasm, "p").join("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    wasm.node
        .until("it was restarted", |n| {
            n.status("p")["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    wasm.node.until_running("p").await;
    let ip = wasm.node.status("p")["podIP"].as_str().unwrap().to_owned();
    assert_eq!(
        wasm.node.status("p")["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        137
    );
    // A kubelet and a runtime that know nothing but the folder.
    wasm.node.halt().await;
    assert_eq!(
        get(&ip, "/").await.map(|a| a.0),
        Some(200),
        "it serves while nobody looks after it"
    );
    wasm.node.runtime = runtime(wasm.dir.path());
    wasm.node.streams = kubelet::streams(&wasm.node.config, wasm.node.fake.cluster(), wasm.node.runtime.clone());
    wasm.node.resume();
    wasm.node.put("q", server());
    wasm.node.until_running("q").await;
    assert_eq!(wasm.node.status("p")["podIP"], ip.as_str());
    assert_eq!(wasm.node.status("p")["containerStatuses"][0]["restartCount"], 1);
    wasm.node.delete("p", 0);
    wasm.node.until_gone("p").await;
    wasm.node.halt().await;
    assert_eq!(WasmRuntime::end_all(&wasm.dir.path().join("wasm")).unwrap(), 1);
    assert!(get(&ip, "/").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_where_a_person_looks() {
    let Some(mut wasm) = start() else { return };
    let node = &wasm.node;
    node.put("missing", json!({"containers": [{"name": "c", "image": "nowhere:1"}]}));
    node.until("it says what to do", |n| {
        let waiting = state(&n.status("missing"), 0, "waiting").clone();
        waiting["message"]
            .as_str()
            .is_some_and(|m| m.contains("pilotis image import nowhere:1"))
    })
    .await;
    node.put(
        "never",
        json!({"containers": [{"name": "c", "image": "nowhere:1", "imagePullPolicy": "Never"}]}),
    );
    node.until("it says so", |n| {
        state(&n.status("never"), 0, "waiting")["reason"] == "ErrImageNeverPull"
    })
    .await;
    let images = ImageStore::open(wasm.dir.path().join("images")).unwrap();
    images
        .import_bytes("broken", &[0, b'a', b's', b'm', 0x0d, 0, 1, 0, 9, 9])
        .unwrap();
    node.put("broken", json!({"containers": [{"name": "c", "image": "broken"}]}));
    node.until("the compiler's words are told", |n| {
        let waiting = state(&n.status("broken"), 0, "waiting").clone();
        waiting["message"]
            .as_str()
            .is_some_and(|m| m.contains("does not compile"))
    })
    .await;
    // A forged or damaged code file is not mapped: it is refused and made again.
    let aot: Vec<_> = std::fs::read_dir(wasm.dir.path().join("images/aot"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(aot.is_empty(), "nothing was compiled yet: {aot:?}");
    node.put("ok", command(&["echo", "1"]));
    finished(node, "ok").await;
    for entry in std::fs::read_dir(wasm.dir.path().join("images/aot")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "cwasm") {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    node.put("again", command(&["echo", "2"]));
    assert_eq!(finished(node, "again").await["exitCode"], 0);
    wasm.node.halt().await;
}

/// Prints what a pod costs: start time and private memory of its process. Wide bounds: machines are shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_costs() {
    let Some(mut wasm) = start() else { return };
    wasm.node.put("warm", server());
    wasm.node.until_running("warm").await;
    let mut starts = Vec::new();
    for at in 0..20 {
        let name = format!("p{at}");
        let mut spec = server();
        spec["containers"][0].as_object_mut().unwrap().remove("readinessProbe");
        let begun = Instant::now();
        wasm.node.put(&name, spec);
        wasm.node.until_running(&name).await;
        starts.push(begun.elapsed());
    }
    starts.sort();
    let pid = std::fs::read_to_string(sandbox_of(&wasm, "p0").join("pid")).unwrap();
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.trim())).unwrap();
    let kib = |name: &str| {
        rollup
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .map_or("", str::trim)
            .to_owned()
    };
    let (cpu, begun) = (cpu_time(&pid), Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = cpu_time(&pid) - cpu;
    eprintln!(
        "pod start p50 {:?} p95 {:?}; shim PSS {} private {} (with 20 others); CPU idle {idle:?} in {:?}",
        starts[10],
        starts[18],
        kib("Pss:"),
        kib("Private_Dirty:"),
        begun.elapsed()
    );
    assert!(starts[10] < Duration::from_millis(500), "p50 {:?}", starts[10]);
    assert!(idle <= Duration::from_millis(20), "an idle pod does not tick: {idle:?}");
    wasm.node.halt().await;
}
