//! Indexes: objects by the value of one label or field path.

use std::sync::Arc;

use compact_str::CompactString;
use model::{FieldPath, FieldSet, Object};

use crate::member::{At, Map, Member, Members, name_of};
use crate::selection::IndexOn;

/// Value → the objects that have it.
pub(crate) type Index = Map<CompactString, Members>;

/// The indexes that one kind keeps, and one reader for all their paths.
pub(crate) struct Defined {
    on: Vec<(IndexOn, Option<FieldPath>)>,
    set: FieldSet,
}

/// An object's values, one list for each index.
pub(crate) type Facts = Vec<Vec<String>>;

impl Defined {
    pub(crate) fn none() -> Self {
        Self {
            on: Vec::new(),
            set: FieldSet::new([]),
        }
    }

    pub(crate) fn position(&self, on: &IndexOn) -> Option<usize> {
        self.on.iter().position(|(known, _)| known == on)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &IndexOn> {
        self.on.iter().map(|(on, _)| on)
    }

    pub(crate) fn add(&mut self, on: IndexOn) {
        let path = match &on {
            IndexOn::Label(_) => None,
            // The text is a parsed path's own, so it parses.
            IndexOn::Path(text) => FieldPath::parse(text).ok(),
        };
        self.on.push((on, path));
        self.set = FieldSet::new(self.on.iter().filter_map(|(_, path)| path.clone()));
    }

    pub(crate) fn remove(&mut self, at: usize) -> IndexOn {
        let (on, _) = self.on.remove(at);
        self.set = FieldSet::new(self.on.iter().filter_map(|(_, path)| path.clone()));
        on
    }

    pub(crate) fn facts(&self, object: &Object) -> Facts {
        let mut values = self.set.read(&object.json).into_iter();
        let facts = self.on.iter().map(|(on, path)| match (on, path) {
            (IndexOn::Label(key), _) => object.labels.get(key).map(String::from).into_iter().collect(),
            (_, Some(path)) => values
                .next()
                .map(|value| crate::fields::texts(path, &value))
                .unwrap_or_default(),
            (_, None) => Vec::new(),
        });
        facts.collect()
    }
}

/// Everything there is, by one label or path: what [`replace`] then keeps.
pub(crate) fn build(on: &IndexOn, objects: &Members) -> Index {
    let mut alone = Defined::none();
    alone.add(on.clone());
    let mut lists: std::collections::BTreeMap<String, Vec<Member>> = Default::default();
    for member in objects {
        for value in alone.facts(&member.0).pop().unwrap_or_default() {
            lists.entry(value).or_default().push(member.clone());
        }
    }
    lists
        .into_iter()
        .map(|(value, list)| (value.into(), list.into_iter().collect()))
        .collect()
}

/// One object's change in one index. The new revision takes the old one's place even where its value is the same.
pub(crate) fn replace(
    index: &mut Index,
    old: Option<(&Arc<Object>, &[String])>,
    new: Option<(&Arc<Object>, &[String])>,
) {
    if let Some((object, values)) = old {
        let stays = new.map_or(&[][..], |(_, values)| values);
        for value in values.iter().filter(|value| !stays.contains(value)) {
            if let Some(members) = index.get_mut(value.as_str()) {
                let name = name_of(object);
                members.remove(&At(name.0, name.1));
                if members.is_empty() {
                    index.remove(value.as_str());
                }
            }
        }
    }
    if let Some((object, values)) = new {
        for value in values {
            let members = index.entry(value.as_str().into()).or_default();
            members.insert(Member(object.clone()));
        }
    }
}
