//! Logs and commands in containers, through real kubectl, to a node that is a stand-in.

use std::sync::{Arc, Mutex};

use api::Nodes;
use async_trait::async_trait;
use bytes::Bytes;
use client::node::{ContainerRef, Duplex, ExecRequest, LogOptions, LogStream, NodeStreams, SESSION_BUFFER, Session};
use futures::StreamExt;
use model::Failure;
use tokio::sync::{mpsc, oneshot};

use crate::support::{TestCluster, kubectl, kubectls};

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
        Err(Failure::BadRequest(format!("nobody listens on port {port}")))
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
        let run =
            async |input: &str, line: &str| kubectl(program, &admin, input, &line.split(' ').collect::<Vec<_>>()).await;
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
        if version.as_str() < "1.30" {
            // SPDY comes with the next issue; until then they are told what to do.
            assert!(
                !echoed.ok && echoed.err.contains("kubectl 1.30 or newer"),
                "{version}: {}{}",
                echoed.out,
                echoed.err
            );
            continue;
        }
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
