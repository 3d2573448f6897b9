//! Which owners are there.

use std::collections::{BTreeMap, BTreeSet};

use sdk::{Fields, View, all};

use crate::graph::{Graph, Group, Reference};

/// Owners of one kind that are looked up one by one; for more of them the whole kind is read at once.
const ONE_BY_ONE: usize = 64;

/// Looks into the store of one run.
const LIVE: usize = 200;

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There, or not known to be absent.
    Solid,
    /// There until its dependents are gone.
    Waiting,
    /// The store said so.
    Absent,
    /// A namespaced owner of something that is in no namespace: it means nothing.
    Senseless,
}

/// Kind, namespace, name, uid.
type Key = (String, String, String, String);

#[derive(Debug, Default)]
pub(crate) struct Owners {
    states: BTreeMap<Key, State>,
    /// Some that may be absent were not asked for: too many at once.
    pub(crate) unasked: bool,
}

#[derive(Fields)]
struct Owner {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".metadata.finalizers")]
    finalizers: Vec<String>,
}

impl Owner {
    fn state(&self) -> State {
        let waits = self.deleting && self.finalizers.iter().any(|one| one == FOREGROUND);
        if waits { State::Waiting } else { State::Solid }
    }
}

impl Owners {
    pub(crate) fn look(graph: &Graph, view: &View) -> sdk::Result<Self> {
        let mut wanted: BTreeMap<String, BTreeSet<(String, String, String)>> = BTreeMap::new();
        for (group, one) in graph
            .groups
            .iter()
            .flat_map(|group| group.references.iter().map(move |one| (group, one)))
        {
            if let Some((kind, namespace, name, uid)) = key(graph, group, one) {
                wanted.entry(kind).or_default().insert((namespace, name, uid));
            }
        }
        let mut owners = Self::default();
        let mut asked = 0;
        for (kind, names) in wanted {
            let Ok(seen) = there(&kind, &names, view) else {
                // An error is no absence. The read is a reason to run again when it can be answered.
                continue;
            };
            for (namespace, name, uid) in names {
                let state = match seen.get(&(namespace.clone(), name.clone())) {
                    Some(owner) if owner.uid == uid => owner.state(),
                    _ if asked == LIVE => {
                        owners.unasked = true;
                        State::Solid
                    }
                    _ => {
                        asked += 1;
                        match view.get_live::<Owner>(&kind, &namespace, &name) {
                            Ok(Some(owner)) if owner.uid == uid => owner.state(),
                            Ok(_) => State::Absent,
                            Err(_) => {
                                owners.unasked = true;
                                State::Solid
                            }
                        }
                    }
                };
                owners.states.insert((kind.clone(), namespace, name, uid), state);
            }
        }
        Ok(owners)
    }

    pub(crate) fn state(&self, graph: &Graph, group: &Group, reference: &Reference) -> State {
        let Some(kind) = graph.kind_of(reference) else {
            return State::Solid;
        };
        if kind.namespaced && group.namespace.is_empty() {
            return State::Senseless;
        }
        let key = key(graph, group, reference);
        key.and_then(|key| self.states.get(&key).copied())
            .unwrap_or(State::Solid)
    }
}

/// Owners are in the namespace of what they own, or in none.
fn key(graph: &Graph, group: &Group, reference: &Reference) -> Option<Key> {
    let kind = graph.kind_of(reference)?;
    if kind.namespaced && group.namespace.is_empty() {
        return None;
    }
    let namespace = if kind.namespaced {
        group.namespace.clone()
    } else {
        String::new()
    };
    Some((
        kind.kind.clone(),
        namespace,
        reference.name.clone(),
        reference.uid.clone(),
    ))
}

fn there(
    kind: &str,
    names: &BTreeSet<(String, String, String)>,
    view: &View,
) -> sdk::Result<BTreeMap<(String, String), Owner>> {
    let mut there = Vec::new();
    if names.len() > ONE_BY_ONE {
        there = view.metadata(kind, &all(), "", 0)?;
    } else {
        for (namespace, name, _) in names {
            there.extend(view.get::<Owner>(kind, namespace, name)?);
        }
    }
    Ok(there
        .into_iter()
        .map(|owner| ((owner.namespace.clone(), owner.name.clone()), owner))
        .collect())
}
