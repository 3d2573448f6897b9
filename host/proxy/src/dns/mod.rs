//! The cluster's DNS: names of Services and endpoints, after the Kubernetes DNS specification 1.1.0.

mod answer;
mod forward;
mod server;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use client::Cluster;
use hickory_proto::rr::Name;
use ipnet::IpNet;
use model::{Caller, Failure};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::feed::Feed;
use answer::Domain;
use forward::Forwarder;
use server::Handler;
use zone::Zone;

/// How long an idle TCP client is kept.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// The shortest time between two indexes.
const GAP: Duration = Duration::from_millis(20);
/// Answers that may wait for one TCP client.
const TCP_ANSWERS: usize = 32;

#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Each is served by UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// `cluster.local`.
    pub domain: String,
    /// Networks whose reverse names are ours alone: the Services', the pods'. Names of addresses outside are forwarded.
    pub reverse: Vec<IpNet>,
    pub upstream: Upstream,
    /// Who reads Services and EndpointSlices. (The default role of `system:kube-dns` dates from before EndpointSlices.)
    pub caller: Caller,
}

/// Who answers for names outside the cluster.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// Nobody: such questions are refused.
    Off,
    /// The `nameserver` lines of a file such as /etc/resolv.conf, read once at the start.
    ResolvConf(PathBuf),
    Servers(Vec<SocketAddr>),
}

impl DnsConfig {
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen: vec![listen],
            domain: "cluster.local".into(),
            reverse: Vec::new(),
            upstream: Upstream::ResolvConf("/etc/resolv.conf".into()),
            caller: Caller::component("system:kube-proxy", &[]),
        }
    }
}

/// Binds, and serves until `stop`. Until everything was listed once, questions about the cluster are answered SERVFAIL, so
/// that no client remembers that a name does not exist.
///
/// # Errors
/// `BadRequest` for a bad domain, `Unavailable` when an address cannot be bound.
pub async fn serve_dns(config: DnsConfig, cluster: Arc<dyn Cluster>, stop: CancellationToken) -> Result<(), Failure> {
    Dns::bind(config).await?.serve(cluster, stop).await
}

/// A DNS server with its addresses taken, not yet serving.
pub struct Dns {
    config: DnsConfig,
    domain: Domain,
    forwarder: Option<Forwarder>,
    sockets: Vec<(UdpSocket, TcpListener)>,
    addresses: Vec<SocketAddr>,
}

impl Dns {
    /// Takes the addresses. Port 0 becomes one free port for both protocols.
    ///
    /// # Errors
    /// As [`serve_dns`].
    pub async fn bind(config: DnsConfig) -> Result<Self, Failure> {
        let name = Name::from_ascii(format!("{}.", config.domain.trim_end_matches('.'))).map_err(|error| {
            Failure::BadRequest(format!(
                "the cluster domain {:?} is no DNS name: {error}",
                config.domain
            ))
        })?;
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for at in &config.listen {
            let pair = bind(*at).await.map_err(|error| Failure::Unavailable {
                what: "an address for cluster DNS",
                source: format!("{at}: {error}").into(),
            })?;
            addresses.push(pair.1.local_addr().map_err(Failure::internal)?);
            sockets.push(pair);
        }
        let servers = match &config.upstream {
            Upstream::Off => Vec::new(),
            Upstream::Servers(servers) => servers.clone(),
            Upstream::ResolvConf(path) => {
                let text = tokio::fs::read_to_string(path).await.unwrap_or_else(|error| {
                    tracing::warn!(path = %path.display(), %error, "names outside the cluster are not resolved");
                    String::new()
                });
                forward::nameservers(&text)
            }
        };
        let forwarder = Forwarder::new(servers, &addresses);
        let domain = Domain {
            name,
            reverse: config.reverse.clone(),
        };
        Ok(Self {
            config,
            domain,
            forwarder,
            sockets,
            addresses,
        })
    }

    /// Where it listens, in the order of [`DnsConfig::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// `Internal` if a socket is lost.
    pub async fn serve(self, cluster: Arc<dyn Cluster>, stop: CancellationToken) -> Result<(), Failure> {
        let mut feed = Feed::start(cluster, &self.config.caller, None, &stop);
        let zone = Arc::new(RwLock::new(None));
        let handler = Handler::new(self.domain, zone.clone(), self.forwarder);
        let mut server = hickory_server::Server::new(handler);
        for (udp, tcp) in self.sockets {
            server.register_socket(udp);
            server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS);
        }
        let follow = async {
            while let Some(world) = feed.next().await {
                let Ok(next) = tokio::task::spawn_blocking(move || Zone::new(&world)).await else {
                    continue;
                };
                *zone.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(next));
                // Many changes in a row become one index.
                tokio::time::sleep(GAP).await;
            }
        };
        tokio::select! {
            () = follow => {}
            lost = server.block_until_done() => return lost.map_err(Failure::internal),
        }
        server.shutdown_gracefully().await.map_err(Failure::internal)
    }
}

/// UDP and TCP on one port. With port 0 the TCP port the kernel gives may be taken for UDP: then ask again.
async fn bind(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if at.port() == 0 { 16 } else { 1 };
    loop {
        tries -= 1;
        let tcp = TcpListener::bind(at).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// For golden tests: questions to a world.
#[cfg(test)]
pub(crate) struct Lookup {
    domain: Domain,
    zone: Zone,
}

#[cfg(test)]
impl Lookup {
    pub(crate) fn new(domain: &str, reverse: &[IpNet], world: &crate::facts::World) -> Self {
        let name = Name::from_ascii(format!("{domain}.")).unwrap();
        Self {
            domain: Domain {
                name,
                reverse: reverse.to_vec(),
            },
            zone: Zone::new(world),
        }
    }

    /// The answer as `dig` would show it.
    pub(crate) fn told(&self, name: &Name, kind: hickory_proto::rr::RecordType) -> String {
        let mut name = name.clone();
        name.set_fqdn(true);
        let Some(answer) = self.domain.answer(&self.zone, &name, kind) else {
            return "not ours\n".into();
        };
        let mut text = format!("{:?}\n", answer.code);
        let sections = [
            ("", answer.records),
            ("also ", answer.additionals),
            ("until ", answer.soa.into_iter().collect()),
        ];
        for (prefix, records) in sections {
            for record in records {
                text.push_str(&format!("{prefix}{record}\n"));
            }
        }
        if let Some(next) = answer.continues_at {
            text.push_str(&format!("ask others for {next}\n"));
        }
        text
    }
}
