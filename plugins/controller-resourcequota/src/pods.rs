//! Pods, and what they ask for.

use std::collections::BTreeMap;

use sdk::columns::Cell;
use sdk::pods::{Amounts, Part, add};
use sdk::quota::{Counted, Scopes, Traits, of_pod};
use sdk::{Fields, Instant, Quantity, Value, View, within};

const POD: &str = "v1/Pod";

/// Pods that have one of these are read one by one: their sum is not that of their containers, or whether they still count
/// is a matter of time, or their affinity must be looked into.
const PARTICULAR: [&str; 4] = [
    ".spec.initContainers[0]?",
    ".spec.overhead?",
    ".spec.resources?",
    ".metadata.deletionTimestamp?",
];
const AFFINITY: &str = ".spec.affinity?";

#[derive(Fields)]
struct Pod {
    #[at(".metadata.uid")]
    uid: String,
    #[at(".spec.containers")]
    containers: Value,
    #[at(".spec.initContainers")]
    init_containers: Value,
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
    qos_class: String,
    #[at(".status.phase")]
    phase: String,
    #[at(".metadata.deletionTimestamp")]
    deletion: Option<Instant>,
}

/// What the pods of a namespace, as far as the scopes are about them, take of each name.
pub(crate) fn count(namespace: &str, names: &[String], scopes: &Scopes, view: &View) -> sdk::Result<Amounts> {
    let sums: Vec<(&String, Part, String)> = names
        .iter()
        .filter_map(|name| match Counted::of(name)? {
            Counted::Compute(part, resource) => Some((name, part, resource)),
            _ => None,
        })
        .collect();
    let by_pods = |name: &String| matches!(Counted::of(name), Some(Counted::Pods));
    let by_objects = |name: &String| Counted::of(name) == Some(Counted::Objects("pods".into()));
    if sums.is_empty() && !names.iter().any(|name| by_pods(name) || by_objects(name)) {
        return Ok(Amounts::new());
    }
    let mut particular: Vec<&str> = PARTICULAR.to_vec();
    if scopes.ask("CrossNamespacePodAffinity") {
        particular.push(AFFINITY);
    }
    let by = format!(
        ".status.phase .spec.activeDeadlineSeconds? .status.qosClass .spec.priorityClassName {}",
        particular.join(" ")
    );
    let paths = sums
        .iter()
        .map(|(_, part, resource)| format!(".spec.containers[*].resources.{}[{resource:?}]", part.as_str()));
    let paths: Vec<String> = paths.collect();
    let mut used = Amounts::new();
    let mut some_particular = false;
    for row in view.tally(POD, &within(namespace), &by, &paths.join(" "))?.rows()? {
        let is = |n: usize| row.value(n) == Cell::Bool(true);
        if (4..4 + particular.len()).any(is) {
            some_particular = true;
            continue;
        }
        let pod = Traits {
            terminating: is(1),
            best_effort: row.value(2).str() == "BestEffort",
            priority_class: row.value(3).str().to_owned(),
            crosses_namespaces: false,
        };
        if !scopes.hold(&pod) {
            continue;
        }
        let ended = matches!(row.value(0).str(), "Succeeded" | "Failed");
        let mut group = Amounts::new();
        for name in names
            .iter()
            .filter(|name| by_objects(name) || (!ended && by_pods(name)))
        {
            group.insert(name.clone(), Quantity::from_milli(row.count() * 1000));
        }
        for (n, (name, ..)) in sums.iter().enumerate().filter(|_| !ended) {
            group.insert((*name).clone(), Quantity::from_milli(row.sum(n)));
        }
        add(&mut used, &group);
    }
    if some_particular {
        for pod in read(namespace, &particular, view)? {
            add(&mut used, &pod.takes(names, scopes, view));
        }
    }
    Ok(used)
}

/// Those that have one of these places, each once.
fn read(namespace: &str, places: &[&str], view: &View) -> sdk::Result<Vec<Pod>> {
    let mut pods = BTreeMap::new();
    for place in places {
        let which = within(namespace).equals(place, "true");
        let found: Vec<Pod> = view.find(POD, &which, "", 0)?;
        pods.extend(found.into_iter().map(|pod| (pod.uid.clone(), pod)));
    }
    Ok(pods.into_values().collect())
}

impl Pod {
    fn takes(&self, names: &[String], scopes: &Scopes, view: &View) -> Amounts {
        let spec = sdk::json!({
            "containers": self.containers,
            "initContainers": self.init_containers,
            "resources": self.resources,
            "overhead": self.overhead,
            "activeDeadlineSeconds": self.deadline,
            "priorityClassName": self.priority_class,
            "affinity": self.affinity,
        });
        if !scopes.hold(&Traits::of(&spec, &self.qos_class)) {
            return Amounts::new();
        }
        // The deletion timestamp is when its grace is over: from then on its node may be lost, and others need its place.
        let overdue = self.deletion.is_some_and(|due| view.reached(due));
        let ended = overdue || matches!(self.phase.as_str(), "Succeeded" | "Failed");
        of_pod(&spec, ended, names)
    }
}
