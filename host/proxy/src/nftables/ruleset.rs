//! A plan as nftables objects: what the tables should hold, as a value that can be compared.
//!
//! New connections find their Service port by one look-up in a map, so the cost of a packet does not grow with the number
//! of Services. Established ones never come here: conntrack keeps their translation, whatever happens to the rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::facts::Protocol;
use crate::plan::{Backend, Backends, Family, Plan, PortName, PortPlan};

/// What a plan alone does not say.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where pods' addresses come from. Others that use a cluster IP are masqueraded, so that answers find their way back
    /// through this node. Empty: nobody is, but for hairpins.
    pub pod_cidrs: Vec<IpNet>,
    /// Masquerade every connection to a cluster IP.
    pub masquerade_all: bool,
    /// Where node ports answer; empty: on every address of the node but loopback.
    pub node_port_addresses: Vec<IpAddr>,
}

/// Our table, in the families `ip` and `ip6`.
pub const TABLE: &str = "pilotis-proxy";

/// kube-proxy's bit, so that firewalls which know of it know of ours.
const MASQUERADE_MARK: &str = "0x4000";

/// The contents of one table: chains of rules, sets and maps of elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// `type nat hook prerouting priority -100 ;` for a base chain; empty for others. Never changes for a name.
    pub hook: &'static str,
    pub rules: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    pub is_map: bool,
    /// `type ipv4_addr ;` and so on.
    pub spec: String,
    /// Key to verdict; the verdict is empty in a set. Dynamic sets hold what the kernel learned, and none here.
    pub elements: BTreeMap<String, String>,
}

/// Writes the ruleset of one family.
pub fn ruleset(plan: &Plan, family: Family, settings: &Settings) -> Ruleset {
    let mut writer = Writer {
        words: Words::of(family),
        ruleset: Ruleset::default(),
        settings,
    };
    writer.frame();
    for (name, port) in plan.ports.iter().filter(|(name, _)| name.family == family) {
        writer.port(name, port);
    }
    writer.ruleset
}

/// How the two families differ in nft's language.
struct Words {
    family: Family,
    ip: &'static str,
    address: &'static str,
    loopback: &'static str,
}

impl Words {
    fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                ip: "ip",
                address: "ipv4_addr",
                loopback: "127.0.0.0/8",
            },
            Family::V6 => Self {
                family,
                ip: "ip6",
                address: "ipv6_addr",
                loopback: "::1",
            },
        }
    }
}

struct Writer<'a> {
    words: Words,
    ruleset: Ruleset,
    settings: &'a Settings,
}

