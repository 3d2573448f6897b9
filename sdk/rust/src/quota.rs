//! ResourceQuota: what its names count and which pods its scopes are about. For the rule that charges a quota and the
//! controller that counts it, which must agree.

use crate::pods::{Amounts, Part, total};
use crate::{Quantity, Value};

/// What a name in `spec.hard` counts (Kubernetes' documentation, "Resource Quotas").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// Pods that have not ended (`pods`).
    Pods,
    /// `requests.cpu`, `limits.memory`, `requests.nvidia.com/gpu`, `hugepages-2Mi`; the name of the resource itself.
    Compute(Part, String),
    /// Every object of a kind: the resource with its group, `deployments.apps` (`count/deployments.apps`, `services`).
    Objects(String),
    /// Ports that Services have on the nodes (`services.nodeports`).
    NodePorts,
    /// `services.loadbalancers`.
    LoadBalancers,
    /// What claims ask for: of all storage classes, or of this one (`requests.storage`).
    Storage(Option<String>),
    /// Claims of a storage class (`gold.storageclass.storage.k8s.io/persistentvolumeclaims`).
    ClaimsOf(String),
}

const OF_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Names from before there was `count/`.
const OBJECTS: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

impl Counted {
    /// `None` for a name that nothing counts.
    pub fn of(name: &str) -> Option<Self> {
        if let Some((class, what)) = name.split_once(OF_STORAGE_CLASS) {
            return match what {
                "requests.storage" => Some(Counted::Storage(Some(class.to_owned()))),
                "persistentvolumeclaims" => Some(Counted::ClaimsOf(class.to_owned())),
                _ => None,
            };
        }
        if let Some(resource) = name.strip_prefix("count/") {
            return Some(Counted::Objects(resource.to_owned()));
        }
        Some(match name {
            "pods" => Counted::Pods,
            "services.nodeports" => Counted::NodePorts,
            "services.loadbalancers" => Counted::LoadBalancers,
            "requests.storage" => Counted::Storage(None),
            name if OBJECTS.contains(&name) => Counted::Objects(name.to_owned()),
            // Without a prefix these four kinds of names mean requests.
            "cpu" | "memory" | "ephemeral-storage" => Counted::Compute(Part::Requests, name.to_owned()),
            name if name.starts_with("hugepages-") => Counted::Compute(Part::Requests, name.to_owned()),
            name => {
                let part = |prefix: &str, part| {
                    let resource = name.strip_prefix(prefix)?;
                    Some(Counted::Compute(part, resource.to_owned()))
                };
                return part("requests.", Part::Requests).or_else(|| part("limits.", Part::Limits));
            }
        })
    }
}

/// What one pod takes of each name. A pod that has ended takes no more than its place among the objects.
pub fn of_pod(spec: &Value, ended: bool, names: &[String]) -> Amounts {
    let (requests, limits) = (total(spec, Part::Requests), total(spec, Part::Limits));
    let one = Quantity::from_milli(1000);
    let take = |name: &String| {
        let amount = match Counted::of(name)? {
            Counted::Objects(resource) => (resource == "pods").then_some(one)?,
            _ if ended => return None,
            Counted::Pods => one,
            Counted::Compute(Part::Requests, resource) => *requests.get(&resource)?,
            Counted::Compute(Part::Limits, resource) => *limits.get(&resource)?,
            _ => return None,
        };
        Some((name.clone(), amount))
    };
    names.iter().filter_map(take).collect()
}

/// What a Service has: ports on nodes, and load balancers.
pub fn of_service(kind: &str, ports: &Value, allocates: bool) -> (i64, i64) {
    let ports = ports.as_array().into_iter().flatten();
    match kind {
        "NodePort" => (ports.count() as i64, 0),
        "LoadBalancer" => {
            let has = |port: &&Value| allocates || port["nodePort"].as_i64().unwrap_or(0) != 0;
            (ports.filter(has).count() as i64, 1)
        }
        _ => (0, 0),
    }
}

/// What of a pod its quotas' scopes ask about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traits {
    /// `spec.activeDeadlineSeconds` is set.
    pub terminating: bool,
    pub best_effort: bool,
    /// Empty: none.
    pub priority_class: String,
    /// It has an affinity to, or against, pods of other namespaces.
    pub crosses_namespaces: bool,
}

impl Traits {
    /// `qos_class` as in the pod's status, where the registry puts it when it is made.
    pub fn of(spec: &Value, qos_class: &str) -> Self {
        Self {
            terminating: spec["activeDeadlineSeconds"]
                .as_i64()
                .is_some_and(|seconds| seconds >= 0),
            best_effort: qos_class == "BestEffort",
            priority_class: spec["priorityClassName"].as_str().unwrap_or_default().to_owned(),
            crosses_namespaces: crosses_namespaces(&spec["affinity"]),
        }
    }
}

