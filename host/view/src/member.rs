//! Objects as members of ordered sets: sorted by namespace and name, looked up without making a key.

use std::cmp::Ordering;
use std::sync::Arc;

use compact_str::CompactString;
use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};
use model::Object;

/// An object in a set of its kind. Equal to another of the same namespace and name, whatever the revision.
#[derive(Debug, Clone)]
pub(crate) struct Member(pub(crate) Arc<Object>);

pub(crate) type Members = imbl::OrdSet<Member>;

/// A persistent map with a fast hash. Its own order is never shown to anyone.
pub(crate) type Map<K, V> = GenericHashMap<K, V, ahash::RandomState, DefaultSharedPtr>;

/// Namespace and name: an object's place within its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) namespace: CompactString,
    pub(crate) name: CompactString,
}

impl Name {
    pub(crate) fn of(object: &Object) -> Self {
        Self {
            namespace: object.key.namespace.clone(),
            name: object.key.name.clone(),
        }
    }
}

pub(crate) fn name_of(object: &Object) -> (&str, &str) {
    (&object.key.namespace, &object.key.name)
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        name_of(&self.0).cmp(&name_of(&other.0))
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Member {}

/// What a set is searched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At<'a>(pub(crate) &'a str, pub(crate) &'a str);

impl equivalent::Equivalent<Member> for At<'_> {
    fn equivalent(&self, member: &Member) -> bool {
        (self.0, self.1) == name_of(&member.0)
    }
}

impl equivalent::Comparable<Member> for At<'_> {
    fn compare(&self, member: &Member) -> Ordering {
        (self.0, self.1).cmp(&name_of(&member.0))
    }
}

impl equivalent::Equivalent<Name> for At<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.0 == name.namespace && self.1 == name.name
    }
}

/// Those of one namespace, in name order; all of them for the empty one.
pub(crate) fn within<'a>(members: &'a Members, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
    let from = At(namespace, "");
    members
        .range::<_, At<'a>>(from..)
        .map(|member| &member.0)
        .take_while(move |object| namespace.is_empty() || object.key.namespace == namespace)
}
