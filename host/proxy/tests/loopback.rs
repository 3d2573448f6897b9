//! The userspace engine with real sockets on loopback, without any privilege.

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use common::{service, world};
use proxy::userspace::{Settings, Userspace};
use proxy::{Engine, plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);

/// Each test has networks of its own, so that tests can run side by side.
struct Lab {
    engine: Userspace,
    number: u16,
}

impl Lab {
    fn new(settings: Settings) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = (std::process::id() as u16 % 64) * 128 + NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            engine: Userspace::new(settings),
            number,
        }
    }

    /// A cluster IP of this test.
    fn vip(&self) -> String {
        let [high, low] = self.number.to_be_bytes();
        format!("127.96.{high}.{low}")
    }

    fn pod(&self, last: u8) -> String {
        let [high, low] = self.number.to_be_bytes();
        format!("127.{}.{low}.{last}", 128 + high % 64)
    }

    async fn sync(&mut self, text: &str) {
        let plan = Arc::new(plan(&world(text), "node"));
        self.engine
            .sync(&plan)
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    }
}

/// A server that says who it is, then repeats what it hears. Dropping it closes it at once.
struct Pod {
    name: String,
    stop: CancellationToken,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const TARGET: u16 = 18080;

impl Pod {
    async fn start(ip: &str) -> Self {
        let listener = TcpListener::bind((ip, TARGET)).await.unwrap();
        let socket = UdpSocket::bind((ip, TARGET)).await.unwrap();
        let (stop, name) = (CancellationToken::new(), ip.to_owned());
        let (stopped, said) = (stop.clone(), name.clone());
        tokio::spawn(async move {
            let serve = async {
                loop {
                    let Ok((mut stream, _)) = listener.accept().await else {
                        continue;
                    };
                    let said = said.clone();
                    tokio::spawn(async move {
                        stream.write_all(format!("{said}\n").as_bytes()).await?;
                        let (mut from, mut to) = stream.split();
                        tokio::io::copy(&mut from, &mut to).await?;
                        to.shutdown().await
                    });
                }
            };
            let answer = async {
                let mut datagram = [0; 2048];
                loop {
                    let Ok((length, peer)) = socket.recv_from(&mut datagram).await else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
                    let _ = socket.send_to(format!("{said} {text}").as_bytes(), peer).await;
                }
            };
            tokio::select! {
                () = stopped.cancelled() => {}
                () = async { tokio::join!(serve, answer); } => {}
            }
        });
        Self { name, stop }
    }
}

/// Connects, sends, closes its side, and reads all: the first line is who answered.
async fn ask(at: &str, text: &str) -> io::Result<(String, String)> {
    let talk = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        let (who, rest) = said.split_once('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((who.to_owned(), rest.to_owned()))
    };
    tokio::time::timeout(PATIENCE, talk)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

async fn who(at: &str) -> io::Result<String> {
    ask(at, "").await.map(|(who, _)| who)
}

fn refused(result: io::Result<String>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Until `holds`, with a generous limit.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn endpoints_take_turns_and_bytes_pass_both_ways() {
    let mut lab = Lab::new(Settings::default());
    let pods = [Pod::start(&lab.pod(1)).await, Pod::start(&lab.pod(2)).await];
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{port: 8000}}]}}");
    lab.sync(&service("web", &spec, TARGET, &[&pods[0].name, &pods[1].name]))
        .await;
    let at = format!("{vip}:8000");
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..4 {
        seen.push(who(&at).await.unwrap());
    }
    seen.sort();
    assert_eq!(
        seen,
        [&pods[0].name, &pods[0].name, &pods[1].name, &pods[1].name].map(String::as_str)
    );
    let long = "0123456789".repeat(100_000);
    let (_, back) = ask(&at, &long).await.unwrap();
    assert!(back == long, "{} of {} bytes came back", back.len(), long.len());
}

#[tokio::test]
async fn no_endpoint_is_a_refusal_and_the_first_one_ends_it() {
    let mut lab = Lab::new(Settings::default());
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{port: 8000}}]}}");
    let at = format!("{vip}:8000");
    lab.sync(&service("web", &spec, TARGET, &[])).await;
    assert!(refused(who(&at).await));
    let pod = Pod::start(&lab.pod(1)).await;
    lab.sync(&service("web", &spec, TARGET, &[&pod.name])).await;
    assert_eq!(who(&at).await.unwrap(), pod.name);
    lab.sync("").await;
    eventually("the listener is closed", async || refused(who(&at).await)).await;
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let mut lab = Lab::new(Settings::default());
    let pod = Pod::start(&lab.pod(1)).await;
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{port: 8000}}]}}");
    lab.sync(&service("web", &spec, TARGET, &[&pod.name, &lab.pod(7), &lab.pod(8)]))
        .await;
    for _ in 0..9 {
        assert_eq!(who(&format!("{vip}:8000")).await.unwrap(), pod.name);
    }
}

