//! Charges what a request takes to the ResourceQuotas of its namespace; the registry refuses what goes beyond one.
//!
//! The controller of quotas counts everything anew. This rule says only what the request adds, so that of two requests at
//! once both cannot have the last place.

use std::collections::BTreeMap;

use sdk::admission::{Answer, Charge, Operation, Request};
use sdk::pods::{self, Amounts};
use sdk::quota::{self, Counted, Scopes, Traits};
use sdk::{Fields, Quantity, Value, View, within};

/// Of any object at all, so each is read as whatever is there.
#[derive(Fields, Clone, Debug)]
struct Object {
    #[at(".spec.containers")]
    containers: Value,
    #[at(".spec.initContainers")]
    init_containers: Value,
    /// Of a pod; a claim's stand at the same place.
    #[at(".spec.resources")]
    resources: Value,
    #[at(".spec.overhead")]
    overhead: Value,
    #[at(".spec.activeDeadlineSeconds")]
    deadline: Value,
    #[at(".spec.priorityClassName")]
    priority_class: Value,
    #[at(".spec.affinity")]
    affinity: Value,
    #[at(".status.qosClass")]
    qos_class: Value,
    #[at(".spec.type")]
    kind: Value,
    #[at(".spec.ports")]
    ports: Value,
    #[at(".spec.allocateLoadBalancerNodePorts")]
    allocates: Value,
    #[at(".spec.storageClassName")]
    storage_class: Value,
}

impl Object {
    fn pod_spec(&self) -> Value {
        sdk::json!({
            "containers": self.containers,
            "initContainers": self.init_containers,
            "resources": self.resources,
            "overhead": self.overhead,
            "activeDeadlineSeconds": self.deadline,
            "priorityClassName": self.priority_class,
            "affinity": self.affinity,
        })
    }
}

#[derive(Fields)]
struct Quota {
    #[at(".metadata.name")]
    name: String,
    #[at(".spec.hard")]
    hard: BTreeMap<String, String>,
    #[at(".spec.scopes")]
    scopes: Value,
    #[at(".spec.scopeSelector")]
    selector: Value,
}

const QUOTA: &str = "v1/ResourceQuota";

#[sdk::admission(
    on = ["create *", "update services", "update persistentvolumeclaims", "update pods/resize"],
    asks = ["get resourcequotas"],
    with_kinds = ["v1/ResourceQuota"],
)]
fn review(request: Request<Object>, view: &View) -> sdk::Result<Answer> {
    let mut answer = Answer::allow();
    let Some(object) = &request.object else {
        return Ok(answer);
    };
    if request.namespace.is_empty() || request.dry_run {
        return Ok(answer);
    }
    let quotas: Vec<Quota> = view.find(QUOTA, &within(&request.namespace), "", 0)?;
    if quotas.is_empty() {
        return Ok(answer);
    }
    let asked = Asked::of(&request);
    for quota in quotas {
        let scopes = Scopes::of(&quota.scopes, &quota.selector);
        if !asked.within(&scopes, object) {
            continue;
        }
        let names: Vec<String> = quota.hard.into_keys().collect();
        if let Some(missing) = asked.missing(&names, object) {
            return Ok(Answer::deny(format!(
                "failed quota: {}: must specify {missing}",
                quota.name
            )));
        }
        let mut takes = asked.takes(&names, object);
        if let (Operation::Update, Some(old)) = (request.operation, &request.old) {
            for (name, amount) in asked.takes(&names, old) {
                let left = takes.entry(name).or_default();
                *left = *left - amount;
            }
        }
        let charges = takes.into_iter().filter(|(_, amount)| *amount > Quantity::ZERO);
        answer.charges.extend(charges.map(|(name, amount)| Charge {
            counter: (QUOTA.to_owned(), request.namespace.clone(), quota.name.clone()),
            field: format!(".status.used[{name:?}]"),
            amount: amount.to_string(),
            limit: String::new(),
            message: String::new(),
        }));
    }
    Ok(answer)
}

/// What the request is about.
struct Asked {
    /// `pods`, `deployments.apps`.
    resource: String,
    /// An update adds no object.
    creates: bool,
}

impl Asked {
    fn of(request: &Request<Object>) -> Self {
        let group = match request.kind.split('/').collect::<Vec<_>>()[..] {
            [group, _, _] => group,
            _ => "",
        };
        let resource = match group {
            "" => request.resource.clone(),
            group => format!("{}.{group}", request.resource),
        };
        Self {
            resource,
            creates: request.operation == Operation::Create,
        }
    }

    /// Scopes are about pods: a quota that has some says nothing about other kinds.
    fn within(&self, scopes: &Scopes, object: &Object) -> bool {
        if self.resource != "pods" {
            return scopes.is_empty();
        }
        let qos_class = object.qos_class.as_str().unwrap_or_default();
        scopes.hold(&Traits::of(&object.pod_spec(), qos_class))
    }

