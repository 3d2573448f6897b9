//! Logs and commands in containers, through real kubectl, to a node that is a stand-in.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use client::node::{
    ContainerRef, Duplex, ExecRequest, LogOptions, LogStream, NodeStreams, Nodes, Page, SESSION_BUFFER, Session,
};
use futures::StreamExt;
use model::Failure;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::support::{TestCluster, kubectl, kubectl_running, kubectls};

/// The pod's one port: it answers with all that it was sent, the last byte first.
const ECHO: u16 = 80;

/// The pod's page: it answers with the head of the request that it was sent.
const PAGE: u16 = 8080;

fn page() -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(far.read_u8().await.unwrap());
        }
        let length = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        far.write_all(&[answer.as_bytes(), &head].concat()).await.unwrap();
    });
    near
}

/// Knows a few commands: `cat`, `fail CODE`, `both`; remembers what it was asked.
#[derive(Default)]
struct FakeNode {
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl NodeStreams for FakeNode {
    async fn logs(&self, of: &ContainerRef, options: &LogOptions) -> Result<LogStream, Failure> {
        self.asked
            .lock()
            .unwrap()
            .push(format!("logs {} {options:?}", of.container));
        let lines = ["first line\n", "second line\n"].map(|line| Ok(Bytes::from_static(line.as_bytes())));
        Ok(futures::stream::iter(lines).boxed())
    }

    async fn exec(&self, of: &ContainerRef, request: &ExecRequest) -> Result<Session, Failure> {
        let command: Vec<&str> = request.command.iter().map(String::as_str).collect();
        self.asked
            .lock()
            .unwrap()
            .push(format!("exec {} {}", of.container, command.join(" ")));
        let (stdin, mut input) = mpsc::channel::<Bytes>(SESSION_BUFFER);
        let (output, stdout) = mpsc::channel(SESSION_BUFFER);
        let (errors, stderr) = mpsc::channel(SESSION_BUFFER);
        let (resize, _) = mpsc::channel(1);
        let (end, exit) = oneshot::channel();
        match command[..] {
            ["cat"] => {
                tokio::spawn(async move {
                    while let Some(data) = input.recv().await {
                        output.send(data).await.unwrap();
                    }
                    drop((output, errors));
                    end.send(Ok(0)).unwrap();
                });
            }
            ["both"] => {
                tokio::spawn(async move {
                    output.send(Bytes::from_static(b"to out")).await.unwrap();
                    errors.send(Bytes::from_static(b"to err")).await.unwrap();
                    drop((output, errors));
                    end.send(Ok(0)).unwrap();
                });
            }
            ["fail", code] => end.send(Ok(code.parse().unwrap())).unwrap(),
            _ => {
                return Err(Failure::BadRequest(format!("no such program: {}", command.join(" "))));
            }
        }
        Ok(Session {
            stdin,
            stdout,
            stderr,
            resize,
            exit,
        })
    }

    async fn attach(&self, of: &ContainerRef, _: &ExecRequest) -> Result<Session, Failure> {
        self.exec(
            of,
            &ExecRequest {
                command: vec!["both".into()],
                ..ExecRequest::default()
            },
        )
        .await
    }

    async fn port_forward(&self, _: &ContainerRef, port: u16) -> Result<Box<dyn Duplex>, Failure> {
        if port == PAGE {
            return Ok(Box::new(page()));
        }
        if port != ECHO {
            return Err(Failure::BadRequest(format!("nobody listens on port {port}")));
        }
        let (near, mut far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all.reverse();
            far.write_all(&all).await.unwrap();
        });
        Ok(Box::new(near))
    }

    async fn page(&self, path: &str) -> Result<Page, Failure> {
        if path == "/logs/" {
            return Err(Failure::NoSuchResource { asked: path.into() });
        }
        Ok(Page::json(&path.into()))
    }
}

struct OneNode(Arc<FakeNode>);

