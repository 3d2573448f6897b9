//! The nftables engine on a real kernel: a node, two pods and a client, each in a network namespace of its own.

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{service, world};
use nix::sched::{CloneFlags, setns};
use proxy::nftables::{Nftables, Settings, TABLE};
use proxy::{Engine, plan};

const PATIENCE: Duration = Duration::from_secs(5);
/// How long silence is waited for, where silence is right.
const SHORT: Duration = Duration::from_millis(400);

/// A node that routes between a client and two pods. Its names end with the test's process and a number.
struct Lab {
    suffix: String,
    engine: Nftables,
}

const PLACES: [&str; 4] = ["node", "client", "pod1", "pod2"];
const POD1: &str = "10.77.2.2";
const POD2: &str = "10.77.3.2";
const CLIENT: &str = "10.77.1.2";

impl Lab {
    /// `None`, with the reason on stderr, where namespaces or nftables are not to be had.
    async fn new(settings: Settings) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let suffix = format!("-pp{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let engine = Nftables::new(settings).in_namespace(&format!("node{suffix}"));
        let lab = Self { suffix, engine };
        for place in PLACES {
            if let Err(why) = lab.ip(&format!("netns add {}", lab.name(place))) {
                eprintln!("skipped: no network namespaces here: {why}");
                return None;
            }
            lab.ip_in(place, "link set lo up");
        }
        for (i, place) in PLACES.iter().enumerate().skip(1) {
            let (node, peer) = (lab.name("node"), lab.name(place));
            lab.ip(&format!(
                "-n {node} link add to-{place} type veth peer name eth0 netns {peer}"
            ))
            .unwrap();
            for (at, device, last) in [("node", format!("to-{place}"), 1), (*place, "eth0".to_owned(), 2)] {
                lab.ip_in(at, &format!("addr add 10.77.{i}.{last}/24 dev {device}"));
                lab.ip_in(at, &format!("addr add fd77:{i}::{last}/64 dev {device} nodad"));
                lab.ip_in(at, &format!("link set {device} up"));
            }
            lab.ip_in(place, &format!("route add default via 10.77.{i}.1"));
            lab.ip_in(place, &format!("route add default via fd77:{i}::1"));
        }
        lab.ip_in("node", &format!("route add default via {CLIENT}"));
        lab.ip_in("node", "route add default via fd77:1::2");
        lab.inside("node", || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        if let Err(why) = lab.engine.check().await {
            eprintln!("skipped: {why}: {:?}", std::error::Error::source(&why));
            return None;
        }
        for place in ["pod1", "pod2"] {
            lab.serve(place);
        }
        Some(lab)
    }

    fn name(&self, place: &str) -> String {
        format!("{place}{}", self.suffix)
    }

    fn ip(&self, words: &str) -> Result<(), String> {
        let output = Command::new("ip")
            .args(words.split(' '))
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn ip_in(&self, place: &str, words: &str) {
        self.ip(&format!("-n {} {words}", self.name(place)))
            .unwrap_or_else(|why| panic!("{words}: {why}"));
    }

    /// Runs `work` on a thread that lives in a place's network.
    fn inside<T: Send + 'static>(&self, place: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name(place))).unwrap();
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// TCP and UDP on port 8080: answers with the place's name and the address it sees.
    fn serve(&self, place: &'static str) {
        self.inside(place, move || {
            let listener = TcpListener::bind("[::]:8080").unwrap();
            let socket = UdpSocket::bind("[::]:8080").unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { continue };
                    let seen = stream
                        .peer_addr()
                        .map_or(String::new(), |peer| peer.ip().to_canonical().to_string());
                    let _ = write!(stream, "{place} {seen}");
                }
            });
            std::thread::spawn(move || {
                let mut datagram = [0; 64];
                while let Ok((_, peer)) = socket.recv_from(&mut datagram) {
                    let _ = socket.send_to(place.as_bytes(), peer);
                }
            });
        });
    }

    async fn sync(&mut self, text: &str) {
        self.engine
            .sync(&Arc::new(plan(&world(text), "node")))
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{text}", std::error::Error::source(&error)));
    }

    /// What a TCP client in `place` hears from `at`.
    fn ask(&self, place: &str, at: &str) -> io::Result<String> {
        self.ask_within(place, at, PATIENCE)
    }

    fn ask_within(&self, place: &str, at: &str, patience: Duration) -> io::Result<String> {
        let at: SocketAddr = at.parse().unwrap();
        self.inside(place, move || {
            let mut stream = TcpStream::connect_timeout(&at, patience)?;
            stream.set_read_timeout(Some(patience))?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        })
    }

    /// Who answers `times` connections.
    fn ask_often(&self, place: &str, at: &str, times: usize) -> Vec<String> {
        let mut all: Vec<String> = (0..times)
            .map(|_| {
                self.ask(place, at)
                    .unwrap_or_else(|error| panic!("{place} to {at}: {error}"))
            })
            .map(|said| said.split(' ').next().unwrap().to_owned())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// Sends from one socket, so that it is one flow.
    fn udp(&self, place: &str) -> UdpSocket {
        self.inside(place, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    }

    /// The table as the kernel shows it, without what is only in the kernel (handles).
    fn table(&self, family: &str) -> Vec<String> {
        let command = format!("netns exec {} nft -j list table {family} {TABLE}", self.name("node"));
        let output = Command::new("ip").args(command.split(' ')).output().unwrap();
        let Ok(listing) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
            return Vec::new();
        };
        let mut objects: Vec<String> = Vec::new();
        let mut rules: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        for object in listing["nftables"].as_array().unwrap() {
            let mut object = object.clone();
            for inner in object.as_object_mut().unwrap().values_mut() {
                inner.as_object_mut().unwrap().remove("handle");
                if let Some(elements) = inner.get_mut("elem").and_then(serde_json::Value::as_array_mut) {
                    elements.sort_by_key(ToString::to_string);
                }
            }
            match object.get("rule") {
                Some(rule) => rules
                    .entry(rule["chain"].to_string())
                    .or_default()
                    .push(rule["expr"].to_string()),
                None => objects.push(object.to_string()),
            }
        }
        objects.extend(
            rules
                .into_iter()
                .map(|(chain, rules)| format!("{chain}: {}", rules.join("\n  "))),
        );
        objects.sort();
        objects
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for place in PLACES {
            let _ = self.ip(&format!("netns del {}", self.name(place)));
        }
    }
}

