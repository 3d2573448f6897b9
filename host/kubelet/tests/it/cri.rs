//! containerd and runc, on a machine of the test's own; an image made of busybox. As root only.

use std::sync::Arc;

use bytes::Bytes;
use client::fake::Fake;
use client::node::{ContainerRef, ExecRequest, LogOptions, Session, TerminalSize};
use futures::StreamExt;
use harness::{Containerd, Machine};
use kubelet::runtime::Runtime;
use kubelet::runtime::cri::CriRuntime;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{TestNode, eventually, looking, state};

const IMAGE: &str = Containerd::IMAGES[0];

fn shell(script: &str) -> Value {
    json!({"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script]})
}

/// Exit code, standard output, standard error. The input is ended once it is given.
async fn exec(node: &TestNode, pod: &str, command: &[&str], input: &str, tty: bool) -> (i32, String, String) {
    exec_in(node, &node.container(pod, "c"), command, input, tty).await
}

async fn exec_in(
    node: &TestNode,
    container: &ContainerRef,
    command: &[&str],
    input: &str,
    tty: bool,
) -> (i32, String, String) {
    let request = ExecRequest {
        command: command.iter().map(|s| (*s).into()).collect(),
        stdin: !input.is_empty(),
        stdout: true,
        stderr: !tty,
        tty,
    };
    let session = node.streams.exec(container, &request).await.expect("it starts");
    let Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    if tty {
        resize
            .send(TerminalSize { width: 80, height: 25 })
            .await
            .expect("it listens");
    }
    let say = async {
        for part in input.as_bytes().chunks(10_000) {
            stdin.send(Bytes::copy_from_slice(part)).await.expect("it listens");
        }
        drop(stdin);
    };
    let ((), out, err) = tokio::join!(say, text(stdout), text(stderr));
    (exit.await.expect("it ends").expect("it ran"), out, err)
}

async fn text(mut from: mpsc::Receiver<Bytes>) -> String {
    let mut all = Vec::new();
    while let Some(bytes) = from.recv().await {
        all.extend_from_slice(&bytes);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn containers_of_containerd() {
    Machine::of_its_own("cri::containers_of_containerd", &Containerd::TOOLS, |machine| {
        let containerd = Containerd::start(machine);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.expect("threads").block_on(pods_of(&containerd));
        assert_eq!(containerd.left(), [""; 0]);
    });
}

/// One containerd for all: starting it costs seconds.
async fn pods_of(containerd: &Containerd) {
    let kubelet = tempfile::tempdir().expect("a folder");
    let runtime: Arc<dyn Runtime> = Arc::new(CriRuntime::new(containerd.socket(), "n1").unwrap());
    let mut node = TestNode::start(kubelet.path().join("kubelet"), Fake::new(), runtime);
    server(&node, containerd).await;
    restarts_and_limits(&node).await;
    volumes_and_logs(&node).await;
    processes(&node).await;
    taken_up_again(&mut node, containerd).await;
    node.halt().await;
}

async fn server(node: &TestNode, containerd: &Containerd) {
    node.fake.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"index.html": "hello from busybox\n"}}));
    let mut web = shell("httpd -f -p 8080 -h /www");
    web["env"] = json!([{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    web["volumeMounts"] = json!([{"name": "www", "mountPath": "/www"}]);
    web["readinessProbe"] = json!({"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1});
    web["livenessProbe"] = json!({"exec": {"command": ["cat", "/www/index.html"]}, "periodSeconds": 1});
    node.put("web", json!({"terminationGracePeriodSeconds": 1, "containers": [web], "volumes": [{"name": "www", "configMap": {"name": "m"}}]}));
    node.until_running("web").await;
    let status = node.status("web");
    assert!(status["podIP"].as_str().unwrap().starts_with("10."), "{status}");
    assert!(
        status["containerStatuses"][0]["containerID"]
            .as_str()
            .unwrap()
            .starts_with("containerd://")
    );
    assert_eq!(
        exec(node, "web", &["sh", "-c", "echo $WHO; echo no >&2; exit 4"], "", false).await,
        (4, "web\n".into(), "no\n".into())
    );
    let (code, text, _) = exec(
        node,
        "web",
        &["sh", "-c", "read line; echo got $line"],
        "a line\n",
        true,
    )
    .await;
    assert!(code == 0 && text.contains("got a line"), "{code} {text:?}");
    assert_eq!(exec(node, "web", &["hostname"], "", false).await.1, "web\n");
    let long = "all of it, to the end\n".repeat(100_000);
    let (code, text, _) = exec(node, "web", &["cat"], &long, false).await;
    assert!(
        code == 0 && text == long,
        "{code}: {} of {} bytes",
        text.len(),
        long.len()
    );
    assert_eq!(
        exec(node, "web", &["sh", "-c", "echo shown; echo no >&2"], "", true).await,
        (0, "shown\r\nno\r\n".into(), String::new()),
        "a terminal without input"
    );
    let port = node.streams.port_forward(&node.container("web", "c"), 8080).await;
    assert!(
        port.is_ok(),
        "{}",
        port.err().map(|e| e.to_string()).unwrap_or_default()
    );
    let summary = node.summary().await;
    let used = |at: &str| summary.pointer(at).and_then(Value::as_u64).unwrap_or_default();
    assert!(used("/pods/0/containers/0/cpu/usageCoreNanoSeconds") > 0, "{summary:#}");
    assert!(used("/pods/0/cpu/usageCoreNanoSeconds") > 0, "{summary:#}");
    // A change of the ConfigMap is seen by the server without a restart.
    node.fake.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"index.html": "changed\n"}}));
    eventually("the change is served", async || {
        exec(node, "web", &["cat", "/www/index.html"], "", false).await.1 == "changed\n"
    })
    .await;
    // Killed behind our back: found, told and started again.
    let status = node.status("web");
    let id = status["containerStatuses"][0]["containerID"].as_str().unwrap();
    containerd.kill(id.trim_start_matches("containerd://"));
    node.until("it was restarted", |n| {
        n.status("web")["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    node.until_running("web").await;
    assert_eq!(
        node.status("web")["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        137
    );
    node.delete("web", 1);
    node.until_gone("web").await;
}

async fn restarts_and_limits(node: &TestNode) {
    node.put(
        "three",
        json!({"restartPolicy": "Never", "containers": [shell("exit 3")]}),
    );
    let mut hog = shell("dd if=/dev/zero of=/dev/null bs=200M count=1");
    hog["resources"] = json!({"limits": {"memory": "20Mi", "cpu": "500m"}});
    node.put("hog", json!({"restartPolicy": "Never", "containers": [hog]}));
    node.put("crash", json!({"containers": [shell("echo once; exit 1")]}));
    node.put(
        "never",
        json!({"containers": [{"name": "c", "image": "pilotis.test/none:1", "imagePullPolicy": "Never"}]}),
    );
    node.until("three has ended", |n| n.status("three")["phase"] == "Failed")
        .await;
    assert_eq!(state(&node.status("three"), 0, "terminated")["exitCode"], 3);
    node.until("the hog has ended", |n| n.status("hog")["phase"] == "Failed")
        .await;
    let hog = state(&node.status("hog"), 0, "terminated").clone();
    // Where this machine gives containers no memory controller the limit cannot hold, and runc would have said so.
    assert!(
        hog["exitCode"] == 137 || hog["reason"] == "OOMKilled" || hog["exitCode"] == 1,
        "{hog}"
    );
    node.until("crash backs off", |n| {
        state(&n.status("crash"), 0, "waiting")["reason"] == "CrashLoopBackOff"
    })
    .await;
    assert_eq!(node.logs("crash", "c", LogOptions::default()).await, "once\n");
    assert_eq!(
        node.logs(
            "crash",
            "c",
            LogOptions {
                previous: true,
                ..Default::default()
            }
        )
        .await,
        "once\n"
    );
    node.until("never says so", |n| {
        state(&n.status("never"), 0, "waiting")["reason"] == "ErrImageNeverPull"
    })
    .await;
    for name in ["three", "hog", "crash", "never"] {
        node.delete(name, 0);
        node.until_gone(name).await;
    }
}

async fn volumes_and_logs(node: &TestNode) {
    let mut init = shell("echo from init > /shared/note");
    init["name"] = json!("init");
    let mut main = shell("cat /shared/note; echo to stderr >&2; sleep 3600");
    for c in [&mut init, &mut main] {
        c["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    }
    main["lifecycle"] = json!({"preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1"]}}});
    node.put("p", json!({"initContainers": [init], "containers": [main], "terminationGracePeriodSeconds": 2, "volumes": [{"name": "shared", "emptyDir": {}}]}));
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
    let mut text = String::new();
    while !(text.contains("from init\n") && text.contains("to stderr\n")) {
        text.push_str(std::str::from_utf8(&log.next().await.expect("more").expect("it is read")).unwrap());
    }
    node.delete("p", 2);
    let mut rest = String::new();
    while let Some(Ok(bytes)) = log.next().await {
        rest.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert_eq!(rest, "stopping\n", "the preStop hook ran before the end");
    node.until_gone("p").await;
}

/// Whose processes containers see: their own, those of the container they look at, or those of the pod.
async fn processes(node: &TestNode) {
    let looks = |name: &str, target: Option<&str>| {
        let script = "tr '\\0' ' ' < /proc/1/cmdline; echo; while read line; do echo got $line; done; exit 3";
        let mut look = shell(script);
        look["name"] = json!(name);
        look["stdin"] = json!(true);
        if let Some(target) = target {
            look["targetContainerName"] = json!(target);
        }
        look
    };
    node.put(
        "p",
        json!({"containers": [shell("exec sleep 3600")], "terminationGracePeriodSeconds": 0}),
    );
    node.until_running("p").await;
    node.look("p", looks("apart", None));
    node.look("p", looks("beside", Some("c")));
    node.until("both run", |n| {
        [0, 1]
            .iter()
            .all(|at| !looking(&n.status("p"), *at, "running").is_null())
    })
    .await;
    let first_line = async |of: &str| {
        let text = node.logs("p", of, LogOptions::default()).await;
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    eventually("each has looked", async || {
        first_line("apart").await.starts_with("sh -c") && first_line("beside").await == "sleep 3600"
    })
    .await;
    let request = ExecRequest {
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let beside = node.container("p", "beside");
    let mut session = node.streams.attach(&beside, &request).await.expect("it is attached to");
    session.stdin.send(Bytes::from("a line\n")).await.expect("it listens");
    let mut said = String::new();
    while !said.contains("got a line\n") {
        said.push_str(std::str::from_utf8(&session.stdout.recv().await.expect("more")).unwrap());
    }
    drop(session);
    let (code, out, _) = exec_in(node, &beside, &["cat", "/proc/1/comm"], "", false).await;
    assert_eq!((code, out.trim()), (0, "sleep"));
    // In a pod that shares them the first process is its sandbox's.
    node.put(
        "q",
        json!({"containers": [shell("exec sleep 3600")], "shareProcessNamespace": true, "terminationGracePeriodSeconds": 0}),
    );
    node.until_running("q").await;
    let (_, out, _) = exec(node, "q", &["cat", "/proc/1/cmdline"], "", false).await;
    assert!(!out.contains("3600"), "{out:?}");
    for name in ["p", "q"] {
        node.delete(name, 0);
        node.until_gone(name).await;
    }
}

async fn taken_up_again(node: &mut TestNode, containerd: &Containerd) {
    node.put(
        "p",
        json!({"containers": [shell("sleep 3600")], "terminationGracePeriodSeconds": 0}),
    );
    node.until_running("p").await;
    node.look("p", {
        let mut look = shell("sleep 3600");
        look["name"] = json!("look");
        look
    });
    node.until("it is looked at", |n| !looking(&n.status("p"), 0, "running").is_null())
        .await;
    let before = node.status("p");
    node.halt().await;
    node.runtime = Arc::new(CriRuntime::new(containerd.socket(), "n1").unwrap());
    node.streams = kubelet::streams(&node.config, node.fake.cluster(), node.runtime.clone());
    node.resume();
    node.put(
        "q",
        json!({"containers": [shell("sleep 3600")], "terminationGracePeriodSeconds": 0}),
    );
    node.until_running("q").await;
    for list in ["containerStatuses", "ephemeralContainerStatuses"] {
        assert_eq!(node.status("p")[list], before[list]);
    }
    for name in ["p", "q"] {
        node.delete(name, 0);
        node.until_gone(name).await;
    }
}