impl Nodes for OneNode {
    fn streams(&self, node: &str) -> Option<Arc<dyn NodeStreams>> {
        (node == "n1").then(|| self.0.clone() as Arc<dyn NodeStreams>)
    }
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: n1
  containers:
  - {name: main, image: example.com/web:1}
  - {name: side, image: example.com/side:1}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_logs_and_runs_commands() {
    let found = kubectls();
    if found.is_empty() {
        eprintln!("skipped: no kubectl of a known version on this machine");
        return;
    }
    let node = Arc::new(FakeNode::default());
    let cluster = TestCluster::start_with(|config| config.nodes = Arc::new(OneNode(node.clone()))).await;
    let admin = cluster.config_of("admin");
    let made = kubectl(&found[0].1, &admin, POD, &["create", "--validate=false", "-f", "-"]).await;
    assert!(made.ok, "{}", made.err);
    for (version, program) in &found {
        eprintln!("kubectl {version}");
        let run = async |input: &str, line: &str| loop {
            let ran = kubectl(program, &admin, input, &line.split(' ').collect::<Vec<_>>()).await;
            // client-go reads before it has made its streams, and drops what a program as quick as this one said by then.
            if !ran.err.contains("Unknown stream id") {
                return ran;
            }
        };
        let logs = run("", "logs web -c main --tail=5 --timestamps").await;
        assert_eq!(logs.out, "first line\nsecond line\n", "{version}: {}", logs.err);
        let asked = node.asked.lock().unwrap().pop().unwrap();
        assert!(
            asked.starts_with("logs main")
                && asked.contains("timestamps: true")
                && asked.contains("tail_lines: Some(5)"),
            "{asked}"
        );

        let echoed = run("hello\nthere\n", "exec -i web -c side -- cat").await;
        assert!(echoed.ok, "{version}: {}", echoed.err);
        assert_eq!(echoed.out, "hello\nthere\n", "{version}");
        assert_eq!(node.asked.lock().unwrap().pop().unwrap(), "exec side cat");
        let both = run("", "exec web -c main -- both").await;
        assert_eq!(
            (both.ok, both.out.as_str(), both.err.as_str()),
            (true, "to out", "to err"),
            "{version}"
        );
        let failed = run("", "exec web -c main -- fail 3").await;
        assert!(
            !failed.ok && failed.err.contains("exit code 3"),
            "{version}: {}",
            failed.err
        );
        let unknown = run("", "exec web -c main -- nothing").await;
        assert!(
            !unknown.ok && unknown.err.contains("no such program: nothing"),
            "{version}: {}",
            unknown.err
        );
        let attached = run("", "attach web -c main").await;
        assert_eq!(attached.out, "to out", "{version}: {}", attached.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_forwards_ports() {
    let found = kubectls();
    if found.is_empty() {
        eprintln!("skipped: no kubectl of a known version on this machine");
        return;
    }
    let cluster = TestCluster::start_with(|config| config.nodes = Arc::new(OneNode(Arc::default()))).await;
    let admin = cluster.config_of("admin");
    let newest = &found.last().unwrap().1;
    let made = kubectl(newest, &admin, POD, &["create", "--validate=false", "-f", "-"]).await;
    assert!(made.ok, "{}", made.err);
    let running = r#"{"status":{"phase":"Running"}}"#;
    let patch = [
        "patch",
        "pod",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        running,
    ];
    let patched = kubectl(newest, &admin, "", &patch).await;
    assert!(patched.ok, "{}", patched.err);
    // More than fits into any of the buffers between here and there.
    let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let answer: Vec<u8> = sent.iter().rev().copied().collect();
    for (version, program) in &found {
        eprintln!("kubectl {version}");
        let mut forwarding = kubectl_running(program, &admin, &["port-forward", "pod/web", ":80", ":81"]);
        let mut said = BufReader::new(forwarding.stdout.take().unwrap()).lines();
        let mut complaints = BufReader::new(forwarding.stderr.take().unwrap()).lines();
        let mut port_to = async |to: &str| loop {
            let line = tokio::time::timeout(crate::support::HOUR / 60, said.next_line()).await;
            let line = line
                .expect("kubectl says what it forwards")
                .unwrap()
                .expect("kubectl goes on");
            let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") else {
                continue;
            };
            let (port, target) = rest.split_once(" -> ").unwrap();
            if target == to {
                return port.parse::<u16>().unwrap();
            }
        };
        let (open, closed) = (port_to("80").await, port_to("81").await);
        // Two at once, on one connection of kubectl's.
        let talk = async || {
            let (mut read, mut write) = TcpStream::connect(("127.0.0.1", open)).await.unwrap().into_split();
            let say = async {
                write.write_all(&sent).await.unwrap();
                drop(write);
            };
            let mut heard = Vec::new();
            let (_, hear) = tokio::join!(say, read.read_to_end(&mut heard));
            hear.unwrap();
            assert!(heard == answer, "{version}: {} bytes came back", heard.len());
        };
        tokio::join!(talk(), talk());
        let mut refused = TcpStream::connect(("127.0.0.1", closed)).await.unwrap();
        refused.write_all(b"anyone?").await.unwrap();
        loop {
            let line = tokio::time::timeout(crate::support::HOUR / 60, complaints.next_line()).await;
            let line = line
                .expect("kubectl tells what failed")
                .unwrap()
                .expect("kubectl goes on");
            if line.contains("nobody listens on port 81") {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_passed_on_to_pods_and_services() {
    let node = Arc::new(FakeNode::default());
    let cluster = TestCluster::start_with(|config| config.nodes = Arc::new(OneNode(node.clone()))).await;
    let post = async |path: &str, body: serde_json::Value| {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string())
            .unwrap();
        let answer = cluster.send("admin", request).await;
        assert_eq!(answer.status(), 201, "{}", answer.body());
    };
    let pod: serde_json::Value = serde_yaml_ng::from_str(POD).unwrap();
    post("/api/v1/namespaces/default/pods", pod).await;
    let service = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 8000, "targetPort": 8080}]}});
    post("/api/v1/namespaces/default/services", service).await;
    let slice = serde_json::json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "web"}}],
        "ports": [{"name": "http", "port": 8080}]});
    post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    for (path, code, expected) in [
        ("pods/web:8080/proxy/a%2Fb?x=1", 200, "GET /a%2Fb?x=1"),
        ("services/web:http/proxy/", 200, "GET / "),
        ("services/http:web:8000/proxy/", 200, "GET / "),
        ("pods/web:8080/proxy", 301, ""),
        ("pods/web:81/proxy/", 503, "nobody listens on port 81"),
        ("pods/web/proxy/", 400, "declares no port"),
        ("services/web:other/proxy/", 400, "has no port"),
        ("pods/nobody:80/proxy/", 404, "not found"),
    ] {
        let uri = format!("/api/v1/namespaces/default/{path}");
        let request = http::Request::get(&uri)
            .header("x-mine", "kept")
            .body(String::new())
            .unwrap();
        let answer = cluster.send("admin", request).await;
        assert_eq!(answer.status(), code, "{path}: {}", answer.body());
        assert!(answer.body().contains(expected), "{path}: {}", answer.body());
        if code == 200 {
            assert!(answer.body().contains("x-mine: kept"), "{path}: {}", answer.body());
        }
        if code == 301 {
            assert_eq!(answer.headers()["location"], format!("{uri}/"));
        }
    }
    // Nobody without the right comes through.
    let request = http::Request::get("/api/v1/namespaces/default/pods/web:8080/proxy/")
        .body(String::new())
        .unwrap();
    assert_eq!(cluster.send("", request).await.status(), 403);
}

