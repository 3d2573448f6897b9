//! A real etcd for one test or bench, in a directory and on ports of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct EtcdServer {
    arguments: Vec<String>,
    child: Child,
    pub endpoint: String,
    /// Where it tells of itself, without TLS.
    metrics: u16,
}

impl EtcdServer {
    /// Starts Debian's etcd with its data in `dir`; `None`, with a line that says so, where there is none.
    pub fn start(dir: &Path) -> Option<Self> {
        Self::start_with(dir, "http", &[])
    }

    pub fn start_with(dir: &Path, scheme: &str, more: &[String]) -> Option<Self> {
        // Another process may take a port between our finding it and etcd's binding it: then try others.
        for _ in 0..5 {
            let metrics = free_port();
            let endpoint = format!("{scheme}://127.0.0.1:{}", free_port());
            let (peer, metrics_url) = (
                format!("http://127.0.0.1:{}", free_port()),
                format!("http://127.0.0.1:{metrics}"),
            );
            let mut arguments = vec![
                "--name=test".to_owned(),
                "--log-level=error".to_owned(),
                format!("--data-dir={}", dir.display()),
                format!("--listen-client-urls={endpoint}"),
                format!("--advertise-client-urls={endpoint}"),
                format!("--listen-metrics-urls={metrics_url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=test={peer}"),
            ];
            arguments.extend_from_slice(more);
            let Ok(child) = spawn(&arguments) else {
                eprintln!("skipped: etcd is not installed (apt-get install etcd-server)");
                return None;
            };
            let mut server = Self {
                arguments,
                child,
                endpoint,
                metrics,
            };
            if server.is_ready() {
                return Some(server);
            }
        }
        panic!("etcd does not start in {}", dir.display());
    }

    /// Kills it and starts it again as it was.
    #[allow(dead_code, reason = "the bench includes this file and restarts nothing")]
    pub fn restart(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
        self.child = spawn(&self.arguments).expect("it was there before");
        assert!(self.is_ready(), "etcd does not come back");
    }

    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.child.try_wait().expect("our own child").is_some() {
                return false;
            }
            if self.get("/health").is_some_and(|body| body.contains("true")) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// The answer to a plain request, head and all: `/health`, `/metrics`.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String]) -> std::io::Result<Child> {
    Command::new("etcd")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
