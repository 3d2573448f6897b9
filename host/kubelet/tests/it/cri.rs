//! containerd and runc, started by the test in folders of its own; an image made of busybox. As root only.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::fake::Fake;
use client::node::{ExecRequest, LogOptions, Session, TerminalSize};
use futures::StreamExt;
use kubelet::runtime::Runtime;
use kubelet::runtime::cri::CriRuntime;
use serde_json::{Value, json};

use crate::support::{TestNode, eventually, skip, state};

const IMAGE: &str = "pilotis.test/busybox:1";

/// A containerd of the test's own. Everything it made is gone when it is dropped.
struct Containerd {
    dir: tempfile::TempDir,
    process: Child,
    bridge: String,
}

impl Containerd {
    fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("containerd needs root");
            return None;
        }
        for tool in [
            "containerd",
            "ctr",
            "runc",
            "umoci",
            "/bin/busybox",
            "/usr/lib/cni/bridge",
        ] {
            let found = Path::new(tool).exists() || run("sh", &["-c", &format!("command -v {tool}")]).is_ok();
            if !found {
                skip(&format!(
                    "{tool} is not installed (apt-get install containerd runc umoci busybox-static containernetworking-plugins)"
                ));
                return None;
            }
        }
        // /var/tmp is seldom on the overlay that tests in containers have as /tmp and /.
        let dir = tempfile::Builder::new()
            .prefix("pilotis-cri")
            .tempdir_in("/var/tmp")
            .expect("a folder");
        let bridge = format!("plt{}", std::process::id() % 100_000);
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        std::fs::create_dir_all(at("cni")).expect("a folder");
        let net = json!({
            "cniVersion": "0.4.0", "name": "pilotis-test",
            "plugins": [{
                "type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false,
                "ipam": {"type": "host-local", "dataDir": at("ipam"),
                    "ranges": [[{"subnet": format!("10.{}.{}.0/24", 90 + std::process::id() % 100, std::process::id() / 100 % 256)}]],
                    "routes": [{"dst": "0.0.0.0/0"}]},
            }],
        });
        std::fs::write(dir.path().join("cni/10-test.conflist"), net.to_string()).expect("written");
        let config = format!(
            r#"
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
            root = at("root"),
            state = at("state"),
            socket = at("c.sock"),
            opt = at("opt"),
            cni = at("cni"),
        );
        std::fs::write(dir.path().join("config.toml"), config).expect("written");
        let log = std::fs::File::create(dir.path().join("containerd.log")).expect("a file");
        let process = Command::new("containerd")
            .args(["--config", &at("config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let held = Self { dir, process, bridge };
        let begun = std::time::Instant::now();
        while held.ctr(&["version"]).is_err() {
            if begun.elapsed() > Duration::from_secs(30) {
                skip(&format!("containerd does not come up here: {}", held.log()));
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        held.import_busybox();
        Some(held)
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("containerd.log")).unwrap_or_default();
        text.lines().rev().take(5).collect::<Vec<_>>().join(" | ")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    fn ctr(&self, args: &[&str]) -> Result<String, String> {
        let socket = self.socket();
        run(
            "ctr",
            &[&["--address", socket.to_str().unwrap(), "--namespace", "k8s.io"], args].concat(),
        )
    }

    /// One static binary and links to it. `pause` is its `sleep`.
    fn import_busybox(&self) {
        let at = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        let (layout, tag, bundle) = (at("oci"), at("oci") + ":1", at("bundle"));
        let must =
            |program: &str, args: &[&str]| run(program, args).unwrap_or_else(|e| panic!("{program} {args:?}: {e}"));
        must("umoci", &["init", "--layout", &layout]);
        must("umoci", &["new", "--image", &tag]);
        must("umoci", &["unpack", "--image", &tag, &bundle]);
        let root = Path::new(&bundle).join("rootfs");
        for folder in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
        for name in [
            "sh", "sleep", "cat", "echo", "httpd", "ls", "env", "tr", "dd", "id", "hostname", "wget",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
        must("umoci", &["repack", "--image", &tag, &bundle]);
        must(
            "umoci",
            &[
                "config",
                "--image",
                &tag,
                "--config.entrypoint",
                "/bin/sleep",
                "--config.cmd",
                "2147483647",
                "--config.env",
                "PATH=/bin",
            ],
        );
        must("tar", &["-C", &layout, "-cf", &at("image.tar"), "."]);
        self.ctr(&[
            "images",
            "import",
            "--snapshotter",
            "native",
            "--base-name",
            "pilotis.test/busybox",
            &at("image.tar"),
        ])
        .expect("the image is imported");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Containers that a failed test left: by name, through containerd itself.
        for id in self.ctr(&["tasks", "list", "-q"]).unwrap_or_default().lines() {
            let _ = self.ctr(&["tasks", "kill", "-s", "SIGKILL", id]);
        }
        for id in self.ctr(&["containers", "list", "-q"]).unwrap_or_default().lines() {
            let _ = self.ctr(&["tasks", "delete", "-f", id]);
            let _ = self.ctr(&["containers", "delete", id]);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let prefix = self.dir.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines().rev() {
            if let Some(path) = line.split(' ').nth(1).filter(|p| p.starts_with(&prefix)) {
                let _ = run("umount", &["-l", path]);
            }
        }
        let _ = run("ip", &["link", "delete", &self.bridge]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn shell(script: &str) -> Value {
    json!({"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script]})
}

async fn exec(node: &TestNode, pod: &str, command: &[&str], input: &str, tty: bool) -> (i32, String, String) {
    let request = ExecRequest {
        command: command.iter().map(|s| (*s).into()).collect(),
        stdin: !input.is_empty(),
        stdout: true,
        stderr: !tty,
        tty,
    };
    let session = node
        .streams
        .exec(&node.container(pod, "c"), &request)
        .await
        .expect("it starts");
    let Session {
        stdin,
        mut stdout,
        mut stderr,
        resize,
        exit,
    } = session;
    if tty {
        resize
            .send(TerminalSize { width: 80, height: 25 })
            .await
            .expect("it listens");
    }
    if !input.is_empty() {
        stdin
            .send(Bytes::copy_from_slice(input.as_bytes()))
            .await
            .expect("it listens");
    }
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
    drop(stdin);
    let code = exit.await.expect("it ends").expect("it ran");
    (
        code,
        String::from_utf8_lossy(&out).into_owned(),
        String::from_utf8_lossy(&err).into_owned(),
    )
}

/// One containerd for all: starting it costs seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_containerd() {
    let Some(containerd) = tokio::task::spawn_blocking(Containerd::start).await.unwrap() else {
        return;
    };
    let kubelet = tempfile::tempdir().expect("a folder");
    let runtime: Arc<dyn Runtime> = Arc::new(CriRuntime::new(containerd.socket(), "n1").unwrap());
    let mut node = TestNode::start(kubelet.path().join("kubelet"), Fake::new(), runtime);
    server(&node, &containerd).await;
    restarts_and_limits(&node).await;
    volumes_and_logs(&node).await;
    taken_up_again(&mut node, &containerd).await;
    node.halt().await;
    let left = containerd.ctr(&["containers", "list", "-q"]).unwrap();
    let whose: Vec<String> = left
        .lines()
        .map(|id| containerd.ctr(&["containers", "info", id]).unwrap_or_default())
        .collect();
    let whose: Vec<&str> = whose
        .iter()
        .flat_map(|i| i.lines())
        .filter(|l| l.contains("io.kubernetes"))
        .collect();
    assert!(left.is_empty(), "containers are left: {whose:#?}");
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
    let port = node.streams.port_forward(&node.container("web", "c"), 8080).await;
    assert!(
        port.is_ok(),
        "{}",
        port.err().map(|e| e.to_string()).unwrap_or_default()
    );
    // A change of the ConfigMap is seen by the server without a restart.
    node.fake.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"index.html": "changed\n"}}));
    eventually("the change is served", async || {
        exec(node, "web", &["cat", "/www/index.html"], "", false).await.1 == "changed\n"
    })
    .await;
    // Killed behind our back: found, told and started again.
    let id = node.status("web")["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap()
        .trim_start_matches("containerd://")
        .to_owned();
    containerd
        .ctr(&["tasks", "kill", "-s", "SIGKILL", &id])
        .expect("killed");
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

async fn taken_up_again(node: &mut TestNode, containerd: &Containerd) {
    node.put(
        "p",
        json!({"containers": [shell("sleep 3600")], "terminationGracePeriodSeconds": 0}),
    );
    node.until_running("p").await;
    let before = node.status("p");
    node.halt().await;
    node.runtime = Arc::new(CriRuntime::new(containerd.socket(), "n1").unwrap());
    node.streams = kubelet::streams(&node.config, node.runtime.clone());
    node.resume();
    node.put(
        "q",
        json!({"containers": [shell("sleep 3600")], "terminationGracePeriodSeconds": 0}),
    );
    node.until_running("q").await;
    assert_eq!(node.status("p")["containerStatuses"], before["containerStatuses"]);
    for name in ["p", "q"] {
        node.delete(name, 0);
        node.until_gone(name).await;
    }
}
