//! A real etcd for one test or bench, in a directory and on ports of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct EtcdServer {
    child: Child,
    pub endpoint: String,
    port: u16,
}

impl EtcdServer {
    /// Starts Debian's etcd with its data in `dir`; `None`, with a line that says so, where there is none.
    pub fn start(dir: &Path) -> Option<Self> {
        // Another process may take a port between our finding it and etcd's binding it: then try others.
        for _ in 0..5 {
            let (client, peer) = (free_port(), free_port());
            let (client_url, peer_url) = (
                format!("http://127.0.0.1:{client}"),
                format!("http://127.0.0.1:{peer}"),
            );
            let command = Command::new("etcd")
                .args(["--name", "test", "--log-level", "error"])
                .arg("--data-dir")
                .arg(dir)
                .args([
                    "--listen-client-urls",
                    &client_url,
                    "--advertise-client-urls",
                    &client_url,
                ])
                .args([
                    "--listen-peer-urls",
                    &peer_url,
                    "--initial-advertise-peer-urls",
                    &peer_url,
                ])
                .args(["--initial-cluster", &format!("test={peer_url}")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(child) = command else {
                eprintln!("skipped: etcd is not installed (apt-get install etcd-server)");
                return None;
            };
            let mut server = Self {
                child,
                endpoint: client_url,
                port: client,
            };
            if server.is_ready() {
                return Some(server);
            }
        }
        panic!("etcd does not start in {}", dir.display());
    }

    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.child.try_wait().expect("our own child").is_some() {
                return false;
            }
            if self
                .get("/health")
                .is_some_and(|body| body.contains("true"))
            {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// The answer to a plain request, head and all: `/health`, `/metrics`.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
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

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
