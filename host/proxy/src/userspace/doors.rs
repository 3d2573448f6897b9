//! A plan as sockets: what to listen on, and where each leads.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::facts::Protocol;
use crate::plan::{Backend, Backends, Family, Plan, PortName};

/// One address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    pub protocol: Protocol,
    pub at: SocketAddr,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.at, self.protocol.as_str())
    }
}

/// What is behind a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// For messages.
    pub service: PortName,
    /// Never empty, in order of address.
    pub endpoints: Vec<SocketAddr>,
    pub affinity: Option<Duration>,
    /// Who may come in; empty: everybody.
    pub open_to: Vec<IpNet>,
}

impl Route {
    pub fn admits(&self, client: IpAddr) -> bool {
        self.open_to.is_empty() || self.open_to.iter().any(|net| net.contains(&client))
    }
}

/// Every door that leads somewhere. External and balancer addresses count where they are loopback ones: others are not
/// this machine's to listen on.
pub fn doors(plan: &Plan, node_port_addresses: &[IpAddr]) -> BTreeMap<Door, Route> {
    let mut doors = BTreeMap::new();
    for (name, port) in &plan.ports {
        let mut open = |ip: IpAddr, number: u16, backends: &Backends, open_to: Vec<IpNet>| {
            let endpoints: Vec<SocketAddr> = backends.endpoints().map(|Backend(at)| *at).collect();
            if endpoints.is_empty() {
                return;
            }
            let door = Door {
                protocol: name.protocol,
                at: SocketAddr::new(ip, number),
            };
            let affinity = port.affinity.map(|seconds| Duration::from_secs(seconds.into()));
            let route = Route {
                service: name.clone(),
                endpoints,
                affinity,
                open_to,
            };
            // The first of two Services that claim one address keeps it, as the order of names decides.
            doors.entry(door).or_insert(route);
        };
        // Whoever reaches a loopback address is on this node, and to those the whole Service is open.
        open(port.cluster_ip, port.port, &port.internal, Vec::new());
        for ip in port.external_ips.iter().filter(|ip| ip.is_loopback()) {
            open(*ip, port.port, &port.anywhere, Vec::new());
        }
        for ip in port.load_balancer_ips.iter().filter(|ip| ip.is_loopback()) {
            open(
                *ip,
                port.port,
                &port.anywhere,
                port.source_ranges.iter().copied().collect(),
            );
        }
        let Some(node_port) = port.node_port else {
            continue;
        };
        for ip in node_port_addresses.iter().filter(|ip| Family::of(**ip) == name.family) {
            let backends = if ip.is_loopback() {
                &port.anywhere
            } else {
                &port.external
            };
            open(*ip, node_port, backends, Vec::new());
        }
    }
    doors
}
