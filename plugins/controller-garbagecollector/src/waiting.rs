//! Owners that may not go before something became of their dependents.

use sdk::controller::Precondition;
use sdk::{Fields, ObjectKey, Outcome, View, all};

use crate::BURST;
use crate::dependents;
use crate::graph::Graph;
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
}

/// Takes the finalizer from owners that are done waiting, and from the dependents of orphaning owners the reference.
///
/// "Done" is decided from the view, as in Kubernetes: a dependent that is not in it yet is collected later, as one whose
/// owner is absent. With a kind that cannot be read nobody is done.
pub(crate) fn finish(graph: &Graph, view: &View, outcome: &mut Outcome) -> sdk::Result<()> {
    for kind in &graph.kinds {
        for owner in owners(&kind.kind, FOREGROUND, view) {
            let blocks = graph.groups.iter().any(|group| {
                group
                    .references
                    .iter()
                    .any(|one| one.uid == owner.uid && one.block_owner_deletion)
            });
            if !blocks && graph.failed.is_none() {
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

/// Of a kind that cannot be read, none: the failure was noted when its dependents were read.
fn owners(kind: &str, finalizer: &str, view: &View) -> Vec<Owner> {
    let waiting = all().equals(".metadata.finalizers[*]", finalizer);
    let mut owners: Vec<Owner> = view.metadata(kind, &waiting, "", 0).unwrap_or_default();
    owners.retain(|owner| owner.deleting);
    owners
}
