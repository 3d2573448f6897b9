//! Owners: which objects belong to a controller's subject, and how they change hands.

use std::collections::BTreeSet;

use crate::controller::{Outcome, PatchFormat, Precondition};
use crate::{Fields, ObjectKey, Result, Value, View, json, within};

/// The object that others belong to.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// As in `apps/v1/ReplicaSet`.
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    /// Marked for deletion: it takes nothing in any more.
    pub deleting: bool,
}

/// What [`Owner::claim`] reads of an object that may change hands.
pub trait Claimable: Fields {
    fn name(&self) -> &str;
    fn uid(&self) -> &str;
    /// It is over or going: it stays with whoever has it.
    fn stays(&self) -> bool;
}

impl Owner<'_> {
    /// The entry in `metadata.ownerReferences` of what it controls. It is deleted in the foreground only after that.
    pub fn reference(&self) -> Value {
        let (api_version, kind) = self.kind.rsplit_once('/').unwrap_or_default();
        json!({
            "apiVersion": api_version,
            "kind": kind,
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }

    /// Adopts objects of a kind that match `selector` and that nobody controls, and releases its own that match no more.
    /// True if one changes hands: the next run sees them where they belong. Needs `get` of both kinds, and `patch` of
    /// theirs.
    ///
    /// # Errors
    /// Those of the reads.
    pub fn claim<T: Claimable>(&self, kind: &str, selector: &str, view: &View, outcome: &mut Outcome) -> Result<bool> {
        let before = outcome.intents.len();
        let mut set_owner = |object: &T, reference: Value| {
            let body = json!({"metadata": {"uid": object.uid(), "ownerReferences": [reference]}});
            let key = ObjectKey::new(kind, self.namespace, object.name());
            let same = Precondition::Uid(object.uid().to_owned());
            outcome.patch(key, PatchFormat::Strategic, &body, "", same);
        };
        let orphans = within(self.namespace)
            .equals(".metadata.ownerReferences[controller=true].uid?", "false")
            .labels(selector);
        let mut orphans: Vec<T> = view.find(kind, &orphans, "", 0)?;
        orphans.retain(|object| !object.stays());
        if !orphans.is_empty() && !self.deleting && self.still_there(view)? {
            orphans.iter().for_each(|object| set_owner(object, self.reference()));
        }
        let ours = within(self.namespace).controlled_by(self.uid);
        let matching = ours.clone().labels(selector);
        // The host counts both, however many there are; they are read only when they differ.
        if view.tally(kind, &ours, "", "")?.total()? != view.tally(kind, &matching, "", "")?.total()? {
            let matching: Vec<T> = view.find(kind, &matching, "", 0)?;
            let matching: BTreeSet<&str> = matching.iter().map(T::uid).collect();
            for object in view.find::<T>(kind, &ours, "", 0)? {
                if !object.stays() && !matching.contains(object.uid()) {
                    set_owner(&object, json!({"$patch": "delete", "uid": self.uid}));
                }
            }
        }
        Ok(outcome.intents.len() > before)
    }

    /// Asked of the store: an owner that is going, or another one of that name by now, takes nothing in.
    fn still_there(&self, view: &View) -> Result<bool> {
        #[derive(Fields)]
        struct Live {
            #[at(".metadata.uid")]
            uid: String,
            #[at(".metadata.deletionTimestamp?")]
            deleting: bool,
        }
        let live: Option<Live> = view.get_live(self.kind, self.namespace, self.name)?;
        Ok(live.is_some_and(|live| live.uid == self.uid && !live.deleting))
    }
}
