//! The DNS server over the network: UDP, TCP, cut answers, forwarding, and names that come and go.

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{Moody, service};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proxy::dns::{Dns, DnsConfig, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(10);

struct Lab {
    cluster: Arc<Moody>,
    at: SocketAddr,
    _stop: DropGuard,
}

impl Lab {
    async fn new(cluster: Arc<Moody>, upstream: Upstream) -> Self {
        let config = DnsConfig {
            upstream,
            reverse: vec!["10.96.0.0/12".parse().unwrap()],
            ..DnsConfig::new(([127, 0, 0, 1], 0).into())
        };
        let server = Dns::bind(config).await.unwrap();
        let at = server.addresses()[0];
        let stop = CancellationToken::new();
        tokio::spawn(server.serve(cluster.clone(), stop.clone()));
        Self {
            cluster,
            at,
            _stop: stop.drop_guard(),
        }
    }

    async fn ask(&self, kind: RecordType, name: &str) -> Message {
        self.send(query(kind, name, None), false).await
    }

    async fn send(&self, query: Message, tcp: bool) -> Message {
        let bytes = query.to_vec().unwrap();
        let talk = async {
            if tcp {
                let mut stream = TcpStream::connect(self.at).await.unwrap();
                stream.write_u16(bytes.len() as u16).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut reply).await.unwrap();
                return reply;
            }
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(&bytes, self.at).await.unwrap();
            let mut reply = vec![0; 65_535];
            let length = socket.recv(&mut reply).await.unwrap();
            reply.truncate(length);
            reply
        };
        let reply = tokio::time::timeout(PATIENCE, talk).await.expect("an answer");
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.id, &reply.queries), (query.metadata.id, &query.queries));
        reply
    }

    /// Asks until the answer is `wanted`.
    async fn eventually(&self, kind: RecordType, name: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let wait = async {
            loop {
                let reply = self.ask(kind, name).await;
                if wanted(&reply) {
                    return reply;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{kind} {name} never became right"))
    }
}

fn query(kind: RecordType, name: &str, payload: Option<u16>) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        query.set_edns(edns);
    }
    query
}

fn addresses(reply: &Message) -> Vec<String> {
    let mut all: Vec<String> = reply
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .map(|ip| ip.to_string())
        .collect();
    all.sort();
    all
}

const WEB: &str = "web.test.svc.cluster.local.";

fn web(ip: &str) -> String {
    service(
        "web",
        &format!("{{clusterIPs: [{ip}], ports: [{{name: http, port: 80}}]}}"),
        8080,
        &[],
    )
}

#[tokio::test]
async fn names_follow_the_cluster() {
    let cluster = Moody::new();
    cluster.fail(usize::MAX);
    let lab = Lab::new(cluster, Upstream::Off).await;
    let unready = lab.ask(RecordType::A, WEB).await;
    assert_eq!(
        unready.metadata.response_code,
        ResponseCode::ServFail,
        "not yet read is not the same as not there"
    );
    lab.cluster.apply(&web("10.96.0.10"));
    lab.cluster.fail(0);
    let reply = lab
        .eventually(RecordType::A, WEB, |reply| addresses(reply) == ["10.96.0.10"])
        .await;
    assert!(reply.metadata.authoritative && !reply.metadata.recursion_available);
    lab.cluster.apply(&web("10.96.0.11"));
    lab.eventually(RecordType::A, WEB, |reply| addresses(reply) == ["10.96.0.11"])
        .await;
    // Changes that fall into a broken watch are seen after the next list.
    lab.cluster.fake.break_watches();
    lab.cluster.apply(&web("10.96.0.12"));
    lab.eventually(RecordType::A, WEB, |reply| addresses(reply) == ["10.96.0.12"])
        .await;
    lab.cluster.delete("", "services", "web");
    let gone = lab
        .eventually(RecordType::A, WEB, |reply| {
            reply.metadata.response_code == ResponseCode::NXDomain
        })
        .await;
    assert!(
        gone.authorities
            .iter()
            .any(|record| record.record_type() == RecordType::SOA),
        "else clients remember for ever"
    );
    let outside = lab.ask(RecordType::A, "example.com.").await;
    assert_eq!(outside.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn long_answers_are_cut_by_udp_and_whole_by_tcp() {
    let cluster = Moody::new();
    let pods: Vec<String> = (1..=120).map(|i| format!("10.1.0.{i}")).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    cluster.apply(&service(
        "web",
        "{clusterIP: None, clusterIPs: [None], ports: [{port: 80}]}",
        8080,
        &pods,
    ));
    let lab = Lab::new(cluster, Upstream::Off).await;
    lab.eventually(RecordType::A, WEB, |reply| {
        reply.metadata.response_code == ResponseCode::NoError
    })
    .await;
    let short = lab.send(query(RecordType::A, WEB, None), false).await;
    assert!(short.metadata.truncation && short.to_vec().unwrap().len() <= 512);
    let longer = lab.send(query(RecordType::A, WEB, Some(4096)), false).await;
    assert!(longer.metadata.truncation && longer.answers.len() > short.answers.len());
    assert!(longer.edns.is_some(), "an OPT record answers an OPT record");
    let whole = lab.send(query(RecordType::A, WEB, None), true).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole).len(), 120);
    let again = lab.send(query(RecordType::A, WEB, None), true).await;
    assert_ne!(whole.answers[0], again.answers[0], "endpoints take turns at the front");
}

