//! Who owns whom, as far as it takes to find out what is left behind.

use std::collections::{BTreeMap, BTreeSet};

use sdk::view::Served;
use sdk::{Error, Fields, Value, View, all};
use serde::Deserialize;

/// An entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reference {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) block_owner_deletion: bool,
}

/// What objects of a group have in common.
#[derive(Fields)]
struct Owned {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".metadata.ownerReferences")]
    references: Value,
}

/// Objects of one kind and namespace with the same owners, all being deleted or none.
#[derive(Debug)]
pub(crate) struct Group {
    /// Place in [`Graph::kinds`].
    pub(crate) kind: usize,
    pub(crate) namespace: String,
    pub(crate) deleting: bool,
    pub(crate) references: Vec<Reference>,
}

#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Every kind that can be listed and deleted, once.
    pub(crate) kinds: Vec<Served>,
    /// Every kind that is served, once, by group and kind: for looking owners up, whatever version they are named in.
    served: BTreeMap<(String, String), Served>,
    pub(crate) groups: Vec<Group>,
    /// A kind could not be read, and why: there may be dependents that are not here.
    pub(crate) failed: Option<Error>,
}

/// Records of what happened: they own nothing and are owned by nobody, and there are many.
const EVENTS: [&str; 2] = ["events", "events.events.k8s.io"];

impl Graph {
    pub(crate) fn read(view: &View) -> sdk::Result<Self> {
        let served = view.kinds()?;
        let mut graph = Self::default();
        for kind in &served {
            if let Some((api_version, name)) = kind.kind.rsplit_once('/') {
                let key = (group(api_version).to_owned(), name.to_owned());
                graph.served.entry(key).or_insert_with(|| kind.clone());
            }
        }
        let mut seen = BTreeSet::new();
        let usable = |kind: &Served| kind.listable && kind.deletable && !EVENTS.contains(&kind.resource.as_str());
        graph.kinds.extend(
            served
                .into_iter()
                .filter(|kind| usable(kind) && seen.insert(kind.resource.clone())),
        );
        for kind in 0..graph.kinds.len() {
            // Reads on behind a kind that cannot be read: one broken kind does not stop the collector.
            if let Err(error) = graph.add(kind, view) {
                graph.failed = Some(error);
            }
        }
        Ok(graph)
    }

    fn add(&mut self, kind: usize, view: &View) -> sdk::Result<()> {
        let owned = all().equals(".metadata.ownerReferences[0].uid?", "true");
        for group in view.distinct::<Owned>(&self.kinds[kind].kind, &owned)? {
            self.groups.push(Group {
                kind,
                namespace: group.namespace,
                deleting: group.deleting,
                references: serde_json::from_value(group.references)?,
            });
        }
        Ok(())
    }

    /// The served kind that a reference speaks of, in its own version or another one.
    pub(crate) fn kind_of(&self, reference: &Reference) -> Option<&Served> {
        let key = (group(&reference.api_version).to_owned(), reference.kind.clone());
        self.served.get(&key)
    }

    /// Anything has this owner.
    pub(crate) fn owns(&self, uid: &str) -> bool {
        self.groups
            .iter()
            .any(|group| group.references.iter().any(|one| one.uid == uid))
    }
}

/// `apps` of `apps/v1`; empty for `v1`.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}
