//! Owners that may not go before something became of their dependents.

use std::collections::{BTreeMap, BTreeSet};

use sdk::controller::Precondition;
use sdk::{Fields, ObjectKey, Outcome, Value, View, all};

use crate::BURST;
use crate::dependents;
use crate::graph::{Graph, Reference};
use crate::owners::{FOREGROUND, ORPHAN};

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
    #[at(".metadata.ownerReferences")]
    references: Value,
}

/// Takes the finalizer from owners that are done waiting, and from the dependents of orphaning owners the reference.
///
/// "Done" is decided from the view, as in Kubernetes: a dependent that is not in it yet is collected later, as one whose
/// owner is absent. With a kind that cannot be read nobody is done.
pub(crate) fn finish(graph: &Graph, view: &View, outcome: &mut Outcome) -> sdk::Result<()> {
    let kinds = graph.kinds.iter().map(|kind| owners(&kind.kind, FOREGROUND, view));
    let waiting: Vec<Vec<Owner>> = kinds.collect();
    let blocked = Blocked::of(waiting.iter().flatten());
    for (kind, waiting) in graph.kinds.iter().zip(waiting) {
        for owner in waiting {
            if graph.failed.is_none() && !blocked.waits(&owner.uid, graph, view)? {
                let key = ObjectKey::new(&kind.kind, &owner.namespace, &owner.name);
                outcome.remove_finalizer(key, FOREGROUND, Precondition::Uid(owner.uid));
            }
        }
        for owner in owners(&kind.kind, ORPHAN, view) {
            let mut left = graph.failed.is_some();
            for group in graph
                .groups
                .iter()
                .filter(|group| group.references.iter().any(|one| one.uid == owner.uid))
            {
                if outcome.intents.len() > BURST {
                    return Ok(());
                }
                for dependent in dependents::of(graph, group, &owner.uid, view)? {
                    let key = ObjectKey::new(&graph.kinds[group.kind].kind, &group.namespace, &dependent.name);
                    dependents::forget(key, &dependent, &[&owner.uid], outcome);
                }
                left = true;
            }
            if !left {
                let key = ObjectKey::new(&kind.kind, &owner.namespace, &owner.name);
                outcome.remove_finalizer(key, ORPHAN, Precondition::Uid(owner.uid));
            }
        }
    }
    Ok(())
}

/// Which waiting owners wait for which others: objects that own each other in a circle wait for themselves.
struct Blocked(BTreeMap<String, BTreeSet<String>>);

impl Blocked {
    fn of<'a>(waiting: impl Iterator<Item = &'a Owner>) -> Self {
        let mut by = BTreeMap::<String, BTreeSet<String>>::new();
        for one in waiting {
            let references: Vec<Reference> = serde_json::from_value(one.references.clone()).unwrap_or_default();
            for owner in references.into_iter().filter(|owner| owner.block_owner_deletion) {
                by.entry(owner.uid).or_default().insert(one.uid.clone());
            }
        }
        Self(by)
    }

    /// All that this owner waits for and that waits itself, directly or through others.
    fn behind(&self, owner: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut next = vec![owner];
        while let Some(owner) = next.pop() {
            for one in self.0.get(owner).into_iter().flatten() {
                if found.insert(one.as_str()) {
                    next.push(one);
                }
            }
        }
        found
    }

    /// Some dependent holds it up that does not wait for this very owner in turn.
    fn waits(&self, owner: &str, graph: &Graph, view: &View) -> sdk::Result<bool> {
        let blocks = |one: &Reference| one.uid == owner && one.block_owner_deletion;
        let mut holding = graph
            .groups
            .iter()
            .filter(|group| group.references.iter().any(blocks))
            .peekable();
        let behind = self.behind(owner);
        // Without a circle nothing is read: one dependent is enough.
        if holding.peek().is_none() || !behind.contains(owner) {
            return Ok(holding.peek().is_some());
        }
        for group in holding {
            for dependent in dependents::of(graph, group, owner, view)? {
                if !self.behind(&dependent.uid).contains(owner) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Of a kind that cannot be read, none: the failure was noted when its dependents were read.
fn owners(kind: &str, finalizer: &str, view: &View) -> Vec<Owner> {
    let waiting = all().equals(".metadata.finalizers[*]", finalizer);
    let mut owners: Vec<Owner> = view.metadata(kind, &waiting, "", 0).unwrap_or_default();
    owners.retain(|owner| owner.deleting);
    owners
}
