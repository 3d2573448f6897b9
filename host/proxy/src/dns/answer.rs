//! What a name means: a pure look-up in the [`Zone`], after the Kubernetes DNS specification 1.1.0.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use super::zone::{Entry, Kind, Port, Zone};

/// Seconds a client may remember a Service. It changes only when the Service is made anew.
const SERVICE_TTL: u32 = 30;
/// Seconds for endpoints, which come and go, and for "no such name".
const SHORT_TTL: u32 = 5;
/// The version of the specification, at `dns-version.DOMAIN`.
const VERSION: &str = "1.1.0";
/// Aliases followed inside the cluster for one question.
const MOST_ALIASES: usize = 8;

/// Which names are ours.
#[derive(Debug, Clone)]
pub struct Domain {
    /// `cluster.local.`
    pub name: Name,
    pub reverse: Vec<IpNet>,
}

/// What there is to say about a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub code: ResponseCode,
    pub records: Vec<Record>,
    /// Addresses of SRV targets.
    pub additionals: Vec<Record>,
    /// For "no such name" and "no such data": how long that may be remembered.
    pub soa: Option<Record>,
    /// The last alias leads out of the cluster; somebody else knows the rest.
    pub continues_at: Option<Name>,
}

/// The address a dashed label spells.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
}

impl Domain {
    /// Answers a question about a name of ours; `None` for other names. No clock, no IO.
    pub fn answer(&self, zone: &Zone, name: &Name, kind: RecordType) -> Option<Answer> {
        if self.name.zone_of(name) {
            return Some(self.forward(zone, name, kind));
        }
        self.reverse(zone, name, kind)
    }

    /// Whether [`Domain::answer`] would answer, whatever the zone holds.
    pub fn is_ours(&self, name: &Name) -> bool {
        self.name.zone_of(name) || self.reverse_net(name).is_some_and(|net| self.holds(net))
    }

    fn forward(&self, zone: &Zone, name: &Name, kind: RecordType) -> Answer {
        let mut records = Vec::new();
        let mut name = name.clone();
        for _ in 0..MOST_ALIASES {
            match self.meaning(zone, &name) {
                // Also after an alias: the code is that of the last name (RFC 6604).
                None => return self.nothing(ResponseCode::NXDomain, records),
                Some(Meaning::Alias(target)) if kind != RecordType::CNAME => {
                    records.push(Record::from_rdata(
                        name,
                        SERVICE_TTL,
                        RData::CNAME(CNAME(target.clone())),
                    ));
                    if !self.name.zone_of(&target) {
                        let continues_at = Some(target);
                        return Answer {
                            code: ResponseCode::NoError,
                            records,
                            additionals: Vec::new(),
                            soa: None,
                            continues_at,
                        };
                    }
                    name = target;
                }
                Some(meaning) => {
                    let (ttl, data) = meaning.data(kind);
                    if data.is_empty() {
                        return self.nothing(ResponseCode::NoError, records);
                    }
                    let additionals = self.targets(zone, &data);
                    records.extend(data.into_iter().map(|data| Record::from_rdata(name.clone(), ttl, data)));
                    return Answer {
                        code: ResponseCode::NoError,
                        records,
                        additionals,
                        soa: None,
                        continues_at: None,
                    };
                }
            }
        }
        Answer {
            code: ResponseCode::ServFail,
            records: Vec::new(),
            additionals: Vec::new(),
            soa: None,
            continues_at: None,
        }
    }