#[tokio::test]
async fn what_runs_may_finish_after_its_endpoint_and_its_service_left() {
    let mut lab = Lab::new(Settings::default());
    let pods = [Pod::start(&lab.pod(1)).await, Pod::start(&lab.pod(2)).await];
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{port: 8000}}]}}");
    lab.sync(&service("web", &spec, TARGET, &[&pods[0].name])).await;
    let mut running = TcpStream::connect(format!("{vip}:8000")).await.unwrap();
    let mut line = vec![0; pods[0].name.len() + 1];
    running.read_exact(&mut line).await.unwrap();
    for text in [service("web", &spec, TARGET, &[&pods[1].name]), String::new()] {
        lab.sync(&text).await;
        running.write_all(b"still here?").await.unwrap();
        let mut back = [0; 11];
        running.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"still here?");
    }
    let again = service("web", &spec, TARGET, &[&pods[1].name]);
    lab.engine.cleanup().await.unwrap();
    let end = running.read(&mut [0; 1]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "the end is the end: {end:?}");
    lab.sync(&again).await;
    assert_eq!(
        who(&format!("{vip}:8000")).await.unwrap(),
        pods[1].name,
        "and may be a beginning"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_fails_no_request() {
    let mut lab = Lab::new(Settings::default());
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{port: 8000}}]}}");
    let mut pods = vec![Pod::start(&lab.pod(1)).await, Pod::start(&lab.pod(2)).await];
    lab.sync(&service("web", &spec, TARGET, &[&pods[0].name, &pods[1].name]))
        .await;
    let stop = CancellationToken::new();
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (at, stop, done) = (format!("{vip}:8000"), stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.is_cancelled() {
                    match ask(&at, "hello").await {
                        Ok((_, text)) if text == "hello" => {}
                        other => failed.push(format!("{other:?}")),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        })
        .collect();
    for round in 3..20 {
        let before = done.load(Ordering::Relaxed);
        eventually("requests go on", async || done.load(Ordering::Relaxed) > before + 10).await;
        // A new pod comes, the oldest leaves the Service, and stops once what was on its way to it is done.
        pods.push(Pod::start(&lab.pod(round)).await);
        let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
        lab.sync(&service("web", &spec, TARGET, &names)).await;
        lab.sync(&service("web", &spec, TARGET, &names[1..])).await;
        let before = done.load(Ordering::Relaxed);
        eventually("requests go on", async || done.load(Ordering::Relaxed) > before + 10).await;
        drop(pods.remove(0));
    }
    stop.cancel();
    for client in clients {
        let failed = client.await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
    }
    eprintln!("{} requests during 17 replaced pods", done.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_client_stays_where_it_was() {
    let mut lab = Lab::new(Settings::default());
    let pods = [Pod::start(&lab.pod(1)).await, Pod::start(&lab.pod(2)).await];
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], sessionAffinity: ClientIP, ports: [{{port: 8000}}]}}");
    lab.sync(&service("web", &spec, TARGET, &[&pods[0].name, &pods[1].name]))
        .await;
    let first = who(&format!("{vip}:8000")).await.unwrap();
    for _ in 0..6 {
        assert_eq!(who(&format!("{vip}:8000")).await.unwrap(), first);
    }
    let other = pods.iter().find(|pod| pod.name != first).unwrap();
    lab.sync(&service("web", &spec, TARGET, &[&other.name])).await;
    assert_eq!(who(&format!("{vip}:8000")).await.unwrap(), other.name);
}