    fn takes(&self, names: &[String], object: &Object) -> Amounts {
        let one = || Quantity::from_milli(1000);
        let whole = |number: i64| Quantity::from_milli(number * 1000);
        let storage = || pods::amounts(&object.resources["requests"]).get("storage").copied();
        let class = object.storage_class.as_str().unwrap_or_default();
        let mut all = match self.resource.as_str() {
            "pods" => quota::of_pod(&object.pod_spec(), false, names),
            _ => Amounts::new(),
        };
        for name in names {
            let amount = match (Counted::of(name), self.resource.as_str()) {
                (Some(Counted::Objects(resource)), mine) if resource == mine => Some(one()),
                (Some(Counted::NodePorts), "services") => Some(whole(ports(object).0)),
                (Some(Counted::LoadBalancers), "services") => Some(whole(ports(object).1)),
                (Some(Counted::Storage(None)), "persistentvolumeclaims") => storage(),
                (Some(Counted::Storage(Some(of))), "persistentvolumeclaims") if of == class => storage(),
                (Some(Counted::ClaimsOf(of)), "persistentvolumeclaims") if of == class => Some(one()),
                _ => None,
            };
            if let Some(amount) = amount {
                all.insert(name.clone(), amount);
            }
        }
        all
    }

    /// A quota of processor or memory holds nobody who does not say what they need.
    ///
    /// `limits.cpu for: web; requests.memory for: db,web`.
    fn missing(&self, names: &[String], pod: &Object) -> Option<String> {
        if self.resource != "pods" || !self.creates {
            return None;
        }
        let of_pod = &pod.resources;
        let lacks = |name: &String| {
            let Some(Counted::Compute(part, resource)) = Counted::of(name) else {
                return None;
            };
            if !matches!(resource.as_str(), "cpu" | "memory") || !of_pod[part.as_str()][&resource].is_null() {
                return None;
            }
            let lists = [&pod.containers, &pod.init_containers].map(Value::as_array);
            let without = lists
                .into_iter()
                .flatten()
                .flatten()
                .filter(|container| container["resources"][part.as_str()][&resource].is_null());
            let mut without: Vec<&str> = without.filter_map(|container| container["name"].as_str()).collect();
            without.sort_unstable();
            (!without.is_empty()).then(|| format!("{name} for: {}", without.join(",")))
        };
        let lacking: Vec<String> = names.iter().filter_map(lacks).collect();
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }
}

fn ports(service: &Object) -> (i64, i64) {
    let kind = service.kind.as_str().unwrap_or_default();
    quota::of_service(kind, &service.ports, service.allocates.as_bool().unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk::json;

    fn object(spec: &Value) -> Object {
        Object {
            containers: spec["containers"].clone(),
            init_containers: spec["initContainers"].clone(),
            resources: spec["resources"].clone(),
            overhead: Value::Null,
            deadline: spec["activeDeadlineSeconds"].clone(),
            priority_class: Value::Null,
            affinity: Value::Null,
            qos_class: "Burstable".into(),
            kind: spec["type"].clone(),
            ports: spec["ports"].clone(),
            allocates: spec["allocateLoadBalancerNodePorts"].clone(),
            storage_class: spec["storageClassName"].clone(),
        }
    }

    fn takes(resource: &str, names: &[&str], spec: Value) -> String {
        let asked = Asked {
            resource: resource.into(),
            creates: true,
        };
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let all = asked.takes(&names, &object(&spec));
        let all: Vec<String> = all.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        all.join(" ")
    }

    #[test]
    fn each_kind_takes_what_its_names_say() {
        let names = [
            "pods",
            "cpu",
            "limits.memory",
            "count/pods",
            "services",
            "count/widgets.example.com",
        ];
        let pod = json!({"containers": [{"resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}}]});
        assert_eq!(
            takes("pods", &names, pod),
            "count/pods=1 cpu=500m limits.memory=1Gi pods=1"
        );
        assert_eq!(
            takes("widgets.example.com", &names, json!({})),
            "count/widgets.example.com=1"
        );
        let names = ["services", "services.nodeports", "services.loadbalancers"];
        let service = json!({"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 81}]});
        assert_eq!(
            takes("services", &names, service),
            "services=1 services.loadbalancers=1 services.nodeports=2"
        );
        let claim = json!({"resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "gold"});
        let names = [
            "requests.storage",
            "gold.storageclass.storage.k8s.io/requests.storage",
            "slow.storageclass.storage.k8s.io/persistentvolumeclaims",
        ];
        assert_eq!(
            takes("persistentvolumeclaims", &names, claim),
            "gold.storageclass.storage.k8s.io/requests.storage=5Gi requests.storage=5Gi"
        );
    }

    #[test]
    fn a_pod_must_say_what_a_quota_counts() {
        let asked = Asked {
            resource: "pods".into(),
            creates: true,
        };
        let names = ["limits.cpu", "pods", "requests.memory"].map(str::to_owned);
        let pod = json!({"containers": [
            {"name": "web", "resources": {"requests": {"memory": "1Gi"}}},
            {"name": "db", "resources": {"limits": {"cpu": "1"}}},
        ]});
        assert_eq!(
            asked.missing(&names, &object(&pod)).as_deref(),
            Some("limits.cpu for: web; requests.memory for: db")
        );
        let whole = json!({"containers": [{"name": "web"}], "resources": {
            "requests": {"memory": "1Gi"}, "limits": {"cpu": "1"}}});
        assert_eq!(asked.missing(&names, &object(&whole)), None);
    }
}
