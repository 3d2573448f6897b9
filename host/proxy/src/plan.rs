//! The decision: which address and port leads to which endpoints, from this node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::endpoints::{self, Candidate, Choice};
use crate::facts::{Affinity, Protocol, Service, ServicePort, ServiceType, TrafficPolicy, World};

/// One port of one Service in one address family. Its `Display` is unique and fit for a chain's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortName {
    pub namespace: String,
    pub service: String,
    /// Empty for the only port of a Service.
    pub port: String,
    pub protocol: Protocol,
    pub family: Family,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            service,
            port,
            protocol,
            ..
        } = self;
        write!(f, "{namespace}/{service}/{}/{port}", protocol.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// What this node does for every Service port. Two plans of equal worlds are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub ports: BTreeMap<PortName, PortPlan>,
}

/// What one Service port answers on, and who stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPlan {
    /// The Service's cluster IP in this family.
    pub cluster_ip: IpAddr,
    pub port: u16,
    /// On every address of the node.
    pub node_port: Option<u16>,
    pub external_ips: BTreeSet<IpAddr>,
    pub load_balancer_ips: BTreeSet<IpAddr>,
    /// Who may use `load_balancer_ips`; empty: everybody.
    pub source_ranges: BTreeSet<IpNet>,
    /// How long a client stays with its endpoint, in seconds.
    pub affinity: Option<u32>,
    /// For clients that use the cluster IP.
    pub internal: Backends,
    /// For clients that come in through the node port, an external or a load balancer's address.
    pub external: Backends,
    /// `externalTrafficPolicy: Local`: who comes from outside keeps its source address and is served on this node only.
    pub keeps_source: bool,
    /// `externalTrafficPolicy: Local` binds outsiders only; pods and the node itself reach these through external addresses.
    pub anywhere: Backends,
}

impl PortPlan {
    /// Has any door but the cluster IP.
    pub fn has_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }
}

/// Where a new connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backends {
    /// One of these, each as likely as the other. Never empty.
    To(BTreeSet<Backend>),
    /// The Service has no endpoint: the client is told so at once (RST or ICMP).
    Refuse,
    /// It has some, but a `Local` policy forbids them: silence, so that a load balancer tries elsewhere.
    Drop,
}

impl Backends {
    /// The endpoints; empty where there are none to go to.
    pub fn endpoints(&self) -> impl Iterator<Item = &Backend> {
        match self {
            Backends::To(endpoints) => Some(endpoints),
            Backends::Refuse | Backends::Drop => None,
        }
        .into_iter()
        .flatten()
    }

    fn of(chosen: &Choice) -> Self {
        match (chosen.endpoints.is_empty(), chosen.elsewhere) {
            (false, _) => Backends::To(chosen.endpoints.clone()),
            (true, true) => Backends::Drop,
            (true, false) => Backends::Refuse,
        }
    }
}

/// A pod's address and target port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend(pub SocketAddr);

/// Makes the plan for `node`. No clock, no IO: equal worlds give equal plans.
///
/// Follows kube-proxy's contract: API docs of `Service` and `EndpointSlice`, KEP-2086 (internal traffic policy), KEP-1669
/// (terminating endpoints), KEP-2433 and KEP-3015 (hints), KEP-1860 (ipMode).
pub fn plan(world: &World, node: &str) -> Plan {
    let mut slices: HashMap<(&str, &str), Vec<_>> = HashMap::new();
    for slice in &world.slices {
        let owner = (slice.metadata.namespace.as_str(), slice.service());
        slices.entry(owner).or_default().push(&**slice);
    }
    let zone = world.node.as_deref().map_or("", |node| node.zone());
    let here = endpoints::Here { node, zone };
    let mut plan = Plan::default();
    for service in world.services.iter().filter(|service| is_ours(service)) {
        let owner = (service.metadata.namespace.as_str(), service.metadata.name.as_str());
        let slices = slices.get(&owner).map_or(&[][..], Vec::as_slice);
        for cluster_ip in service.spec.addresses().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
            for port in &service.spec.ports {
                let name = PortName {
                    namespace: service.metadata.namespace.clone(),
                    service: service.metadata.name.clone(),
                    port: port.name.clone(),
                    protocol: port.protocol,
                    family: Family::of(cluster_ip),
                };
                let candidates = endpoints::candidates(slices, port, name.family);
                plan.ports
                    .insert(name, port_plan(service, port, cluster_ip, &candidates, here));
            }
        }
    }
    plan
}

/// Not headless, not an alias, and not given to another proxy by its label.
fn is_ours(service: &Service) -> bool {
    service.spec.kind != ServiceType::ExternalName
        && !service.spec.headless()
        && !service
            .metadata
            .labels
            .contains_key("service.kubernetes.io/service-proxy-name")
}