impl Writer<'_> {
    /// What is there even without a Service: hooks and empty maps.
    fn frame(&mut self) {
        let Words { ip, address, .. } = self.words;
        let by_address = format!("type {address} . inet_proto . inet_service : verdict ;");
        for map in ["service-ips", "unserved-ips", "firewall-ips"] {
            self.ruleset.sets.insert(
                map.into(),
                Set {
                    is_map: true,
                    spec: by_address.clone(),
                    ..Set::default()
                },
            );
        }
        for map in ["service-nodeports", "unserved-nodeports"] {
            let spec = "type inet_proto . inet_service : verdict ;".into();
            self.ruleset.sets.insert(
                map.into(),
                Set {
                    is_map: true,
                    spec,
                    ..Set::default()
                },
            );
        }
        let set = |spec| Set { spec, ..Set::default() };
        self.ruleset
            .sets
            .insert("cluster-ips".into(), set(format!("type {address} ;")));
        self.ruleset
            .sets
            .insert("hairpins".into(), set(format!("type {address} . {address} ;")));

        let lookup = format!("{ip} daddr . meta l4proto . th dport vmap");
        let to_node = self.to_node();
        self.chain(
            "services",
            [
                format!("{lookup} @service-ips"),
                format!("{to_node} meta l4proto . th dport vmap @service-nodeports"),
            ],
        );
        // Whatever was not translated and has a Service's address met no endpoint, no such port, or the exchange of rules.
        self.chain(
            "unserved",
            [
                format!("{lookup} @unserved-ips"),
                format!("{ip} daddr @cluster-ips goto refuse"),
                format!("{to_node} meta l4proto . th dport vmap @unserved-nodeports"),
            ],
        );
        self.chain("firewall", [format!("{lookup} @firewall-ips")]);
        self.chain(
            "refuse",
            ["meta l4proto tcp reject with tcp reset".into(), "reject".into()],
        );
        self.chain(
            "mark-for-masquerade",
            [format!("meta mark set meta mark or {MASQUERADE_MARK}")],
        );

        self.hook(
            "nat-prerouting",
            "type nat hook prerouting priority -100 ;",
            ["jump services".into()],
        );
        self.hook(
            "nat-output",
            "type nat hook output priority -100 ;",
            ["jump services".into()],
        );
        self.hook("nat-postrouting", "type nat hook postrouting priority 100 ;", [
            // Off again, so that a packet that is encapsulated and sent once more is not masqueraded twice.
            format!("meta mark and {MASQUERADE_MARK} != 0 meta mark set meta mark xor {MASQUERADE_MARK} masquerade fully-random"),
            format!("ct status dnat {ip} saddr . {ip} daddr @hairpins masquerade fully-random"),
        ]);
        // Before translation, while the address asked for can still be seen.
        let fresh = "ct state new jump firewall";
        self.hook(
            "filter-prerouting-before",
            "type filter hook prerouting priority -110 ;",
            [fresh.into()],
        );
        self.hook(
            "filter-output-before",
            "type filter hook output priority -110 ;",
            [fresh.into()],
        );
        // An endpoint may have the address and port of a Service: what was translated is past all this.
        let untranslated = "ct state new ct status and dnat == 0 jump unserved";
        self.hook(
            "filter-prerouting-after",
            "type filter hook prerouting priority -90 ;",
            [untranslated.into()],
        );
        self.hook(
            "filter-output-after",
            "type filter hook output priority -90 ;",
            [untranslated.into()],
        );
    }

    /// Matches a packet to an address where node ports answer.
    fn to_node(&self) -> String {
        let Words {
            ip, loopback, family, ..
        } = self.words;
        let ours = self
            .settings
            .node_port_addresses
            .iter()
            .filter(|at| Family::of(**at) == family);
        let ours: Vec<String> = ours.map(IpAddr::to_string).collect();
        match ours.is_empty() {
            true => format!("fib daddr type local {ip} daddr != {loopback}"),
            false => format!("{ip} daddr {{ {} }}", ours.join(" , ")),
        }
    }

    fn port(&mut self, name: &PortName, port: &PortPlan) {
        let protocol = name.protocol.as_str();
        let key = |ip: &IpAddr| format!("{ip} . {protocol} . {}", port.port);
        self.element("cluster-ips", port.cluster_ip.to_string(), "");

        let internal = self.internal(name, port);
        if let Backends::To(_) = port.internal {
            self.element("service-ips", key(&port.cluster_ip), &format!("goto {internal}"));
        }
        self.element("unserved-ips", key(&port.cluster_ip), silence(&port.internal));
        if port.has_external() {
            self.external(name, port);
        }
        for Backend(at) in port
            .internal
            .endpoints()
            .chain(port.external.endpoints())
            .chain(port.anywhere.endpoints())
        {
            self.element("hairpins", format!("{0} . {0}", at.ip()), "");
        }
    }

    /// The chain for clients that use the cluster IP; masquerades those who are no pods.
    fn internal(&mut self, name: &PortName, port: &PortPlan) -> String {
        let Backends::To(_) = port.internal else {
            return String::new();
        };
        let target = self.balance(name, port, &port.internal, &port.anywhere);
        let ip = self.words.ip;
        let pods = self.pods();
        let mark = match (self.settings.masquerade_all, pods) {
            (true, _) => "jump mark-for-masquerade".to_owned(),
            (false, Some(pods)) => format!("{ip} saddr != {pods} jump mark-for-masquerade"),
            (false, None) => return target,
        };
        let chain = format!("internal-{name}");
        self.chain(&chain, [mark, format!("goto {target}")]);
        chain
    }

    /// The chain for clients that come through the node port, an external or a balancer's address.
    fn external(&mut self, name: &PortName, port: &PortPlan) {
        let protocol = name.protocol.as_str();
        let ip = self.words.ip;
        let reaches_someone =
            matches!(port.external, Backends::To(_)) || (port.keeps_source && matches!(port.anywhere, Backends::To(_)));
        let mut rules = Vec::new();
        if port.keeps_source {
            if let Backends::To(_) = port.anywhere {
                // The policy is for outsiders: for who is inside, the outer addresses are names of the whole Service.
                let whole = self.balance(name, port, &port.anywhere, &port.anywhere);
                if let Some(pods) = self.pods() {
                    rules.push(format!("{ip} saddr {pods} goto {whole}"));
                }
                rules.push("fib saddr type local jump mark-for-masquerade".into());
                rules.push(format!("fib saddr type local goto {whole}"));
            }
        } else {
            rules.push("jump mark-for-masquerade".into());
        }
        if let Backends::To(_) = port.external {
            let target = self.balance(name, port, &port.external, &port.anywhere);
            rules.push(format!("goto {target}"));
        }
        let chain = format!("external-{name}");
        if reaches_someone {
            self.chain(&chain, rules);
        }

        let key = |ip: &IpAddr| format!("{ip} . {protocol} . {}", port.port);
        let guarded = !port.source_ranges.is_empty() && !port.load_balancer_ips.is_empty();
        if guarded {
            let ranges: Vec<String> = port.source_ranges.iter().map(IpNet::to_string).collect();
            self.chain(
                &format!("firewall-{name}"),
                [format!("{ip} saddr != {{ {} }} drop", ranges.join(" , "))],
            );
        }
        for at in &port.load_balancer_ips {
            if guarded {
                self.element("firewall-ips", key(at), &format!("goto firewall-{name}"));
            }
        }
        // Both maps hold a key: `unserved` sees only what the chain above did not translate.
        for at in port.external_ips.iter().chain(&port.load_balancer_ips) {
            if reaches_someone {
                self.element("service-ips", key(at), &format!("goto {chain}"));
            }
            self.element("unserved-ips", key(at), silence(&port.external));
        }
        if let Some(node_port) = port.node_port {
            let key = format!("{protocol} . {node_port}");
            if reaches_someone {
                self.element("service-nodeports", key.clone(), &format!("goto {chain}"));
            }
            self.element("unserved-nodeports", key, silence(&port.external));
        }
    }

    /// The chain that picks one of `among`. Chains are named for who is in them: all of `anywhere`, or this node's.
    fn balance(&mut self, name: &PortName, port: &PortPlan, among: &Backends, anywhere: &Backends) -> String {
        let chain = if among == anywhere {
            format!("cluster-{name}")
        } else {
            format!("local-{name}")
        };
        if self.ruleset.chains.contains_key(&chain) {
            return chain;
        }
        let endpoints: Vec<SocketAddr> = among.endpoints().map(|Backend(at)| *at).collect();
        let rules = match port.affinity {
            None => vec![dnat(self.words.ip, name.protocol, &endpoints)],
            Some(seconds) => self.sticky(name, seconds, &endpoints),
        };
        self.chain(&chain, rules);
        chain
    }

    /// One chain and one set of clients for each endpoint; a client in a set goes back to its endpoint.
    fn sticky(&mut self, name: &PortName, seconds: u32, endpoints: &[SocketAddr]) -> Vec<String> {
        let Words { ip, address, .. } = self.words;
        let mut rules = Vec::new();
        let mut verdicts = Vec::new();
        for (i, at) in endpoints.iter().enumerate() {
            let of = format!("{name}__{}/{}", at.ip().to_string().replace(':', "."), at.port());
            let (chain, set) = (format!("endpoint-{of}"), format!("affinity-{of}"));
            let spec = format!("type {address} ; flags dynamic,timeout ; timeout {seconds}s ; size 65535 ;");
            self.ruleset.sets.insert(set.clone(), Set { spec, ..Set::default() });
            self.chain(
                &chain,
                [
                    format!("update @{set} {{ {ip} saddr }}"),
                    dnat(ip, name.protocol, &[*at]),
                ],
            );
            rules.push(format!("{ip} saddr @{set} goto {chain}"));
            verdicts.push(format!("{i} : goto {chain}"));
        }
        rules.push(format!(
            "numgen random mod {} vmap {{ {} }}",
            endpoints.len(),
            verdicts.join(" , ")
        ));
        rules
    }

    /// The pods' networks of this family as a set.
    fn pods(&self) -> Option<String> {
        let ours = self
            .settings
            .pod_cidrs
            .iter()
            .filter(|net| Family::of(net.addr()) == self.words.family);
        let ours: Vec<String> = IpNet::aggregate(&ours.copied().collect())
            .iter()
            .map(IpNet::to_string)
            .collect();
        (!ours.is_empty()).then(|| format!("{{ {} }}", ours.join(" , ")))
    }

    fn chain(&mut self, name: &str, rules: impl IntoIterator<Item = String>) {
        self.hook(name, "", rules);
    }

    fn hook(&mut self, name: &str, hook: &'static str, rules: impl IntoIterator<Item = String>) {
        self.ruleset.chains.insert(
            name.into(),
            Chain {
                hook,
                rules: rules.into_iter().collect(),
            },
        );
    }

    /// The first of two Services that claim one address and port keeps it, as the order of names decides.
    fn element(&mut self, set: &str, key: String, verdict: &str) {
        let set = self
            .ruleset
            .sets
            .get_mut(set)
            .expect("the frame made every set that holds elements");
        set.elements.entry(key).or_insert_with(|| verdict.to_owned());
    }
}

/// What to do with a packet that finds nobody.
///
/// Where there are endpoints it came while the rules were exchanged: the kernel takes the elements of a map out of service
/// for a packet that is already on its way through the old rules. Dropped, it is sent again within a second, and a refusal
/// would be the end of it.
fn silence(backends: &Backends) -> &'static str {
    match backends {
        Backends::Drop | Backends::To(_) => "drop",
        Backends::Refuse => "goto refuse",
    }
}

fn dnat(ip: &str, protocol: Protocol, endpoints: &[SocketAddr]) -> String {
    let protocol = protocol.as_str();
    match endpoints {
        [one] => format!("meta l4proto {protocol} dnat to {one}"),
        many => {
            let many: Vec<String> = many
                .iter()
                .enumerate()
                .map(|(i, at)| format!("{i} : {} . {}", at.ip(), at.port()))
                .collect();
            let (n, map) = (many.len(), many.join(" , "));
            format!("meta l4proto {protocol} dnat {ip} to numgen random mod {n} map {{ {map} }}")
        }
    }
}
