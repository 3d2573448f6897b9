//! What becomes of objects some of whose owners are not there any more.

use sdk::controller::{Precondition, Propagation};
use sdk::{Fields, ObjectKey, Outcome, Value, View, json, within};

use crate::graph::{Graph, Group, Reference};
use crate::owners::{FOREGROUND, ORPHAN, Owners, State};
use crate::{BURST, Memo};

#[derive(Fields)]
pub(crate) struct Dependent {
    #[at(".metadata.name")]
    pub(crate) name: String,
    #[at(".metadata.uid")]
    pub(crate) uid: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".metadata.finalizers")]
    finalizers: Vec<String>,
    #[at(".metadata.ownerReferences")]
    references: Value,
}

/// How many senseless references are remembered, so that each is told once.
const TOLD: usize = 64;

pub(crate) fn collect(
    graph: &Graph,
    owners: &Owners,
    view: &View,
    memo: &mut Memo,
    outcome: &mut Outcome,
) -> sdk::Result<()> {
    for group in graph.groups.iter().filter(|group| !group.deleting) {
        if outcome.intents.len() > BURST {
            break;
        }
        let states = group.references.iter().map(|one| owners.state(graph, group, one));
        let states: Vec<State> = states.collect();
        let in_state = |state: State| {
            let both = group.references.iter().zip(&states);
            both.filter(move |(_, is)| **is == state).map(|(one, _)| one)
        };
        if let Some(one) = in_state(State::Senseless).next() {
            tell(graph, group, one, view, memo, outcome)?;
            continue;
        }
        let solid = in_state(State::Solid).next().is_some();
        let waiting = in_state(State::Waiting).next();
        let lost: Vec<&Reference> = in_state(State::Absent).chain(in_state(State::Waiting)).collect();
        let Some(first) = lost.first() else { continue };
        for dependent in of(graph, group, &first.uid, view)? {
            let key = ObjectKey::new(&graph.kinds[group.kind].kind, &group.namespace, &dependent.name);
            if solid {
                // Somebody still wants it: it only forgets those that are gone or going.
                let gone: Vec<&str> = lost.iter().map(|one| one.uid.as_str()).collect();
                forget(key, &dependent, &gone, outcome);
                continue;
            }
            let has = |finalizer: &str| dependent.finalizers.iter().any(|one| one == finalizer);
            let propagation = match () {
                // What owns something itself, and whose owner waits for all below it, waits for its own dependents too.
                () if waiting.is_some() && graph.owns(&dependent.uid) => Propagation::Foreground,
                () if has(ORPHAN) => Propagation::Orphan,
                () if has(FOREGROUND) => Propagation::Foreground,
                () => Propagation::Background,
            };
            outcome.remove(key, Precondition::Uid(dependent.uid), propagation);
        }
    }
    Ok(())
}

/// The objects of a group, at most as many as one run acts on.
pub(crate) fn of(graph: &Graph, group: &Group, owner: &str, view: &View) -> sdk::Result<Vec<Dependent>> {
    let owned = within(&group.namespace).equals(".metadata.ownerReferences[*].uid", owner);
    let mut found: Vec<Dependent> = view.metadata(&graph.kinds[group.kind].kind, &owned, "", 0)?;
    found.retain(|dependent| {
        let references = serde_json::from_value::<Vec<Reference>>(dependent.references.clone());
        dependent.deleting == group.deleting && references.is_ok_and(|references| references == group.references)
    });
    found.truncate(BURST + 1);
    Ok(found)
}

/// Takes owners from an object, unless its owners changed since they were read. As a merge patch of the whole list: that is
/// understood for every kind.
pub(crate) fn forget(key: ObjectKey, dependent: &Dependent, owners: &[&str], outcome: &mut Outcome) {
    let mut left = dependent.references.as_array().cloned().unwrap_or_default();
    left.retain(|one| one["uid"].as_str().is_none_or(|uid| !owners.contains(&uid)));
    let left = if left.is_empty() { Value::Null } else { left.into() };
    let when = Precondition::FieldsAsRead((dependent.uid.clone(), ".metadata.ownerReferences".into()));
    outcome.merge(key, &json!({"metadata": {"ownerReferences": left}}), when);
}

/// Cluster-scoped objects cannot be owned from inside a namespace: nobody knows which one is meant. Somebody should know.
fn tell(
    graph: &Graph,
    group: &Group,
    reference: &Reference,
    view: &View,
    memo: &mut Memo,
    outcome: &mut Outcome,
) -> sdk::Result<()> {
    for dependent in of(graph, group, &reference.uid, view)? {
        if memo.told.len() >= TOLD || !memo.told.insert(dependent.uid.clone()) {
            continue;
        }
        let key = ObjectKey::new(&graph.kinds[group.kind].kind, "", &dependent.name);
        let message = format!(
            "ownerRef [{}/{}, namespace: , name: {}, uid: {}] does not exist in namespace \"\"",
            reference.api_version, reference.kind, reference.name, reference.uid
        );
        outcome.event(&key, &dependent.uid, true, "OwnerRefInvalidNamespace", message);
    }
    Ok(())
}