/// Who asks for another protocol reads the body of a refusal by its length, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handshake_tells_why_in_its_body() {
    let cluster = TestCluster::start_with(|config| config.nodes = Arc::new(OneNode(Arc::default()))).await;
    let pod: serde_json::Value = serde_yaml_ng::from_str(POD).unwrap();
    let request = http::Request::post("/api/v1/namespaces/default/pods")
        .header("content-type", "application/json")
        .body(pod.to_string())
        .unwrap();
    assert_eq!(cluster.send("admin", request).await.status(), 201);
    let websocket = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Protocol: v5.channel.k8s.io,v4.channel.k8s.io\r\n";
    let spdy = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    for (user, asked, code, reason) in [
        (
            "admin",
            "nobody/exec?command=true&stdout=1&container=main",
            404,
            "NotFound",
        ),
        (
            "admin",
            "web/exec?command=true&stdout=1&container=other",
            400,
            "BadRequest",
        ),
        ("admin", "web/exec?stdout=1&container=main", 400, "BadRequest"),
        ("admin", "web/attach?container=main", 400, "BadRequest"),
        // It is not said to run.
        ("admin", "web/portforward?ports=80", 400, "BadRequest"),
        (
            "jane",
            "web/exec?command=true&stdout=1&container=main",
            403,
            "Forbidden",
        ),
    ] {
        for upgrade in [websocket, spdy] {
            let mut wire = BufReader::new(cluster.connect(user).await);
            let request = format!(
                "GET /api/v1/namespaces/default/pods/{asked} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n{upgrade}\r\n"
            );
            wire.write_all(request.as_bytes()).await.unwrap();
            wire.flush().await.unwrap();
            let mut head = Vec::new();
            while head.last().is_none_or(|line: &String| !line.trim().is_empty()) {
                let mut line = String::new();
                wire.read_line(&mut line).await.unwrap();
                head.push(line);
            }
            assert!(head[0].starts_with(&format!("HTTP/1.1 {code} ")), "{asked}: {head:?}");
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.unwrap_or_else(|| panic!("{asked}: {head:?}"));
            let mut body = vec![0; length.trim().parse().unwrap()];
            wire.read_exact(&mut body).await.unwrap();
            let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (&status["kind"], &status["reason"], &status["code"]),
                (&"Status".into(), &reason.into(), &code.into()),
                "{asked}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_pages_are_shown_to_who_may_proxy_to_nodes() {
    let cluster = TestCluster::start_with(|config| config.nodes = Arc::new(OneNode(Arc::default()))).await;
    let send = async |method: &str, path: &str, body: serde_json::Value, content: &str| {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content)
            .body(body.to_string())
            .unwrap();
        let answer = cluster.send("admin", request).await;
        assert!(answer.status().is_success(), "{method} {path}: {}", answer.body());
    };
    let post = async |path: &str, body| send("POST", path, body, "application/json").await;
    for (name, address) in [("n1", "127.0.0.1"), ("elsewhere", "192.0.2.7")] {
        let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        post("/api/v1/nodes", node).await;
        let status = serde_json::json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        let path = format!("/api/v1/nodes/{name}/status");
        send("PATCH", &path, status, "application/merge-patch+json").await;
    }
    let group = "rbac.authorization.k8s.io";
    let role = serde_json::json!({"metadata": {"name": "looks"}, "rules": [
        {"apiGroups": [""], "resources": ["nodes/proxy"], "resourceNames": ["n1"], "verbs": ["get"]}]});
    post(&format!("/apis/{group}/v1/clusterroles"), role).await;
    let binding = serde_json::json!({"metadata": {"name": "looks"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "looks"}});
    post(&format!("/apis/{group}/v1/clusterrolebindings"), binding).await;
    let ask = async |user: &str, method: &str, path: &str| {
        let request = http::Request::builder().method(method);
        let request = request.uri(format!("/api/v1/nodes/{path}")).body(String::new());
        cluster.send(user, request.unwrap()).await
    };
    // Roles are followed: the new one holds a moment after it is made.
    let begun = std::time::Instant::now();
    while ask("jane", "GET", "n1/proxy/healthz").await.status() == 403 {
        assert!(begun.elapsed() < crate::support::HOUR / 60, "the role never holds");
    }
    let logs = "n1/proxy/containerLogs/default/web/main";
    for (user, method, path, code, expected) in [
        ("jane", "GET", "n1/proxy/stats/summary", 200, "/stats/summary"),
        ("admin", "GET", "n1:10250/proxy/pods", 200, "\"/pods\""),
        (
            "admin",
            "GET",
            "https:n1:10250/proxy/running%70ods/",
            200,
            "\"/runningpods/\"",
        ),
        ("admin", "HEAD", "n1/proxy/pods", 200, ""),
        ("admin", "GET", logs, 200, "first line\nsecond line\n"),
        (
            "admin",
            "GET",
            &format!("{logs}?limitBytes=0"),
            422,
            "must be greater than 0",
        ),
        ("admin", "GET", "n1/proxy", 301, ""),
        (
            "admin",
            "GET",
            "n1/proxy/logs/",
            404,
            "could not find the requested resource",
        ),
        ("admin", "GET", "n1:22/proxy/", 400, "address not allowed"),
        ("admin", "GET", "n1:ssh/proxy/", 400, "not a port of node n1"),
        (
            "admin",
            "POST",
            "n1/proxy/run/default/web/main",
            405,
            "does not allow this method",
        ),
        (
            "admin",
            "GET",
            "elsewhere/proxy/pods",
            503,
            "error trying to reach service: no connection to the kubelet of node elsewhere",
        ),
        (
            "admin",
            "GET",
            "nowhere/proxy/pods",
            404,
            "nodes \\\"nowhere\\\" not found",
        ),
        (
            "jane",
            "GET",
            "elsewhere/proxy/pods",
            403,
            "cannot get resource \\\"nodes/proxy\\\"",
        ),
        (
            "jane",
            "POST",
            "n1/proxy/run/default/web/main",
            403,
            "cannot create resource",
        ),
        ("jane", "PUT", "n1/proxy/x", 403, "cannot update resource"),
        ("jane", "PATCH", "n1/proxy/x", 403, "cannot patch resource"),
        ("jane", "DELETE", "n1/proxy/x", 403, "cannot delete resource"),
        ("", "GET", "n1/proxy/healthz", 403, ""),
    ] {
        let answer = ask(user, method, path).await;
        let said = answer.body();
        assert_eq!(answer.status(), code, "{user} {method} {path}: {said}");
        assert!(said.contains(expected), "{user} {method} {path}: {said}");
        if code >= 400 && method != "HEAD" {
            let status: serde_json::Value = serde_json::from_str(said).unwrap();
            assert_eq!(
                (&status["kind"], &status["code"]),
                (&"Status".into(), &code.into()),
                "{path}"
            );
        }
    }
    let discovery = http::Request::get("/api/v1").body(String::new()).unwrap();
    let discovery: serde_json::Value = serde_json::from_str(cluster.send("admin", discovery).await.body()).unwrap();
    let resources = discovery["resources"].as_array().unwrap();
    let door = resources.iter().find(|r| r["name"] == "nodes/proxy").unwrap();
    assert_eq!(
        (&door["kind"], &door["namespaced"]),
        (&"NodeProxyOptions".into(), &false.into())
    );
}