/// A term of (anti-)affinity that looks beyond its own namespace.
pub fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|list| !list.is_empty()) || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let list = |field: &str| affinity[side][field].as_array().into_iter().flatten();
        list("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || list("preferredDuringSchedulingIgnoredDuringExecution").any(|term| crosses(&term["podAffinityTerm"]))
    })
}

/// `spec.scopes` and `spec.scopeSelector` of a quota, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<(String, String, Vec<String>)>);

impl Scopes {
    pub fn of(scopes: &Value, selector: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let plain = scopes.as_array().into_iter().flatten();
        let mut all: Vec<_> = plain
            .map(|scope| (text(scope), "Exists".to_owned(), Vec::new()))
            .collect();
        for one in selector["matchExpressions"].as_array().into_iter().flatten() {
            let values = one["values"].as_array().into_iter().flatten().map(text);
            all.push((text(&one["scopeName"]), text(&one["operator"]), values.collect()));
        }
        Self(all)
    }

    /// About everything, not about pods alone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Some scope asks about this.
    pub fn ask(&self, scope: &str) -> bool {
        self.0.iter().any(|(name, ..)| name == scope)
    }

    pub fn hold(&self, pod: &Traits) -> bool {
        self.0.iter().all(|(scope, operator, values)| match scope.as_str() {
            "Terminating" => pod.terminating,
            "NotTerminating" => !pod.terminating,
            "BestEffort" => pod.best_effort,
            "NotBestEffort" => !pod.best_effort,
            "CrossNamespacePodAffinity" => pod.crosses_namespaces,
            "PriorityClass" => {
                let named = !pod.priority_class.is_empty();
                match operator.as_str() {
                    "In" => named && values.contains(&pod.priority_class),
                    "NotIn" => !values.contains(&pod.priority_class),
                    "DoesNotExist" => !named,
                    _ => named,
                }
            }
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn names_count_what_the_documentation_says() {
        let compute = |part, name: &str| Some(Counted::Compute(part, name.to_owned()));
        for (name, counts) in [
            ("pods", Some(Counted::Pods)),
            ("count/pods", Some(Counted::Objects("pods".into()))),
            (
                "count/deployments.apps",
                Some(Counted::Objects("deployments.apps".into())),
            ),
            ("cpu", compute(Part::Requests, "cpu")),
            ("requests.cpu", compute(Part::Requests, "cpu")),
            ("limits.memory", compute(Part::Limits, "memory")),
            ("requests.nvidia.com/gpu", compute(Part::Requests, "nvidia.com/gpu")),
            ("hugepages-2Mi", compute(Part::Requests, "hugepages-2Mi")),
            ("requests.storage", Some(Counted::Storage(None))),
            (
                "gold.storageclass.storage.k8s.io/requests.storage",
                Some(Counted::Storage(Some("gold".into()))),
            ),
            ("nonsense", None),
        ] {
            assert_eq!(Counted::of(name), counts, "{name}");
        }
    }

    #[test]
    fn scopes_choose_pods() {
        let pod = |spec: Value, qos: &str| Traits::of(&spec, qos);
        let deadline = pod(json!({"activeDeadlineSeconds": 5}), "Burstable");
        let plain = pod(json!({"priorityClassName": "high"}), "BestEffort");
        let holds = |scopes: Value, selector: Value, pod: &Traits| Scopes::of(&scopes, &selector).hold(pod);
        assert!(holds(json!(["Terminating", "NotBestEffort"]), json!({}), &deadline));
        assert!(!holds(json!(["Terminating"]), json!({}), &plain));
        assert!(holds(json!(["BestEffort", "NotTerminating"]), json!({}), &plain));
        let priority = |operator: &str| json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]});
        for (operator, of_plain, of_deadline) in [
            ("In", true, false),
            ("NotIn", false, true),
            ("Exists", true, false),
            ("DoesNotExist", false, true),
        ] {
            assert_eq!(holds(Value::Null, priority(operator), &plain), of_plain, "{operator}");
            assert_eq!(
                holds(Value::Null, priority(operator), &deadline),
                of_deadline,
                "{operator}"
            );
        }
        let elsewhere = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"namespaceSelector": {}}}]}});
        assert!(crosses_namespaces(&elsewhere) && !crosses_namespaces(&json!({"podAffinity": {}})));
    }
}
