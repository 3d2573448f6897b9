//! A pod as an endpoint of a Service.

use std::collections::BTreeMap;

use sdk::view::{Changes, Identity};
use sdk::{Fields, Value, View, json, within};

use crate::{NODE, POD, Service};

#[derive(Fields)]
pub(crate) struct Pod {
    #[at(".metadata.deletionTimestamp?")]
    terminating: bool,
    #[at(".status.phase")]
    phase: String,
    #[at(".status.podIP")]
    ip: String,
    #[at(".status.podIPs[*].ip")]
    ips: Vec<String>,
    #[at(".status.conditions[type=Ready].status")]
    ready: String,
    #[at(".spec.nodeName")]
    node: String,
    #[at(".spec.hostname")]
    hostname: String,
    #[at(".spec.subdomain")]
    subdomain: String,
}

/// What came, changed or went since `cursor`.
pub(crate) fn pods(service: &Service, cursor: u64, view: &View) -> sdk::Result<Changes<Pod>> {
    let selected = within(&service.namespace).labels(sdk::selector::of_labels(&service.selector));
    view.changes(POD, &selected, cursor)
}

/// `IPv4` or `IPv6`, the ports as a slice has them, the endpoint.
pub(crate) type Made = (String, String, Value);

/// Makes endpoints, and remembers what it looked up for them.
pub(crate) struct Maker<'a> {
    service: &'a Service,
    view: &'a View,
    zones: BTreeMap<String, String>,
    /// Some target port is a name, which each pod gives a number of its own.
    named: bool,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(service: &'a Service, view: &'a View) -> sdk::Result<Self> {
        let named = service.ports().iter().any(|port| port["targetPort"].is_string());
        Ok(Self {
            service,
            view,
            zones: BTreeMap::new(),
            named,
        })
    }

    /// One for each address family that the Service has and the pod has an address of; none for pods that are finished or
    /// have no address yet.
    pub(crate) fn endpoints(&mut self, identity: &Identity, pod: &Pod) -> sdk::Result<Vec<Made>> {
        let mut ips = pod.ips.clone();
        ips.push(pod.ip.clone());
        ips.retain(|ip| !ip.is_empty());
        if ips.is_empty() || matches!(pod.phase.as_str(), "Succeeded" | "Failed") {
            return Ok(Vec::new());
        }
        let ports = Value::from(self.ports(identity)?).to_string();
        let mut made = Vec::new();
        for family in self.service.families() {
            let is_six = family == "IPv6";
            let Some(ip) = ips.iter().find(|ip| ip.contains(':') == is_six) else {
                continue;
            };
            made.push((family, ports.clone(), self.endpoint(identity, pod, ip)?));
        }
        Ok(made)
    }

    fn endpoint(&mut self, identity: &Identity, pod: &Pod, ip: &str) -> sdk::Result<Value> {
        let serving = pod.ready == "True";
        let mut endpoint = json!({
            "addresses": [ip],
            "conditions": {
                "ready": self.service.publishes_not_ready || (serving && !pod.terminating),
                "serving": serving,
                "terminating": pod.terminating,
            },
            "targetRef": {
                "kind": "Pod",
                "namespace": identity.namespace,
                "name": identity.name,
                "uid": identity.uid,
            },
        });
        if !pod.node.is_empty() {
            endpoint["nodeName"] = pod.node.as_str().into();
            let zone = self.zone(&pod.node)?;
            if !zone.is_empty() {
                endpoint["zone"] = zone.into();
            }
        }
        if !pod.hostname.is_empty() && pod.subdomain == self.service.name {
            endpoint["hostname"] = pod.hostname.as_str().into();
        }
        Ok(endpoint)
    }

    fn zone(&mut self, node: &str) -> sdk::Result<String> {
        #[derive(Fields)]
        struct Node {
            #[at(".metadata.labels[\"topology.kubernetes.io/zone\"]")]
            zone: String,
        }
        if let Some(zone) = self.zones.get(node) {
            return Ok(zone.clone());
        }
        let zone = self
            .view
            .get::<Node>(NODE, "", node)?
            .map(|node| node.zone)
            .unwrap_or_default();
        self.zones.insert(node.to_owned(), zone.clone());
        Ok(zone)
    }

    /// The Service's ports with the pod's numbers. A name that the pod does not have leaves the port out, for this pod.
    fn ports(&self, identity: &Identity) -> sdk::Result<Vec<Value>> {
        let containers = if self.named {
            self.container_ports(identity)?
        } else {
            Vec::new()
        };
        let mut ports = Vec::new();
        for port in self.service.ports() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let number = match &port["targetPort"] {
                Value::String(name) => {
                    let is =
                        |own: &&Value| own["name"] == **name && own["protocol"].as_str().unwrap_or("TCP") == protocol;
                    containers.iter().find(is).map(|own| own["containerPort"].clone())
                }
                Value::Number(number) if number.as_i64() != Some(0) => Some(number.clone().into()),
                _ => Some(port["port"].clone()),
            };
            let Some(number) = number else { continue };
            let name = port["name"].as_str().unwrap_or_default();
            let mut made = json!({"name": name, "protocol": protocol, "port": number});
            if !port["appProtocol"].is_null() {
                made["appProtocol"] = port["appProtocol"].clone();
            }
            ports.push(made);
        }
        Ok(ports)
    }

    fn container_ports(&self, identity: &Identity) -> sdk::Result<Vec<Value>> {
        #[derive(Fields)]
        struct Ports {
            #[at(".spec.containers[*].ports[*]")]
            of_containers: Value,
            #[at(".spec.initContainers")]
            init: Value,
        }
        let Some(ports) = self.view.get::<Ports>(POD, &identity.namespace, &identity.name)? else {
            return Ok(Vec::new());
        };
        let mut all = ports.of_containers.as_array().cloned().unwrap_or_default();
        // Of the init containers, those that go on running beside the others (KEP-753).
        let sidecars = ports
            .init
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["restartPolicy"] == "Always");
        all.extend(sidecars.filter_map(|one| one["ports"].as_array()).flatten().cloned());
        Ok(all)
    }
}