fn port_plan(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    candidates: &[Candidate],
    here: endpoints::Here<'_>,
) -> PortPlan {
    let spec = &service.spec;
    let family = Family::of(cluster_ip);
    let anywhere = endpoints::anywhere(candidates, here, &spec.traffic_distribution);
    let local = endpoints::local(candidates, here);
    let by_policy = |policy| match policy {
        TrafficPolicy::Cluster => Backends::of(&anywhere),
        TrafficPolicy::Local => Backends::of(&local),
    };
    let balancers = service.status.load_balancer.ingress.iter();
    let balancers = balancers.filter(|at| at.ip_mode != "Proxy").map(|at| at.ip.as_str());
    let is_balanced = spec.kind == ServiceType::LoadBalancer;
    PortPlan {
        cluster_ip,
        port: port.port,
        node_port: (port.node_port != 0 && spec.kind != ServiceType::ClusterIP).then_some(port.node_port),
        external_ips: addresses(spec.external_ips.iter().map(String::as_str), family),
        load_balancer_ips: if is_balanced {
            addresses(balancers, family)
        } else {
            BTreeSet::new()
        },
        source_ranges: if is_balanced {
            ranges(&spec.load_balancer_source_ranges, family)
        } else {
            BTreeSet::new()
        },
        affinity: match spec.session_affinity {
            Affinity::None => None,
            Affinity::ClientIP => Some(spec.session_affinity_config.client_ip.timeout_seconds.max(1)),
        },
        internal: by_policy(spec.internal_traffic_policy),
        external: by_policy(spec.external_traffic_policy),
        keeps_source: spec.external_traffic_policy == TrafficPolicy::Local,
        anywhere: Backends::of(&anywhere),
    }
}

fn addresses<'a>(texts: impl Iterator<Item = &'a str>, family: Family) -> BTreeSet<IpAddr> {
    texts
        .filter_map(|text| text.parse().ok())
        .filter(|ip| Family::of(*ip) == family)
        .collect()
}

/// `loadBalancerSourceRanges`. When ranges were given but none is of this family, nobody of this family may come in.
fn ranges(texts: &[String], family: Family) -> BTreeSet<IpNet> {
    let given: Vec<IpNet> = texts.iter().filter_map(|text| text.trim().parse().ok()).collect();
    let ours: Vec<IpNet> = given
        .iter()
        .filter(|net| Family::of(net.addr()) == family)
        .copied()
        .collect();
    // Overlapping ones become one: nftables takes no set of overlapping ranges.
    let ours: BTreeSet<IpNet> = IpNet::aggregate(&ours).into_iter().collect();
    if !given.is_empty() && ours.is_empty() {
        // The unspecified address is nobody's source.
        let nobody = match family {
            Family::V4 => IpNet::from(IpAddr::from([0, 0, 0, 0])),
            Family::V6 => IpNet::from(IpAddr::from([0u16; 8])),
        };
        return BTreeSet::from([nobody]);
    }
    ours
}

impl fmt::Display for Plan {
    /// For golden tests and for people: one paragraph a port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, port) in &self.ports {
            writeln!(f, "{name}")?;
            writeln!(f, "  on {}", SocketAddr::new(port.cluster_ip, port.port))?;
            if let Some(node_port) = port.node_port {
                writeln!(f, "  on every node address, port {node_port}")?;
            }
            for ip in &port.external_ips {
                writeln!(f, "  on external {}", SocketAddr::new(*ip, port.port))?;
            }
            for ip in &port.load_balancer_ips {
                writeln!(f, "  on balancer {}", SocketAddr::new(*ip, port.port))?;
            }
            for range in &port.source_ranges {
                writeln!(f, "  balancer open to {range}")?;
            }
            if let Some(seconds) = port.affinity {
                writeln!(f, "  sticks for {seconds} s")?;
            }
            writeln!(f, "  from inside: {}", port.internal)?;
            if port.has_external() {
                let how = if port.keeps_source {
                    "keeping the source"
                } else {
                    "masqueraded"
                };
                writeln!(f, "  from outside, {how}: {}", port.external)?;
                if port.keeps_source {
                    writeln!(f, "  from pods to external addresses: {}", port.anywhere)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backends::Refuse => f.write_str("refuse"),
            Backends::Drop => f.write_str("drop"),
            Backends::To(endpoints) => {
                for (i, Backend(at)) in endpoints.iter().enumerate() {
                    write!(f, "{}{at}", if i == 0 { "" } else { " " })?;
                }
                Ok(())
            }
        }
    }
}
