//! Which endpoint goes into which slice, so that few slices are written. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sdk::Value;

/// Endpoints of one slice, as many as kube-controller-manager puts there.
pub(crate) const FULL: usize = 100;

/// Address family and ports, then the endpoints by their pods' uids.
pub(crate) type Wanted = BTreeMap<(String, String), BTreeMap<String, Value>>;

#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: String,
    pub(crate) generation: i64,
    pub(crate) family: String,
    /// As JSON.
    pub(crate) ports: String,
    pub(crate) endpoints: Vec<Value>,
    /// The merge patch that puts its labels right; null if they are.
    pub(crate) stale_labels: Value,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Family, ports, endpoints.
    pub(crate) creates: Vec<(String, String, Vec<Value>)>,
    /// Places in the existing slices, and all endpoints they are to have.
    pub(crate) updates: Vec<(usize, Vec<Value>)>,
    pub(crate) removes: Vec<usize>,
}

/// An endpoint stays in the slice that has it. New ones go first into slices that are written anyway, then into the fullest
/// that take them, then into new slices. Each family has at least one slice, if an empty one: it says that there is nobody.
pub(crate) fn plan(families: &[String], mut wanted: Wanted, existing: &[Slice]) -> Plan {
    let mut plan = Plan::default();
    let mut kept: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for (at, slice) in existing.iter().enumerate() {
        let Some(endpoints) = wanted.get_mut(&(slice.family.clone(), normal(&slice.ports))) else {
            continue;
        };
        // Taken out of what is wanted: should two slices have it, it stays in the first.
        let stay = slice
            .endpoints
            .iter()
            .filter_map(|one| endpoints.remove(pod(one)))
            .take(FULL)
            .collect();
        kept.insert(at, stay);
    }
    for ((family, ports), new) in wanted {
        let mut new: Vec<Value> = new.into_values().collect();
        let mut places: Vec<usize> = kept.keys().copied().collect();
        places.retain(|at| existing[*at].family == family && normal(&existing[*at].ports) == ports);
        let changed = |at: &usize| kept[at] != existing[*at].endpoints;
        places.sort_by_key(|at| (!changed(at), std::cmp::Reverse(kept[at].len()), *at));
        for at in places {
            let slice = kept.entry(at).or_default();
            let room = FULL.saturating_sub(slice.len()).min(new.len());
            slice.extend(new.drain(..room));
        }
        plan.creates.extend(
            new.chunks(FULL)
                .map(|some| (family.clone(), ports.clone(), some.to_vec())),
        );
    }
    let mut spare: BTreeMap<&str, usize> = BTreeMap::new();
    let mut served: BTreeSet<&str> = BTreeSet::new();
    for (at, slice) in existing.iter().enumerate() {
        match kept.remove(&at) {
            Some(endpoints) if !endpoints.is_empty() => {
                served.insert(&slice.family);
                if endpoints != slice.endpoints || !slice.stale_labels.is_null() {
                    plan.updates.push((at, endpoints));
                }
            }
            _ => {
                let is_placeholder = normal(&slice.ports) == "[]" && slice.endpoints.is_empty();
                if is_placeholder && families.contains(&slice.family) {
                    spare.entry(&slice.family).or_insert(at);
                }
                plan.removes.push(at);
            }
        }
    }
    let created: BTreeSet<String> = plan.creates.iter().map(|(family, ..)| family.clone()).collect();
    for family in families
        .iter()
        .filter(|family| !served.contains(family.as_str()) && !created.contains(*family))
    {
        match spare.get(family.as_str()) {
            Some(at) => {
                plan.removes.retain(|other| other != at);
                if !existing[*at].stale_labels.is_null() {
                    plan.updates.push((*at, Vec::new()));
                }
            }
            None => plan.creates.push((family.clone(), "[]".into(), Vec::new())),
        }
    }
    plan
}

/// The uid of an endpoint's pod.
pub(crate) fn pod(endpoint: &Value) -> &str {
    endpoint["targetRef"]["uid"].as_str().unwrap_or_default()
}

/// The same ports, the same text, whatever order the store gives members.
pub(crate) fn normal(ports: &str) -> String {
    serde_json::from_str::<Value>(ports).map_or_else(|_| ports.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk::json;

    const PORTS: &str = r#"[{"name":"","port":80,"protocol":"TCP"}]"#;

    fn endpoint(n: usize, ready: bool) -> Value {
        json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"uid": format!("p{n:05}")}})
    }

    fn slice(name: &str, pods: impl Iterator<Item = usize>) -> Slice {
        Slice {
            name: name.into(),
            uid: name.into(),
            version: "1".into(),
            generation: 1,
            family: "IPv4".into(),
            ports: PORTS.into(),
            endpoints: pods.map(|n| endpoint(n, true)).collect(),
            stale_labels: Value::Null,
        }
    }

    fn wanted(pods: impl Iterator<Item = usize>) -> Wanted {
        let endpoints = pods.map(|n| (format!("p{n:05}"), endpoint(n, true))).collect();
        BTreeMap::from([(("IPv4".to_owned(), PORTS.to_owned()), endpoints)])
    }

    fn families() -> Vec<String> {
        vec!["IPv4".into()]
    }

    #[test]
    fn five_thousand_make_fifty() {
        let plan = plan(&families(), wanted(0..5_000), &[]);
        assert_eq!(plan.creates.len(), 50);
        assert!(plan.creates.iter().all(|(_, _, endpoints)| endpoints.len() == FULL));
    }

    #[test]
    fn one_change_writes_one_slice() {
        let existing = [slice("a", 0..100), slice("b", 100..200)];
        let mut all = wanted(0..200);
        for endpoints in all.values_mut() {
            endpoints.insert("p00150".into(), endpoint(150, false));
        }
        let plan = plan(&families(), all, &existing);
        assert_eq!(plan.updates.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1]);
        assert!(plan.creates.is_empty() && plan.removes.is_empty());
    }

    #[test]
    fn room_is_filled_before_new_slices_are_made() {
        let existing = [slice("a", 0..90), slice("b", 90..120)];
        // One of b's goes, so b is written anyway and filled first.
        let plan = plan(&families(), wanted((0..119).chain(200..305)), &existing);
        let sizes: Vec<(usize, usize)> = plan
            .updates
            .iter()
            .map(|(at, endpoints)| (*at, endpoints.len()))
            .collect();
        assert_eq!(sizes, [(0, 100), (1, 100)]);
        assert_eq!(
            plan.creates
                .iter()
                .map(|(_, _, endpoints)| endpoints.len())
                .collect::<Vec<_>>(),
            [24]
        );
    }

    #[test]
    fn a_pod_in_two_slices_stays_in_the_first() {
        let plan = plan(&families(), wanted(0..3), &[slice("a", 0..3), slice("b", 2..3)]);
        assert_eq!(plan.removes, [1]);
        assert!(plan.updates.is_empty());
    }

    #[test]
    fn an_empty_service_keeps_one_placeholder() {
        let none = plan(&families(), Wanted::new(), &[slice("a", 0..3)]);
        assert_eq!(none.creates, [("IPv4".to_owned(), "[]".to_owned(), vec![])]);
        assert_eq!(none.removes, [0]);
        let placeholder = Slice {
            ports: "[]".into(),
            ..slice("empty", 0..0)
        };
        assert_eq!(plan(&families(), Wanted::new(), &[placeholder]), Plan::default());
    }
}
