//! What policies may know of a pod and of a node, read from their documents and written in the layout of `records`.

use std::collections::BTreeMap;

use model::{Failure, Object, Quantity};
use serde::Deserialize;

use crate::records::{Writer, tag};
use crate::resources::Resources;
use crate::texts::Taker;

type Map = BTreeMap<String, String>;

/// The part of a pod that placing reads (v1 Pod).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Pod {
    pub metadata: Meta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    pub name: String,
    pub namespace: String,
    pub labels: Map,
    pub deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: i32,
    pub node_selector: Map,
    pub affinity: Affinity,
    pub tolerations: Vec<Toleration>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub overhead: Map,
    pub resources: Requirements,
    pub topology_spread_constraints: Vec<SpreadConstraint>,
    pub scheduling_gates: Vec<Gate>,
    pub host_network: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gate {
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub phase: String,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    pub image: String,
    pub resources: Requirements,
    pub ports: Vec<ContainerPort>,
    pub restart_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Requirements {
    pub requests: Map,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    pub container_port: u16,
    pub host_port: u16,
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    pub protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Affinity {
    pub node_affinity: NodeAffinity,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeTerms>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<PreferredTerm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeTerms {
    pub node_selector_terms: Vec<NodeTerm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeTerm {
    pub match_expressions: Vec<Expression>,
    pub match_fields: Vec<Expression>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PreferredTerm {
    pub weight: i32,
    pub preference: NodeTerm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Expression {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Toleration {
    pub key: String,
    pub operator: String,
    pub value: String,
    pub effect: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SpreadConstraint {
    pub max_skew: i32,
    pub topology_key: String,
    pub when_unsatisfiable: String,
    pub min_domains: Option<u32>,
    pub node_affinity_policy: String,
    pub node_taints_policy: String,
    pub label_selector: Option<LabelSelector>,
    pub match_label_keys: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LabelSelector {
    pub match_labels: Map,
    pub match_expressions: Vec<Expression>,
}

impl Pod {
    pub(crate) fn read(object: &Object) -> Result<Self, Failure> {
        object.parse()
    }

    /// Ended for good: it holds nothing on its node any more.
    pub(crate) fn finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// What the pod's own condition says about being scheduled, if it says no.
    pub(crate) fn said_unschedulable(&self) -> Option<&str> {
        let said = self
            .status
            .conditions
            .iter()
            .find(|c| c.kind == "PodScheduled" && c.status == "False");
        said.map(|c| c.message.as_str())
    }

    /// Writes this pod's class. Two pods that no policy could tell apart give the same bytes.
    pub(crate) fn write_class(&self, taker: &mut Taker<'_>, resources: &mut Resources) -> Result<Vec<u8>, Failure> {
        let mut w = Writer::new();
        let spec = &self.spec;
        let namespace = taker.take(&self.metadata.namespace);
        w.block(tag::IDENTITY, |w| {
            w.u32(namespace);
            w.i32(spec.priority);
        });
        let (requests, for_score) = self.requests(taker, resources)?;
        w.section(tag::REQUESTS, &requests, |w, &(resource, amount)| {
            w.u32(resource);
            w.i64(amount);
        });
        w.block(tag::FOR_SCORE, |w| {
            w.i64(for_score.0);
            w.i64(for_score.1);
        });
        let labels = texts(&self.metadata.labels, taker);
        w.section(tag::LABELS, &labels, pair);
        let selector = texts(&spec.node_selector, taker);
        w.section(tag::SELECTOR, &selector, pair);
        if let Some(required) = &spec.affinity.node_affinity.required {
            let terms = terms(required.node_selector_terms.iter(), taker);
            // Written even when empty: a required affinity without terms matches no node.
            w.block(tag::REQUIRED, |w| w.list(&terms, |w, term| w.raw(term)));
        }
        let preferred = &spec.affinity.node_affinity.preferred;
        let preferences = terms(preferred.iter().map(|p| &p.preference), taker);
        let weighed: Vec<_> = preferred.iter().map(|p| p.weight).zip(preferences).collect();
        w.section(tag::PREFERRED, &weighed, |w, (weight, term)| {
            w.i32(*weight);
            w.raw(term);
        });
        w.section(tag::TOLERATIONS, &spec.tolerations, |w, t| {
            w.u32(taker.take(&t.key));
            w.u8(match t.operator.as_str() {
                "Exists" => 1,
                "Lt" => 2,
                "Gt" => 3,
                _ => 0,
            });
            w.u32(taker.take(&t.value));
            w.u8(if t.effect.is_empty() { 255 } else { effect(&t.effect) });
        });
        let ports: Vec<_> = self.host_ports().collect();
        w.section(tag::PORTS, &ports, |w, port| {
            w.u8(match port.protocol.as_str() {
                "UDP" => 1,
                "SCTP" => 2,
                _ => 0,
            });
            w.u16(if port.host_port == 0 {
                port.container_port
            } else {
                port.host_port
            });
            let any = port.host_ip.is_empty() || port.host_ip == "0.0.0.0" || port.host_ip == "::";
            w.u32(if any { 0 } else { taker.take(&port.host_ip) });
        });
        w.section(tag::SPREAD, &spec.topology_spread_constraints, |w, c| {
            self.spread(w, c, taker)
        });
        let images: Vec<u32> = spec.containers.iter().map(|c| taker.take(&c.image)).collect();
        w.section(tag::IMAGES, &images, |w, &image| w.u32(image));
        Ok(w.into_bytes())
    }

    fn host_ports(&self) -> impl Iterator<Item = &ContainerPort> {
        let sidecars = self
            .spec
            .init_containers
            .iter()
            .filter(|c| c.restart_policy == "Always");
        let host_network = self.spec.host_network;
        self.spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|c| &c.ports)
            .filter(move |p| p.host_port != 0 || host_network)
    }

    /// What the pod asks for, and the same for scoring.
    ///
    /// Containers add up; init containers run one after another beside the sidecars started before them, so the pod needs
    /// the largest of those moments (KEP-753); pod-level requests replace the sum (KEP-2837); overhead comes on top.
    fn requests(&self, taker: &mut Taker<'_>, resources: &mut Resources) -> Result<Requests, Failure> {
        let mut running = Amounts::default();
        let mut peak = Amounts::default();
        for container in &self.spec.init_containers {
            let own = Amounts::of(&container.resources.requests, taker, resources)?;
            if container.restart_policy == "Always" {
                running.add(&own);
                peak.raise(&running);
            } else {
                let mut moment = running.clone();
                moment.add(&own);
                peak.raise(&moment);
            }
        }
        for container in &self.spec.containers {
            running.add(&Amounts::of(&container.resources.requests, taker, resources)?);
        }
        peak.raise(&running);
        for (name, text) in &self.spec.resources.requests {
            let index = resources.index(name, taker.log);
            let amount = amount(name, text)?;
            peak.asked.insert(index, amount);
            match name.as_str() {
                "cpu" => peak.for_score.0 = amount,
                "memory" => peak.for_score.1 = amount,
                _ => {}
            }
        }
        if !self.spec.overhead.is_empty() {
            let mut overhead = Amounts::of(&self.spec.overhead, taker, resources)?;
            overhead.for_score = (overhead.asked(0), overhead.asked(1));
            peak.add(&overhead);
        }
        let asked = peak.asked.into_iter().filter(|&(_, amount)| amount != 0).collect();
        Ok((asked, peak.for_score))
    }

    fn spread(&self, w: &mut Writer, c: &SpreadConstraint, taker: &mut Taker<'_>) {
        w.i32(c.max_skew);
        w.u32(taker.take(&c.topology_key));
        w.u8(u8::from(c.when_unsatisfiable == "ScheduleAnyway"));
        w.u32(c.min_domains.unwrap_or(1));
        w.u8(u8::from(c.node_affinity_policy != "Ignore"));
        w.u8(u8::from(c.node_taints_policy == "Honor"));
        w.u8(u8::from(c.label_selector.is_none()));
        let mut expressions = Vec::new();
        if let Some(selector) = &c.label_selector {
            for (key, value) in &selector.match_labels {
                expressions.push(expression(key, "In", std::slice::from_ref(value), taker));
            }
            for e in &selector.match_expressions {
                expressions.push(expression(&e.key, &e.operator, &e.values, taker));
            }
            // KEP-3243: also equal to this pod's own value of each key that it has.
            for key in &c.match_label_keys {
                if let Some(value) = self.metadata.labels.get(key) {
                    expressions.push(expression(key, "In", std::slice::from_ref(value), taker));
                }
            }
        }
        w.list(&expressions, |w, e| w.raw(e));
    }
}

type Requests = (Vec<(u32, i64)>, (i64, i64));

/// What kube-scheduler assumes for scoring of a container that asks for none.
const ASSUMED_CPU: i64 = 100;
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

#[derive(Debug, Clone, Default)]
struct Amounts {
    asked: BTreeMap<u32, i64>,
    for_score: (i64, i64),
}

impl Amounts {
    fn of(requests: &Map, taker: &mut Taker<'_>, resources: &mut Resources) -> Result<Self, Failure> {
        let mut asked = BTreeMap::new();
        for (name, text) in requests {
            asked.insert(resources.index(name, taker.log), amount(name, text)?);
        }
        let or = |index, assumed| asked.get(&index).copied().unwrap_or(assumed);
        let for_score = (or(0, ASSUMED_CPU), or(1, ASSUMED_MEMORY));
        Ok(Self { asked, for_score })
    }

    fn asked(&self, index: u32) -> i64 {
        self.asked.get(&index).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Amounts) {
        for (&resource, amount) in &other.asked {
            let sum = self.asked.entry(resource).or_default();
            *sum = sum.saturating_add(*amount);
        }
        self.for_score.0 = self.for_score.0.saturating_add(other.for_score.0);
        self.for_score.1 = self.for_score.1.saturating_add(other.for_score.1);
    }

    fn raise(&mut self, other: &Amounts) {
        for (&resource, &amount) in &other.asked {
            let most = self.asked.entry(resource).or_default();
            *most = amount.max(*most);
        }
        self.for_score.0 = self.for_score.0.max(other.for_score.0);
        self.for_score.1 = self.for_score.1.max(other.for_score.1);
    }
}

/// Millicores for cpu, whole units for everything else, rounded up.
fn amount(resource: &str, text: &str) -> Result<i64, Failure> {
    let quantity = Quantity::parse(text)?;
    Ok(if resource == "cpu" {
        quantity.milli()
    } else {
        quantity.value()
    })
}

fn effect(text: &str) -> u8 {
    match text {
        "PreferNoSchedule" => 1,
        "NoExecute" => 2,
        _ => 0,
    }
}

fn texts(map: &Map, taker: &mut Taker<'_>) -> Vec<(u32, u32)> {
    map.iter()
        .map(|(key, value)| (taker.take(key), taker.take(value)))
        .collect()
}

fn pair(w: &mut Writer, &(key, value): &(u32, u32)) {
    w.u32(key);
    w.u32(value);
}

fn expression(key: &str, operator: &str, values: &[String], taker: &mut Taker<'_>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(taker.take(key));
    w.u8(match operator {
        "NotIn" => 1,
        "Exists" => 2,
        "DoesNotExist" => 3,
        "Gt" => 4,
        "Lt" => 5,
        _ => 0,
    });
    w.list(values, |w, value| w.u32(taker.take(value)));
    w.into_bytes()
}

fn terms<'a>(terms: impl Iterator<Item = &'a NodeTerm>, taker: &mut Taker<'_>) -> Vec<Vec<u8>> {
    let mut side = |expressions: &[Expression], w: &mut Writer| {
        w.list(expressions, |w, e| {
            w.raw(&expression(&e.key, &e.operator, &e.values, taker))
        });
    };
    terms
        .map(|term| {
            let mut w = Writer::new();
            side(&term.match_expressions, &mut w);
            side(&term.match_fields, &mut w);
            w.into_bytes()
        })
        .collect()
}

/// The part of a node that placing reads (v1 Node).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Node {
    pub metadata: Meta,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeSpec {
    pub unschedulable: bool,
    pub taints: Vec<NodeTaint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeTaint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub allocatable: Map,
    pub images: Vec<Image>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Image {
    pub names: Vec<String>,
    pub size_bytes: i64,
}

impl Node {
    /// Writes the body of a node record behind its slot. Equal bytes mean that placing cannot see a difference, so a heartbeat
    /// in a condition is told to nobody.
    pub(crate) fn write(&self, taker: &mut Taker<'_>, resources: &mut Resources) -> Result<Vec<u8>, Failure> {
        let mut w = Writer::new();
        w.u32(taker.take(&self.metadata.name));
        w.u8(u8::from(self.spec.unschedulable));
        let mut allocatable = Vec::new();
        for (name, text) in &self.status.allocatable {
            allocatable.push((resources.index(name, taker.log), amount(name, text)?));
        }
        w.list(&allocatable, |w, &(resource, amount)| {
            w.u32(resource);
            w.i64(amount);
        });
        let labels = texts(&self.metadata.labels, taker);
        w.list(&labels, pair);
        w.list(&self.spec.taints, |w, taint| {
            w.u32(taker.take(&taint.key));
            w.u32(taker.take(&taint.value));
            w.u8(effect(&taint.effect));
        });
        let images: Vec<_> = self
            .status
            .images
            .iter()
            .flat_map(|i| i.names.iter().map(|n| (n, i.size_bytes)))
            .collect();
        w.list(&images, |w, (name, size)| {
            w.u32(taker.take(name));
            w.i64(*size);
        });
        Ok(w.into_bytes())
    }
}