#[tokio::test]
async fn other_questions_go_upstream_and_aliases_are_followed_there() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = vec![dead.local_addr().unwrap(), upstream.local_addr().unwrap()];
    // Answers everything with one address, after a forgery that must not be believed.
    tokio::spawn(async move {
        let mut bytes = [0; 2048];
        loop {
            let (length, peer) = upstream.recv_from(&mut bytes).await.unwrap();
            let asked = Message::from_vec(&bytes[..length]).unwrap();
            for (id, last) in [(asked.metadata.id.wrapping_add(1), 66), (asked.metadata.id, 7)] {
                let mut reply = Message::new(id, MessageType::Response, OpCode::Query);
                reply.add_queries(asked.queries.clone());
                let name = asked.queries[0].name().clone();
                reply
                    .answers
                    .push(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, last))));
                upstream.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
            }
        }
    });
    drop(dead);
    let cluster = Moody::new();
    cluster.apply(&service(
        "out",
        "{type: ExternalName, externalName: db.example.com}",
        80,
        &[],
    ));
    let lab = Lab::new(cluster, Upstream::Servers(servers)).await;
    let reply = lab.ask(RecordType::A, "example.com.").await;
    assert_eq!(addresses(&reply), ["192.0.2.7"]);
    assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
    let reply = lab
        .eventually(RecordType::A, "out.test.svc.cluster.local.", |reply| {
            !reply.answers.is_empty()
        })
        .await;
    let kinds: Vec<RecordType> = reply.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    assert_eq!(addresses(&reply), ["192.0.2.7"]);
}

#[tokio::test]
async fn dig_agrees() {
    if Command::new("dig").arg("-v").output().is_err() {
        eprintln!("skipped: dig is not installed");
        return;
    }
    let cluster = Moody::new();
    cluster.apply(&web("10.96.0.10"));
    let lab = Lab::new(cluster, Upstream::Off).await;
    lab.eventually(RecordType::A, WEB, |reply| !reply.answers.is_empty())
        .await;
    let dig = async |words: &str| {
        let words = format!(
            "@127.0.0.1 -p {} +noall +answer +comments +tries=3 +time=5 {words}",
            lab.at.port()
        );
        let output = tokio::process::Command::new("dig")
            .args(words.split(' '))
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let told = dig("SRV _http._tcp.web.test.svc.cluster.local").await;
    assert!(
        told.contains("status: NOERROR") && told.contains("SRV 0 100 80 web.test.svc.cluster.local."),
        "{told}"
    );
    let told = dig("+tcp -x 10.96.0.10").await;
    assert!(told.contains("PTR web.test.svc.cluster.local."), "{told}");
    let told = dig("A nosuch.test.svc.cluster.local").await;
    assert!(told.contains("status: NXDOMAIN"), "{told}");
}
