//! UDP flows whose endpoint is gone: conntrack would send them there for as long as the client keeps talking.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::run;
use crate::facts::Protocol;
use crate::plan::{Backend, Backends, Family, Plan, PortPlan};

/// Above so many endpoints gone at once, all flows of the Service are forgotten: each call of the tool is a process. Flows
/// of endpoints that stay are translated anew with their next datagram.
const MOST_ENDPOINTS: usize = 16;

/// Flows to forget: those to this address and port that were translated to this endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stale {
    family: Family,
    /// `None` for a node port, which answers on every address.
    address: Option<IpAddr>,
    port: u16,
    /// `None`: whatever they were translated to.
    endpoint: Option<IpAddr>,
}

/// What a change of plans leaves behind.
pub fn stale(before: &Plan, next: &Plan) -> BTreeSet<Stale> {
    let mut stale = BTreeSet::new();
    for (name, old) in before.ports.iter().filter(|(name, _)| name.protocol == Protocol::Udp) {
        let new = next.ports.get(name);
        let kept: BTreeSet<&Backend> = new.into_iter().flat_map(endpoints).collect();
        let gone: BTreeSet<IpAddr> = endpoints(old)
            .filter(|at| !kept.contains(at))
            .map(|at| at.0.ip())
            .collect();
        let family = name.family;
        let forget = |endpoint| {
            doors(old).map(move |(address, port)| Stale {
                family,
                address,
                port,
                endpoint,
            })
        };
        if gone.len() > MOST_ENDPOINTS {
            stale.extend(forget(None));
        } else {
            stale.extend(gone.into_iter().flat_map(|endpoint| forget(Some(endpoint))));
        }
        // Until now its flows went untranslated, and conntrack remembers that too.
        let served_at_last = matches!(old.internal, Backends::Refuse | Backends::Drop)
            && new.is_some_and(|new| endpoints(new).next().is_some());
        if served_at_last {
            stale.extend(forget(None));
        }
    }
    stale
}

fn endpoints(port: &PortPlan) -> impl Iterator<Item = &Backend> {
    port.internal
        .endpoints()
        .chain(port.external.endpoints())
        .chain(port.anywhere.endpoints())
}

fn doors(port: &PortPlan) -> impl Iterator<Item = (Option<IpAddr>, u16)> {
    let addresses = [port.cluster_ip]
        .into_iter()
        .chain(port.external_ips.iter().chain(&port.load_balancer_ips).copied());
    addresses
        .map(|ip| (Some(ip), port.port))
        .chain(port.node_port.map(|port| (None, port)))
}

/// Without the `conntrack` tool the flows end by their own timeout, 30 to 120 s after the client falls silent.
pub async fn forget(within: &[String], stale: &BTreeSet<Stale>) {
    for flow in stale {
        let port = flow.port.to_string();
        let mut arguments = vec![
            "-D",
            "-f",
            if flow.family == Family::V4 { "ipv4" } else { "ipv6" },
            "-p",
            "udp",
        ];
        let address = flow.address.map(|ip| ip.to_string());
        let endpoint = flow.endpoint.map(|ip| ip.to_string());
        for (option, value) in [("--orig-dst", &address), ("--dst-nat", &endpoint)] {
            if let Some(value) = value {
                arguments.extend([option, value]);
            }
        }
        arguments.extend(["--orig-port-dst", &port]);
        // It exits with 1 also when there was no such flow, so only a missing tool is told apart.
        if let Err(error) = run(within, "conntrack", &arguments, String::new()).await {
            tracing::debug!(%error, "old UDP flows are left to their timeout");
            return;
        }
    }
}
