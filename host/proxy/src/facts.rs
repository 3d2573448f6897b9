//! What the proxy reads of a Service, an EndpointSlice and a Node: those fields and no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// Everything a plan is made from, in the order of the objects' keys.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub services: Vec<Arc<Service>>,
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The node this proxy runs on, once it is known.
    pub node: Option<Arc<Node>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
}

/// `v1 Service`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    pub metadata: Metadata,
    pub spec: ServiceSpec,
    pub status: ServiceStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: ServiceType,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    pub ports: Vec<ServicePort>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    pub external_name: String,
    pub session_affinity: Affinity,
    pub session_affinity_config: AffinityConfig,
    pub external_traffic_policy: TrafficPolicy,
    pub internal_traffic_policy: TrafficPolicy,
    pub load_balancer_source_ranges: Vec<String>,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode` (KEP-3015); empty: no preference.
    pub traffic_distribution: String,
}

impl ServiceSpec {
    /// The cluster IPs as texts, also for an object written before `clusterIPs` existed.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let old = self
            .cluster_ips
            .is_empty()
            .then_some(self.cluster_ip.as_str())
            .filter(|ip| !ip.is_empty());
        self.cluster_ips.iter().map(String::as_str).chain(old)
    }

    /// Without a cluster IP by choice: DNS answers with the endpoints, and there is nothing to proxy.
    pub fn headless(&self) -> bool {
        self.addresses().any(|ip| ip == "None")
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// 0: none.
    pub node_port: u16,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

impl Protocol {
    /// `tcp`, as nftables, DNS and port names spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Affinity {
    #[default]
    None,
    ClientIP,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AffinityConfig {
    #[serde(rename = "clientIP")]
    pub client_ip: ClientIpAffinity,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpAffinity {
    pub timeout_seconds: u32,
}

impl Default for ClientIpAffinity {
    /// Three hours, as the API defaults it.
    fn default() -> Self {
        Self {
            timeout_seconds: 10_800,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    pub load_balancer: LoadBalancerStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    pub ingress: Vec<Ingress>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ingress {
    pub ip: String,
    /// `VIP` (also when empty) or `Proxy`: packets come with the node as destination, so there is nothing to catch
    /// (KEP-1860).
    pub ip_mode: String,
}

/// `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    pub metadata: Metadata,
    pub address_type: AddressType,
    #[serde(deserialize_with = "null_is_none")]
    pub endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "null_is_none")]
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// The Service it belongs to; empty for a slice of somebody else.
    pub fn service(&self) -> &str {
        self.metadata
            .labels
            .get("kubernetes.io/service-name")
            .map_or("", String::as_str)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum AddressType {
    #[default]
    IPv4,
    IPv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    pub addresses: Vec<String>,
    pub conditions: Conditions,
    pub hostname: String,
    pub node_name: String,
    pub hints: Hints,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl Conditions {
    /// Unknown counts as ready (API doc of `EndpointConditions`).
    pub fn ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }

    pub fn serving(&self) -> bool {
        self.serving.unwrap_or_else(|| self.ready())
    }

    pub fn terminating(&self) -> bool {
        self.terminating.unwrap_or(false)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hints {
    pub for_zones: Vec<Named>,
    pub for_nodes: Vec<Named>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    pub name: String,
    pub protocol: Protocol,
    /// `None`: all ports; such a slice says nothing to a proxy.
    pub port: Option<u16>,
}

/// `v1 Node`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Node {
    pub metadata: Metadata,
}

impl Node {
    /// Empty when the node is in no zone.
    pub fn zone(&self) -> &str {
        self.metadata
            .labels
            .get("topology.kubernetes.io/zone")
            .map_or("", String::as_str)
    }
}

/// kube-apiserver writes an EndpointSlice's empty lists as `null`.
fn null_is_none<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slice_leaves_out_means_what_the_api_says() {
        let unsaid: Conditions = serde_json::from_str("{}").unwrap();
        assert!(unsaid.ready() && unsaid.serving() && !unsaid.terminating());
        let leaving: Conditions = serde_json::from_str(r#"{"ready":false,"serving":true,"terminating":true}"#).unwrap();
        assert!(!leaving.ready() && leaving.serving() && leaving.terminating());
    }

    #[test]
    fn an_empty_slice_and_an_old_service_are_read() {
        let slice: EndpointSlice =
            serde_json::from_str(r#"{"addressType":"IPv4","endpoints":null,"ports":null}"#).unwrap();
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
        let service: Service = serde_json::from_str(r#"{"spec":{"clusterIP":"10.0.0.1"}}"#).unwrap();
        assert_eq!(service.spec.addresses().collect::<Vec<_>>(), ["10.0.0.1"]);
        assert_eq!(service.spec.session_affinity_config.client_ip.timeout_seconds, 10_800);
    }
}
