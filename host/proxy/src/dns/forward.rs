//! Questions about names outside the cluster, passed on to the machine's own resolvers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::answer::Answer;
use super::server::code;

/// Questions under way at one time. More are answered SERVFAIL, so that a dead resolver cannot fill our memory.
const MOST_QUESTIONS: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(2);
const LARGEST_UDP: u16 = 1232;

pub struct Forwarder {
    servers: Vec<SocketAddr>,
    room: Semaphore,
}

impl Forwarder {
    /// `None` when nobody is left to ask. Our own addresses are left out: asking ourselves would never end.
    pub fn new(servers: Vec<SocketAddr>, own: &[SocketAddr]) -> Option<Self> {
        let is_own = |server: &SocketAddr| {
            own.iter()
                .any(|own| own.port() == server.port() && (own.ip() == server.ip() || own.ip().is_unspecified()))
        };
        let servers: Vec<SocketAddr> = servers.into_iter().filter(|server| !is_own(server)).collect();
        (!servers.is_empty()).then(|| Self {
            servers,
            room: Semaphore::new(MOST_QUESTIONS),
        })
    }

    /// Asks one server after the other, in the order of resolv.conf, until one answers.
    pub async fn ask(&self, name: &Name, kind: RecordType, tcp: bool) -> Answer {
        let Ok(_room) = self.room.try_acquire() else {
            return code(ResponseCode::ServFail);
        };
        for server in &self.servers {
            match tokio::time::timeout(PATIENCE, ask(*server, name, kind, tcp)).await {
                // Another server may know better.
                Ok(Ok(reply)) if reply.metadata.response_code == ResponseCode::ServFail => {}
                Ok(Ok(reply)) => return answer(reply),
                Ok(Err(error)) => {
                    tracing::debug!(%server, %name, %error, "an upstream resolver failed")
                }
                Err(_) => tracing::debug!(%server, %name, "an upstream resolver does not answer"),
            }
        }
        code(ResponseCode::ServFail)
    }
}

fn answer(reply: Message) -> Answer {
    let soa = reply
        .authorities
        .into_iter()
        .find(|record| record.record_type() == RecordType::SOA);
    Answer {
        records: reply.answers,
        soa,
        ..code(reply.metadata.response_code)
    }
}

/// By UDP, and again by TCP where the answer was cut short. A fresh socket and a random number for each question, and the
/// question compared: a forged answer must guess both.
async fn ask(server: SocketAddr, name: &Name, kind: RecordType, tcp: bool) -> io::Result<Message> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(LARGEST_UDP).set_version(0);
    query.set_edns(edns);
    let bytes = query.to_vec().map_err(io::Error::other)?;
    if !tcp {
        let reply = ask_udp(server, &query, &bytes).await?;
        if !reply.metadata.truncation {
            return Ok(reply);
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    matching(&query, &reply).ok_or_else(|| io::Error::other("an answer to another question"))
}

async fn ask_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any = if server.is_ipv4() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut reply = vec![0; usize::from(LARGEST_UDP) + 1];
    loop {
        let length = socket.recv(&mut reply).await?;
        // What does not match is somebody else's, or somebody's attempt; the right one may still come.
        if let Some(reply) = matching(query, &reply[..length]) {
            return Ok(reply);
        }
    }
}

fn matching(query: &Message, reply: &[u8]) -> Option<Message> {
    let reply = Message::from_vec(reply).ok()?;
    let same = reply.metadata.id == query.metadata.id
        && reply.metadata.message_type == MessageType::Response
        && reply.queries == query.queries;
    same.then_some(reply)
}

/// The `nameserver` lines of a resolv.conf (resolv.conf(5)); a scope after `%` is ignored with its line.
pub fn nameservers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let (keyword, address) = (words.next()?, words.next()?);
        let address: IpAddr = (keyword == "nameserver").then(|| address.parse().ok()).flatten()?;
        Some(SocketAddr::new(address, 53))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_manual_says() {
        let text = "# nameserver 9.9.9.9\nsearch a.b\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 x\nnameserver fe80::1%eth0\n";
        let found: Vec<String> = nameservers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn nobody_asks_himself() {
        let servers = vec!["127.0.0.1:53".parse().unwrap(), "192.0.2.1:53".parse().unwrap()];
        let all: SocketAddr = "0.0.0.0:53".parse().unwrap();
        assert!(
            Forwarder::new(servers.clone(), &[all]).is_none(),
            "we listen on every address"
        );
        assert_eq!(
            Forwarder::new(servers, &["127.0.0.1:53".parse().unwrap()])
                .unwrap()
                .servers
                .len(),
            1
        );
    }
}