fn udp_ask(socket: &UdpSocket, at: &str) -> io::Result<String> {
    let mut answer = [0; 64];
    socket.send_to(b"?", at)?;
    let (length, from) = socket.recv_from(&mut answer)?;
    assert_eq!(
        from,
        at.parse().unwrap(),
        "an answer comes from where the question went"
    );
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn refused(result: io::Result<String>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

fn silent(result: io::Result<String>) -> bool {
    matches!(result, Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
}

const PODS: [&str; 2] = ["10.77.2.0/24", "10.77.3.0/24"];

fn with_pods() -> Settings {
    Settings {
        pod_cidrs: PODS.iter().map(|net| net.parse().unwrap()).collect(),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_cluster_ip_leads_to_every_endpoint_from_everywhere() {
    let Some(mut lab) = Lab::new(with_pods()).await else {
        return;
    };
    lab.sync(&service(
        "web",
        "{clusterIPs: [10.96.0.10], ports: [{port: 80}]}",
        8080,
        &[POD1, POD2],
    ))
    .await;
    // 30 connections that all land on one of two: once in 10⁹.
    for place in ["client", "node", "pod1"] {
        assert_eq!(
            lab.ask_often(place, "10.96.0.10:80", 30),
            ["pod1", "pod2"],
            "from {place}"
        );
    }
    assert!(
        refused(lab.ask("client", "10.96.0.10:81")),
        "a port the Service does not have"
    );
    assert!(refused(lab.ask("node", "10.96.0.10:81")));
    // A pod sees another pod as it is, and an outsider as the node.
    lab.sync(&service(
        "web",
        "{clusterIPs: [10.96.0.10], ports: [{port: 80}]}",
        8080,
        &[POD2],
    ))
    .await;
    assert_eq!(lab.ask("pod1", "10.96.0.10:80").unwrap(), format!("pod2 {POD1}"));
    assert_eq!(lab.ask("client", "10.96.0.10:80").unwrap(), "pod2 10.77.3.1");
    // A pod that meets itself must see the node, or it would answer past it.
    assert_eq!(lab.ask("pod2", "10.96.0.10:80").unwrap(), "pod2 10.77.3.1");
}

#[tokio::test]
async fn node_ports_external_addresses_and_ipv6_work() {
    let Some(mut lab) = Lab::new(Settings::default()).await else {
        return;
    };
    let spec =
        "{type: NodePort, clusterIPs: [10.96.0.10], externalIPs: [192.0.2.7], ports: [{port: 80, nodePort: 30080}]}";
    let v6 =
        "{type: NodePort, clusterIPs: [\"fd96::10\"], sessionAffinity: ClientIP, ports: [{port: 80, nodePort: 30086}]}";
    let both = service("web", spec, 8080, &[POD1, POD2]) + &service("six", v6, 8080, &["fd77:2::2", "fd77:3::2"]);
    lab.sync(&both).await;
    for at in ["10.77.1.1:30080", "192.0.2.7:80"] {
        assert_eq!(lab.ask_often("client", at, 30), ["pod1", "pod2"], "at {at}");
    }
    assert_eq!(
        lab.ask_often("node", "10.77.2.1:30080", 30),
        ["pod1", "pod2"],
        "on any address of the node"
    );
    assert!(
        refused(lab.ask("client", "10.77.1.1:30081")),
        "other ports are the node's own"
    );
    for at in ["[fd96::10]:80", "[fd77:1::1]:30086"] {
        assert_eq!(lab.ask_often("client", at, 8).len(), 1, "sticky at {at}");
    }
}

#[tokio::test]
async fn a_service_without_endpoints_refuses_at_once() {
    let Some(mut lab) = Lab::new(Settings::default()).await else {
        return;
    };
    let spec = "{type: NodePort, clusterIPs: [10.96.0.10], externalIPs: [192.0.2.7],
                 ports: [{port: 80, nodePort: 30080}, {name: u, port: 80, protocol: UDP}]}";
    lab.sync(&service("web", spec, 8080, &[])).await;
    for (place, at) in [
        ("client", "10.96.0.10:80"),
        ("node", "10.96.0.10:80"),
        ("pod1", "10.96.0.10:80"),
        ("client", "10.77.1.1:30080"),
        ("client", "192.0.2.7:80"),
    ] {
        let start = Instant::now();
        assert!(refused(lab.ask(place, at)), "{place} to {at}");
        assert!(start.elapsed() < Duration::from_secs(1), "{place} to {at} waited");
    }
    let socket = lab.udp("client");
    socket.connect("10.96.0.10:80").unwrap();
    socket.send(b"?").unwrap();
    assert_eq!(
        socket.recv(&mut [0; 8]).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    // And serves again as soon as there is one.
    lab.sync(&service("web", spec, 8080, &[POD1])).await;
    assert_eq!(lab.ask_often("client", "10.96.0.10:80", 3), ["pod1"]);
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_until_that_leaves() {
    let Some(mut lab) = Lab::new(Settings::default()).await else {
        return;
    };
    let spec = "{clusterIPs: [10.96.0.10], sessionAffinity: ClientIP, ports: [{port: 80}]}";
    let other = service(
        "other",
        "{clusterIPs: [10.96.0.11], ports: [{port: 80}]}",
        8080,
        &[POD1],
    );
    lab.sync(&service("web", spec, 8080, &[POD1, POD2])).await;
    let first = lab.ask_often("client", "10.96.0.10:80", 12);
    assert_eq!(first.len(), 1, "{first:?}");
    // A change elsewhere does not make the kernel forget.
    lab.sync(&(service("web", spec, 8080, &[POD1, POD2]) + &other)).await;
    assert_eq!(lab.ask_often("client", "10.96.0.10:80", 12), first);
    let (left, stays) = if first == ["pod1"] {
        (POD2, "pod2")
    } else {
        (POD1, "pod1")
    };
    lab.sync(&(service("web", spec, 8080, &[left]) + &other)).await;
    assert_eq!(lab.ask_often("client", "10.96.0.10:80", 4), [stays]);
    lab.sync(&(service("web", spec, 8080, &[POD1, POD2]) + &other)).await;
    assert_eq!(
        lab.ask_often("client", "10.96.0.10:80", 12),
        [stays],
        "remembered for the new one"
    );
}

#[tokio::test]
async fn local_policies_and_source_ranges_hold() {
    let Some(mut lab) = Lab::new(with_pods()).await else {
        return;
    };
    let local = "{type: LoadBalancer, externalTrafficPolicy: Local, internalTrafficPolicy: Local,
                  clusterIPs: [10.96.0.10], ports: [{port: 80, nodePort: 30080}]}";
    lab.sync(&service("web", local, 8080, &[POD1])).await;
    assert_eq!(
        lab.ask("client", "10.77.1.1:30080").unwrap(),
        format!("pod1 {CLIENT}"),
        "the source is kept"
    );
    // The same endpoints, all on another node.
    let away = service("web", local, 8080, &[POD1]).replace("nodeName: node", "nodeName: elsewhere");
    lab.sync(&away).await;
    assert!(
        silent(lab.ask_within("client", "10.77.1.1:30080", SHORT)),
        "outsiders are dropped"
    );
    assert!(
        silent(lab.ask_within("pod2", "10.96.0.10:80", SHORT)),
        "so are insiders"
    );
    assert_eq!(
        lab.ask_often("node", "10.77.1.1:30080", 2),
        ["pod1"],
        "the node itself is no outsider"
    );
    assert_eq!(lab.ask_often("pod2", "10.77.3.1:30080", 2), ["pod1"], "nor is a pod");

    let ranged = |range: &str| {
        let spec = format!(
            "{{type: LoadBalancer, clusterIPs: [10.96.0.10], loadBalancerSourceRanges: [{range}], ports: [{{port: 80}}]}}\n\
             status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.9}}]}}}}"
        );
        service("web", &spec, 8080, &[POD1])
    };
    lab.sync(&ranged("10.77.1.0/24")).await;
    assert_eq!(lab.ask_often("client", "192.0.2.9:80", 2), ["pod1"]);
    assert!(
        silent(lab.ask_within("pod2", "192.0.2.9:80", SHORT)),
        "not in the range"
    );
    lab.sync(&ranged("10.77.3.0/24")).await;
    assert!(silent(lab.ask_within("client", "192.0.2.9:80", SHORT)));
    assert_eq!(
        lab.ask_often("client", "10.96.0.10:80", 2),
        ["pod1"],
        "the cluster IP is open to all"
    );
}

#[tokio::test]
async fn a_udp_flow_leaves_an_endpoint_that_left() {
    let Some(mut lab) = Lab::new(Settings::default()).await else {
        return;
    };
    if Command::new("conntrack").arg("--version").output().is_err() {
        eprintln!("skipped: the conntrack tool is not installed");
        return;
    }
    let spec = "{clusterIPs: [10.96.0.10], ports: [{name: u, port: 53, protocol: UDP}]}";
    lab.sync(&service("dns", spec, 8080, &[POD1])).await;
    let socket = lab.udp("client");
    assert_eq!(udp_ask(&socket, "10.96.0.10:53").unwrap(), "pod1");
    lab.sync(&service("dns", spec, 8080, &[POD2])).await;
    assert_eq!(
        udp_ask(&socket, "10.96.0.10:53").unwrap(),
        "pod2",
        "the same flow, from the same port"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_rules_change() {
    let Some(mut lab) = Lab::new(Settings::default()).await else {
        return;
    };
    let spec = "{type: NodePort, clusterIPs: [10.96.0.10], ports: [{port: 80, nodePort: 30080}]}";
    lab.sync(&service("web", spec, 8080, &[POD1])).await;
    let stop = Arc::new(AtomicBool::new(false));
    let namespace = std::fs::File::open(format!("/run/netns/{}", lab.name("client"))).unwrap();
    let stopped = stop.clone();
    let client = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let (mut done, mut failed) = (0, Vec::new());
        while !stopped.load(Ordering::Relaxed) && done < 20_000 {
            for at in ["10.96.0.10:80", "10.77.1.1:30080"] {
                let at: SocketAddr = at.parse().unwrap();
                let mut said = String::new();
                let result = TcpStream::connect_timeout(&at, PATIENCE).and_then(|mut s| s.read_to_string(&mut said));
                done += 1;
                failed.extend(result.err().map(|error| format!("request {done} to {at}: {error}")));
            }
        }
        (done, failed)
    });
    for round in 0..60 {
        let endpoints: &[&str] = [&[POD1][..], &[POD1, POD2], &[POD2]][round % 3];
        let affinity = if round % 4 == 3 {
            "sessionAffinity: ClientIP, "
        } else {
            ""
        };
        let spec = spec.replace("ports:", &format!("{affinity}ports:"));
        lab.sync(&service("web", &spec, 8080, endpoints)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (done, failed) = client.join().unwrap();
    eprintln!("{done} requests during 60 changes");
    assert!(done > 20, "the loop ran");
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn changes_one_by_one_end_where_a_rewrite_ends() {
    let Some(mut step) = Lab::new(with_pods()).await else {
        return;
    };
    let Some(mut whole) = Lab::new(with_pods()).await else {
        return;
    };
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    eprintln!("seed {seed}");
    let mut dice = seed | 1;
    let mut roll = move |n: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % n
    };
    for round in 0..25 {
        let mut text = String::new();
        for i in 0..4 {
            if roll(4) == 0 {
                continue;
            }
            let kind = ["ClusterIP", "NodePort", "LoadBalancer"][roll(3) as usize];
            let affinity = ["None", "ClientIP"][roll(2) as usize];
            let (outer, inner) = (
                ["Cluster", "Local"][roll(2) as usize],
                ["Cluster", "Local"][roll(2) as usize],
            );
            let timeout = 10 + roll(2);
            let ranges = ["[]", "[10.0.0.0/8]", "[0.0.0.0/0]", "[10.0.0.0/8, 10.1.0.0/16]"][roll(4) as usize];
            let spec = format!(
                "{{type: {kind}, clusterIPs: [10.96.0.{i}], sessionAffinity: {affinity}, \
                 sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {timeout}}}}}, externalTrafficPolicy: {outer}, \
                 internalTrafficPolicy: {inner}, loadBalancerSourceRanges: {ranges}, \
                 ports: [{{port: 80, nodePort: {}}}, {{name: u, port: 53, protocol: UDP}}]}}\n\
                 status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.{i}}}]}}}}",
                30000 + roll(4)
            );
            let endpoints: Vec<String> = (0..roll(4)).map(|_| format!("10.77.2.{}", 2 + roll(4))).collect();
            let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
            let mut service = service(&format!("s{i}"), &spec, 8080, &endpoints);
            if roll(3) == 0 {
                service = service.replace("nodeName: node", "nodeName: elsewhere");
            }
            text.push_str(&service);
        }
        step.sync(&text).await;
        // An engine that has just started knows nothing of the table and writes all of it.
        whole.engine = Nftables::new(with_pods()).in_namespace(&whole.name("node"));
        whole.sync(&text).await;
        let (stepped, rewritten) = (step.table("ip"), whole.table("ip"));
        assert!(stepped.len() > 10, "{stepped:?}");
        assert_eq!(stepped, rewritten, "round {round} of seed {seed}:\n{text}");
    }
}

#[tokio::test]
async fn a_thousand_services_cost_little_to_change() {
    let Some(mut lab) = Lab::new(with_pods()).await else {
        return;
    };
    let one = |i: usize, endpoints: &[&str]| {
        let spec = format!(
            "{{type: NodePort, clusterIPs: [10.96.{}.{}], ports: [{{port: 80, nodePort: {}}}]}}",
            i / 250,
            i % 250,
            20_000 + i
        );
        service(&format!("s{i}"), &spec, 8080, endpoints)
    };
    let mut text: String = (0..1000).map(|i| one(i, &[POD1, POD2])).collect();
    let start = Instant::now();
    lab.sync(&text).await;
    let first = start.elapsed();
    let world = world(&text);
    let start = Instant::now();
    let planned = plan(&world, "node");
    let planning = start.elapsed();
    assert_eq!(planned.ports.len(), 1000);
    text.push_str(&one(1000, &[POD1]));
    let next = Arc::new(plan(&common::world(&text), "node"));
    let start = Instant::now();
    lab.engine.sync(&next).await.unwrap();
    eprintln!(
        "1,000 Services: first sync {first:?} (YAML included), plan {planning:?}, one Service more {:?}",
        start.elapsed()
    );
    assert_eq!(lab.ask_often("client", "10.96.4.0:80", 2), ["pod1"]);
    assert_eq!(lab.ask_often("client", "10.96.3.249:80", 20), ["pod1", "pod2"]);
}

#[tokio::test]
async fn the_longest_names_fit() {
    let Some(mut lab) = Lab::new(Settings::default()).await else {
        return;
    };
    let name = "n".repeat(63);
    let spec = format!(
        "{{clusterIPs: [\"fd96::10\"], sessionAffinity: ClientIP, ports: [{{name: {name}, port: 80, protocol: SCTP}}]}}"
    );
    let text = service(&name, &spec, 65535, &["fd77:1111:2222:3333:4444:5555:6666::"]);
    let text = text.replace("namespace: test", &format!("namespace: {name}"));
    lab.sync(&text.replace(
        "ports: [{port: 65535}",
        &format!("ports: [{{port: 65535, protocol: SCTP, name: {name}}}"),
    ))
    .await;
    assert!(
        lab.table("ip6").iter().any(|object| object.contains("endpoint-nnn")),
        "{:?}",
        lab.table("ip6")
    );
}

#[tokio::test]
async fn a_table_somebody_broke_is_made_whole_and_cleanup_leaves_nothing() {
    let Some(mut lab) = Lab::new(Settings::default()).await else {
        return;
    };
    let spec = "{clusterIPs: [10.96.0.10], ports: [{port: 80}]}";
    lab.sync(&service("web", spec, 8080, &[POD1])).await;
    lab.ip(&format!("netns exec {} nft flush ruleset", lab.name("node")))
        .unwrap();
    assert!(lab.table("ip").is_empty());
    lab.sync(&service("web", spec, 8080, &[POD2])).await;
    assert_eq!(lab.ask_often("client", "10.96.0.10:80", 2), ["pod2"]);
    lab.engine.cleanup().await.unwrap();
    assert!(lab.table("ip").is_empty() && lab.table("ip6").is_empty());
    lab.engine.check().await.unwrap();
    assert!(lab.table("ip").is_empty(), "a check leaves nothing");
    lab.engine.cleanup().await.unwrap();
}
