//! Which endpoints of a Service port may take a new connection from this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::facts::{AddressType, Endpoint, EndpointSlice, ServicePort};
use crate::plan::{Backend, Family};

/// Where the proxy runs.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    pub node: &'a str,
    /// Empty: in no zone.
    pub zone: &'a str,
}

/// One endpoint of one port, as its slice tells of it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    at: Backend,
    of: &'a Endpoint,
}

impl Candidate<'_> {
    fn ready(&self) -> bool {
        self.of.conditions.ready()
    }

    /// On its way out but still answering: the second choice (KEP-1669).
    fn leaving(&self) -> bool {
        self.of.conditions.serving() && self.of.conditions.terminating()
    }

    /// Higher is better, for two slices that tell of the same address.
    fn rank(&self) -> u8 {
        if self.ready() { 2 } else { u8::from(self.leaving()) }
    }
}

/// The endpoints to use, and whether there would be others if the policy did not forbid them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub endpoints: BTreeSet<Backend>,
    pub elsewhere: bool,
}

/// Every endpoint the slices give for `port`, in order of address. An endpoint moving between slices may stand in both
/// for a while: the better word counts.
pub fn candidates<'a>(slices: &[&'a EndpointSlice], port: &ServicePort, family: Family) -> Vec<Candidate<'a>> {
    let mut found: BTreeMap<Backend, Candidate<'a>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| family_of(slice) == Some(family)) {
        let target = slice
            .ports
            .iter()
            .find(|p| p.name == port.name && p.protocol == port.protocol);
        let Some(target) = target.and_then(|p| p.port).filter(|port| *port != 0) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            // The API: all addresses of an endpoint are interchangeable; use the first.
            let address = endpoint.addresses.first().and_then(|ip| ip.parse::<IpAddr>().ok());
            let Some(address) = address.filter(|ip| Family::of(*ip) == family) else {
                continue;
            };
            let candidate = Candidate {
                at: Backend(SocketAddr::new(address, target)),
                of: endpoint,
            };
            match found.get(&candidate.at) {
                Some(known) if known.rank() >= candidate.rank() => {}
                Some(_) | None => drop(found.insert(candidate.at, candidate)),
            }
        }
    }
    found.into_values().collect()
}

fn family_of(slice: &EndpointSlice) -> Option<Family> {
    match slice.address_type {
        AddressType::IPv4 => Some(Family::V4),
        AddressType::IPv6 => Some(Family::V6),
        AddressType::Fqdn => None,
    }
}

/// Policy `Cluster`: the ready ones, narrowed by hints; if none is ready, those that are leaving but still serve.
pub fn anywhere(candidates: &[Candidate<'_>], here: Here<'_>, distribution: &str) -> Choice {
    let ready: Vec<_> = candidates.iter().filter(|c| c.ready()).collect();
    let endpoints = match ready.is_empty() {
        true => candidates.iter().filter(|c| c.leaving()).map(|c| c.at).collect(),
        false => near(&ready, here, distribution).map(|c| c.at).collect(),
    };
    Choice {
        endpoints,
        elsewhere: false,
    }
}

/// Policy `Local`: the same, of this node's own. Hints do not matter here.
pub fn local(candidates: &[Candidate<'_>], here: Here<'_>) -> Choice {
    let own = || candidates.iter().filter(|c| c.of.node_name == here.node);
    let mut endpoints: BTreeSet<_> = own().filter(|c| c.ready()).map(|c| c.at).collect();
    if endpoints.is_empty() {
        endpoints = own().filter(|c| c.leaving()).map(|c| c.at).collect();
    }
    let elsewhere = candidates.iter().any(|c| c.ready() || c.leaving());
    Choice {
        elsewhere: elsewhere && endpoints.is_empty(),
        endpoints,
    }
}

/// Hints count only if every ready endpoint has one and at least one is for here: a half-written set of hints must not
/// empty a Service or pile its load on one endpoint.
fn near<'c, 'a>(
    ready: &'c [&'c Candidate<'a>],
    here: Here<'_>,
    distribution: &str,
) -> impl Iterator<Item = &'c Candidate<'a>> {
    let for_node = |c: &Candidate<'_>| c.of.hints.for_nodes.iter().any(|n| n.name == here.node);
    let for_zone =
        |c: &Candidate<'_>| !here.zone.is_empty() && c.of.hints.for_zones.iter().any(|z| z.name == here.zone);
    let by_node = distribution == "PreferSameNode"
        && ready.iter().all(|c| !c.of.hints.for_nodes.is_empty())
        && ready.iter().any(|c| for_node(c));
    let by_zone =
        !by_node && ready.iter().all(|c| !c.of.hints.for_zones.is_empty()) && ready.iter().any(|c| for_zone(c));
    let wanted = |c: &Candidate<'_>| (!by_node || for_node(c)) && (!by_zone || for_zone(c));
    let kept: Vec<_> = ready.iter().copied().filter(|c| wanted(c)).collect();
    kept.into_iter()
}