#[tokio::test]
async fn udp_flows_keep_their_endpoint_until_it_leaves() {
    let mut lab = Lab::new(Settings::default());
    let pods = [Pod::start(&lab.pod(1)).await, Pod::start(&lab.pod(2)).await];
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{name: u, port: 5300, protocol: UDP}}]}}");
    lab.sync(&service("dns", &spec, TARGET, &[&pods[0].name, &pods[1].name]))
        .await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(format!("{vip}:5300")).await.unwrap();
    let ask = async |text: &str| {
        let mut answer = [0; 2048];
        // Datagrams may be lost around a change: ask again.
        for _ in 0..5 {
            client.send(text.as_bytes()).await.unwrap();
            if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_secs(2), client.recv(&mut answer)).await {
                let said = String::from_utf8_lossy(&answer[..length]).into_owned();
                return said
                    .split_once(' ')
                    .map(|(who, text)| (who.to_owned(), text.to_owned()))
                    .unwrap();
            }
        }
        panic!("no answer to {text}");
    };
    let (first, text) = ask("one").await;
    assert_eq!(text, "one");
    for _ in 0..5 {
        assert_eq!(ask("again").await.0, first);
    }
    let other = pods.iter().find(|pod| pod.name != first).unwrap();
    lab.sync(&service("dns", &spec, TARGET, &[&other.name])).await;
    assert_eq!(ask("now").await.0, other.name);
    // The largest datagram that loopback carries whole in one piece of ours.
    assert_eq!(ask(&"x".repeat(1400)).await.1.len(), 1400);
}

#[tokio::test]
async fn flows_end_and_make_room() {
    let settings = Settings {
        flows: 1,
        flow_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let mut lab = Lab::new(settings);
    let pod = Pod::start(&lab.pod(1)).await;
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{name: u, port: 5300, protocol: UDP}}]}}");
    lab.sync(&service("dns", &spec, TARGET, &[&pod.name])).await;
    let client = async || {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(format!("{vip}:5300")).await.unwrap();
        socket
    };
    let (first, second) = (client().await, client().await);
    let hears = async |socket: &UdpSocket| {
        socket.send(b"?").await.unwrap();
        tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut [0; 64]))
            .await
            .is_ok()
    };
    eventually("the first is answered", async || hears(&first).await).await;
    eventually(
        "the second gets the place of the first once that is silent",
        async || hears(&second).await,
    )
    .await;
}

#[tokio::test]
async fn node_ports_and_busy_addresses() {
    let mut lab = Lab::new(Settings {
        node_port_addresses: vec![IpAddr::from([127, 0, 0, 1])],
        ..Settings::default()
    });
    let pod = Pod::start(&lab.pod(1)).await;
    let vip = lab.vip();
    // A free port, taken again by the proxy a moment later.
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let spec = format!("{{type: NodePort, clusterIPs: [{vip}], ports: [{{port: 8000, nodePort: {port}}}]}}");
    let blocker = TcpListener::bind(SocketAddr::new(vip.parse().unwrap(), 8000))
        .await
        .unwrap();
    let wanted = Arc::new(plan(&world(&service("web", &spec, TARGET, &[&pod.name])), "node"));
    let error = lab.engine.sync(&wanted).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains(&format!("{vip}:8000/tcp for test/web/tcp/")),
        "{source}"
    );
    assert_eq!(
        who(&format!("127.0.0.1:{port}")).await.unwrap(),
        pod.name,
        "one busy address stops no other"
    );
    drop(blocker);
    lab.engine.sync(&wanted).await.unwrap();
    assert_eq!(who(&format!("{vip}:8000")).await.unwrap(), pod.name);
}

#[tokio::test]
async fn what_cannot_be_served_is_said_and_stops_no_other() {
    let mut lab = Lab::new(Settings::default());
    let pod = Pod::start(&lab.pod(1)).await;
    let vip = lab.vip();
    let spec = format!("{{clusterIPs: [{vip}], ports: [{{port: 8000}}, {{name: s, port: 8001, protocol: SCTP}}]}}");
    let text = service("web", &spec, TARGET, &[&pod.name]);
    let with_sctp = format!("{{name: s, port: {TARGET}, protocol: SCTP}}, {{port: {TARGET}}}");
    lab.sync(&text.replace(&format!("{{port: {TARGET}}}"), &with_sctp))
        .await;
    assert_eq!(who(&format!("{vip}:8000")).await.unwrap(), pod.name);
    let unserved = lab.engine.unserved();
    let [only] = &unserved.iter().collect::<Vec<_>>()[..] else {
        panic!("{unserved:?}")
    };
    assert_eq!((only.namespace.as_str(), only.service.as_str()), ("test", "web"));
    assert!(
        only.why.contains(&format!("{vip}:8001/sctp")) && only.why.contains("TCP and UDP only"),
        "{}",
        only.why
    );
    lab.sync(&text).await;
    assert!(lab.engine.unserved().is_empty(), "mended");
}
