//! The Services of the cluster, indexed by name and by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::facts::{EndpointSlice, Protocol, Service, ServicePort, ServiceType, World};

/// Made anew from each world; small, as it holds names and addresses only.
#[derive(Debug, Default)]
pub struct Zone {
    /// By namespace, then by name.
    pub services: HashMap<String, HashMap<String, Entry>>,
    pub reverse: HashMap<IpAddr, BTreeSet<String>>,
}

#[derive(Debug)]
pub struct Entry {
    pub kind: Kind,
    pub ports: BTreeSet<Port>,
}

#[derive(Debug)]
pub enum Kind {
    Cluster(Vec<IpAddr>),
    /// Ready endpoints by their label: the hostname, or the address with dashes.
    Headless(BTreeMap<String, Host>),
    Alias(String),
}

#[derive(Debug, Default)]
pub struct Host {
    pub addresses: BTreeSet<IpAddr>,
    /// Target ports, as the slices give them.
    pub ports: BTreeSet<Port>,
}

/// What an SRV record says of a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub protocol: Protocol,
    pub number: u16,
}

impl Zone {
    pub fn new(world: &World) -> Self {
        let mut slices: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
        for slice in &world.slices {
            slices
                .entry((&slice.metadata.namespace, slice.service()))
                .or_default()
                .push(slice);
        }
        let mut zone = Zone::default();
        for service in &world.services {
            let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
            let slices = slices
                .get(&(namespace.as_str(), name.as_str()))
                .map_or(&[][..], Vec::as_slice);
            let entry = Entry::new(service, slices);
            let within = format!("{name}.{namespace}.svc");
            for (label, ip) in entry.reverse() {
                let name = if label.is_empty() {
                    within.clone()
                } else {
                    format!("{label}.{within}")
                };
                zone.reverse.entry(ip).or_default().insert(name);
            }
            zone.services
                .entry(namespace.clone())
                .or_default()
                .insert(name.clone(), entry);
        }
        zone
    }

    pub fn entry(&self, namespace: &str, service: &str) -> Option<&Entry> {
        self.services.get(namespace)?.get(service)
    }
}

impl Entry {
    fn new(service: &Service, slices: &[&EndpointSlice]) -> Self {
        let spec = &service.spec;
        let port = |p: &ServicePort| Port {
            name: p.name.clone(),
            protocol: p.protocol,
            number: p.port,
        };
        let ports = spec.ports.iter().map(port).collect();
        let kind = if spec.kind == ServiceType::ExternalName {
            Kind::Alias(spec.external_name.clone())
        } else if spec.headless() {
            Kind::Headless(hosts(slices))
        } else {
            Kind::Cluster(spec.addresses().filter_map(|ip| ip.parse().ok()).collect())
        };
        Self { kind, ports }
    }

    /// Which addresses lead back here; the label is empty for the Service itself.
    fn reverse(&self) -> Vec<(&str, IpAddr)> {
        match &self.kind {
            Kind::Alias(_) => Vec::new(),
            Kind::Cluster(addresses) => addresses.iter().map(|ip| ("", *ip)).collect(),
            Kind::Headless(hosts) => hosts
                .iter()
                .flat_map(|(label, host)| host.addresses.iter().map(|ip| (label.as_str(), *ip)))
                .collect(),
        }
    }
}

/// The ready endpoints of a headless Service. (Where `publishNotReadyAddresses` is set, the slices call all ready.)
fn hosts(slices: &[&EndpointSlice]) -> BTreeMap<String, Host> {
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().filter_map(|p| {
            Some(Port {
                name: p.name.clone(),
                protocol: p.protocol,
                number: p.port?,
            })
        });
        let ports: Vec<Port> = ports.collect();
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready()) {
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
                let label = if endpoint.hostname.is_empty() {
                    dashed(ip)
                } else {
                    endpoint.hostname.to_lowercase()
                };
                let host = hosts.entry(label).or_default();
                host.addresses.insert(ip);
                host.ports.extend(ports.iter().cloned());
            }
        }
    }
    hosts
}

/// `10-1-2-3`, `fd00--1`: an address as a label.
fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}