    /// What stands at a name; `None` if neither it nor anything below it exists.
    fn meaning(&self, zone: &Zone, name: &Name) -> Option<Meaning> {
        let own = usize::from(name.num_labels() - self.name.num_labels());
        let labels: Vec<String> = name
            .iter()
            .take(own)
            .map(|label| String::from_utf8_lossy(label).to_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels[..] {
            [] => Some(Meaning::Top(self.soa(&self.name))),
            ["dns-version"] => Some(Meaning::Text(VERSION.into())),
            ["svc" | "pod"] => Some(Meaning::Nothing),
            [namespace, "svc" | "pod"] => zone.services.contains_key(namespace).then_some(Meaning::Nothing),
            // Deprecated, but asked for: an address spelled as a name stands for itself.
            [address, namespace, "pod"] => {
                let ip = undashed(address).filter(|_| zone.services.contains_key(namespace))?;
                Some(Meaning::Addresses(SHORT_TTL, vec![ip]))
            }
            [service, namespace, "svc"] => match &zone.entry(namespace, service)?.kind {
                Kind::Cluster(addresses) => Some(Meaning::Addresses(SERVICE_TTL, addresses.clone())),
                Kind::Headless(hosts) => {
                    let all: BTreeSet<IpAddr> = hosts.values().flat_map(|host| &host.addresses).copied().collect();
                    Some(Meaning::Addresses(SHORT_TTL, all.into_iter().collect()))
                }
                Kind::Alias(to) => Name::from_ascii(format!("{}.", to.trim_end_matches('.')))
                    .ok()
                    .map(Meaning::Alias),
            },
            [label, service, namespace, "svc"] => {
                let entry = zone.entry(namespace, service)?;
                if let Some(protocol) = label.strip_prefix('_') {
                    let known = |ports: &BTreeSet<Port>| {
                        ports
                            .iter()
                            .any(|p| p.protocol.as_str() == protocol && !p.name.is_empty())
                    };
                    return known(&entry.ports).then_some(Meaning::Nothing);
                }
                let Kind::Headless(hosts) = &entry.kind else {
                    return None;
                };
                Some(Meaning::Addresses(
                    SHORT_TTL,
                    hosts.get(label)?.addresses.iter().copied().collect(),
                ))
            }
            [port, protocol, service, namespace, "svc"] => {
                let (port, protocol) = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
                servers(name, zone.entry(namespace, service)?, port, protocol)
            }
            _ => None,
        }
    }

    /// The addresses of SRV targets, to save the client a question each.
    fn targets(&self, zone: &Zone, data: &[RData]) -> Vec<Record> {
        let servers = data.iter().filter_map(|data| match data {
            RData::SRV(server) => Some(&server.target),
            _ => None,
        });
        let targets: BTreeSet<&Name> = servers.collect();
        let of = |target: &Name| {
            let Some(Meaning::Addresses(ttl, addresses)) = self.meaning(zone, target) else {
                return Vec::new();
            };
            let record = |ip: IpAddr| Record::from_rdata(target.clone(), ttl, address(ip));
            addresses.into_iter().map(record).collect()
        };
        targets.into_iter().flat_map(of).collect()
    }

    fn reverse(&self, zone: &Zone, name: &Name, kind: RecordType) -> Option<Answer> {
        let net = self.reverse_net(name)?;
        let single = net.prefix_len() == net.max_prefix_len();
        let known = single.then(|| zone.reverse.get(&net.addr())).flatten();
        let Some(names) = known else {
            // Above a whole address there are names below, so far as we know.
            let code = if single {
                ResponseCode::NXDomain
            } else {
                ResponseCode::NoError
            };
            return self.holds(net).then(|| self.nothing_at(&arpa(net), code, Vec::new()));
        };
        if !matches!(kind, RecordType::PTR | RecordType::ANY) {
            return Some(self.nothing_at(&arpa(net), ResponseCode::NoError, Vec::new()));
        }
        let target = |within: &String| Name::from_ascii(within).ok()?.append_domain(&self.name).ok();
        let record = |target| Record::from_rdata(name.clone(), SHORT_TTL, RData::PTR(PTR(target)));
        let records = names.iter().filter_map(target).map(record).collect();
        Some(Answer {
            code: ResponseCode::NoError,
            records,
            additionals: Vec::new(),
            soa: None,
            continues_at: None,
        })
    }

    /// The network a reverse name stands for.
    fn reverse_net(&self, name: &Name) -> Option<IpNet> {
        name.parse_arpa_name().ok()
    }

    fn holds(&self, net: IpNet) -> bool {
        self.reverse.iter().any(|ours| ours.contains(&net))
    }

    fn nothing(&self, code: ResponseCode, records: Vec<Record>) -> Answer {
        self.nothing_at(&self.name, code, records)
    }

    fn nothing_at(&self, top: &Name, code: ResponseCode, records: Vec<Record>) -> Answer {
        let soa = Some(Record::from_rdata(top.clone(), SHORT_TTL, RData::SOA(self.soa(top))));
        Answer {
            code,
            records,
            additionals: Vec::new(),
            soa,
            continues_at: None,
        }
    }

    /// RFC 2308: the last field is how long a "no" may be remembered. The serial stands still, as nobody copies this zone.
    fn soa(&self, top: &Name) -> SOA {
        let at = |label: &str| self.name.prepend_label(label).unwrap_or_else(|_| top.clone());
        SOA::new(at("ns"), at("hostmaster"), 1, 7200, 1800, 86_400, SHORT_TTL)
    }
}

fn arpa(net: IpNet) -> Name {
    let top = if net.addr().is_ipv4() {
        "in-addr.arpa."
    } else {
        "ip6.arpa."
    };
    Name::from_ascii(top).expect("a constant name")
}

/// The SRV records of `_port._protocol` in front of a Service's name.
fn servers(name: &Name, entry: &Entry, port: &str, protocol: &str) -> Option<Meaning> {
    let asked = |p: &&Port| !p.name.is_empty() && p.name == port && p.protocol.as_str() == protocol;
    let service = name.trim_to(usize::from(name.num_labels()) - 2);
    let targets: Vec<(Name, u16)> = match &entry.kind {
        Kind::Alias(_) => Vec::new(),
        Kind::Cluster(_) => entry
            .ports
            .iter()
            .filter(asked)
            .map(|p| (service.clone(), p.number))
            .collect(),
        Kind::Headless(hosts) => hosts
            .iter()
            .flat_map(|(label, host)| host.ports.iter().filter(asked).map(move |p| (label, p.number)))
            .filter_map(|(label, number)| Some((service.prepend_label(label.as_str()).ok()?, number)))
            .collect(),
    };
    if targets.is_empty() {
        // The port is the Service's own, but no endpoint is there to serve it: the name exists and is empty.
        return entry.ports.iter().any(|p| asked(&p)).then_some(Meaning::Nothing);
    }
    let ttl = if matches!(entry.kind, Kind::Cluster(_)) {
        SERVICE_TTL
    } else {
        SHORT_TTL
    };
    let weight = u16::try_from(100 / targets.len()).unwrap_or(1).max(1);
    Some(Meaning::Servers(
        ttl,
        targets
            .into_iter()
            .map(|(target, port)| SRV::new(0, weight, port, target))
            .collect(),
    ))
}

/// What stands at one name.
enum Meaning {
    Top(SOA),
    Text(String),
    Addresses(u32, Vec<IpAddr>),
    Servers(u32, Vec<SRV>),
    Alias(Name),
    /// Only names below it.
    Nothing,
}

impl Meaning {
    /// The records of one type, and how long they may be remembered.
    fn data(self, kind: RecordType) -> (u32, Vec<RData>) {
        let wanted = |data: &RData| kind == RecordType::ANY || data.record_type() == kind;
        let (ttl, all) = match self {
            Meaning::Top(soa) => (SHORT_TTL, vec![RData::SOA(soa)]),
            Meaning::Text(text) => (SERVICE_TTL, vec![RData::TXT(TXT::new(vec![text]))]),
            Meaning::Addresses(ttl, addresses) => (ttl, addresses.into_iter().map(address).collect()),
            Meaning::Servers(ttl, servers) => (ttl, servers.into_iter().map(RData::SRV).collect()),
            Meaning::Alias(target) => (SERVICE_TTL, vec![RData::CNAME(CNAME(target))]),
            Meaning::Nothing => (SHORT_TTL, Vec::new()),
        };
        (ttl, all.into_iter().filter(wanted).collect())
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}
