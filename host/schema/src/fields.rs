//! Sets of fields, as `managedFields` holds them (`fieldsV1`, KEP-555).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use compact_str::{CompactString, format_compact};
use serde_json::{Map, Value};

use crate::form::Type;

/// One step of a path, in the spelling of `fieldsV1`: `f:name`, `k:{"name":"web"}`, `v:"x"`, `i:3`. Canonical, so that
/// equal steps are equal texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Element(CompactString);

impl Element {
    pub(crate) fn field(name: &str) -> Self {
        let mut text = CompactString::with_capacity(2 + name.len());
        text.push_str("f:");
        text.push_str(name);
        Self(text)
    }

    /// An element of a map list.
    pub(crate) fn key(keys: &Map<String, Value>) -> Self {
        // Members are sorted by name in the map, which is what makes the text canonical.
        let sorted: BTreeMap<&String, &Value> = keys.iter().collect();
        Self(format_compact!(
            "k:{}",
            serde_json::to_string(&sorted).unwrap_or_default()
        ))
    }

    /// An element of a set.
    pub(crate) fn value(value: &Value) -> Self {
        Self(format_compact!("v:{value}"))
    }

    /// `None` for a spelling of no known sort.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("f", _) => Some(Self(text.into())),
            ("i", at) => at.parse::<i64>().ok().map(|at| Self(format_compact!("i:{at}"))),
            ("v", json) => serde_json::from_str(json).ok().map(|value| Self::value(&value)),
            ("k", json) => serde_json::from_str(json).ok().map(|keys| Self::key(&keys)),
            _ => None,
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

impl fmt::Display for Element {
    /// As conflicts name it: `.name`, `[name="web"]`, `[="x"]`, `[3]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(':') {
            Some(("f", name)) => write!(f, ".{name}"),
            Some(("v", value)) => write!(f, "[={value}]"),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            _ => write!(f, "[{}]", self.0.trim_start_matches("i:")),
        }
    }
}

/// A tree of paths. A path is in the set if its last step is a member where the others lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set {
    members: BTreeSet<Element>,
    /// None of them empty.
    children: BTreeMap<Element, Set>,
}

impl Set {
    /// From `fieldsV1`. Steps that nobody can read are left out, as is what is below them.
    pub(crate) fn from_v1(fields: &Value) -> Self {
        let mut set = Set::default();
        for (text, below) in fields.as_object().into_iter().flatten() {
            let Some(element) = Element::parse(text) else {
                continue;
            };
            let inside = below.as_object();
            if inside.is_none_or(|inside| inside.is_empty() || inside.contains_key(".")) {
                set.members.insert(element.clone());
            }
            set.put(element, Set::from_v1(below));
        }
        set
    }

    pub(crate) fn into_v1(mut self) -> Value {
        let mut fields = Map::new();
        for (element, child) in self.children {
            let mut below = child.into_v1();
            if let (true, Value::Object(below)) = (self.members.remove(&element), &mut below) {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            fields.insert(element.0.into(), below);
        }
        let leaves = self.members.into_iter();
        fields.extend(leaves.map(|element| (element.0.into(), Value::Object(Map::new()))));
        Value::Object(fields)
    }

    /// From texts like `metadata.name`: struct members only.
    pub(crate) fn of_names(paths: &[&str]) -> Self {
        let mut set = Set::default();
        for path in paths {
            let path: Vec<Element> = path.split('.').filter(|p| !p.is_empty()).map(Element::field).collect();
            set.insert(&path);
        }
        set
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// The empty path, the object itself, is owned by nobody.
    pub(crate) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(crate) fn add(&mut self, element: Element) {
        self.members.insert(element);
    }

    /// Everything of `child` below `element`.
    pub(crate) fn put(&mut self, element: Element, child: Set) {
        if !child.is_empty() {
            self.children.entry(element).or_default().extend(child);
        }
    }

    pub(crate) fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    pub(crate) fn below(&self, element: &Element) -> Option<&Set> {
        self.children.get(element)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Element> {
        self.members.iter()
    }

    pub(crate) fn children(&self) -> impl Iterator<Item = (&Element, &Set)> {
        self.children.iter()
    }

    pub(crate) fn extend(&mut self, other: Set) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.members.extend(other.members);
        for (element, child) in other.children {
            self.put(element, child);
        }
    }

    pub(crate) fn union(mut self, other: Set) -> Set {
        self.extend(other);
        self
    }

    pub(crate) fn intersection(&self, other: &Set) -> Set {
        let members = self.members.intersection(&other.members).cloned().collect();
        let child = |(element, mine): (&Element, &Set)| {
            let both = mine.intersection(other.children.get(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        };
        Set {
            members,
            children: self.children.iter().filter_map(child).collect(),
        }
    }

    /// Exactly the paths of the other go; what is below them stays.
    pub(crate) fn difference(mut self, other: &Set) -> Set {
        self.subtract(other);
        self
    }

    pub(crate) fn subtract(&mut self, other: &Set) {
        self.remove(other, false);
    }

    /// The paths of the other go, and all below them.
    pub(crate) fn deep_difference(mut self, other: &Set) -> Set {
        self.remove(other, true);
        self
    }

    fn remove(&mut self, other: &Set, deep: bool) {
        for element in &other.members {
            self.members.remove(element);
            if deep {
                self.children.remove(element);
            }
        }
        for (element, theirs) in &other.children {
            if let Some(mine) = self.children.get_mut(element) {
                mine.remove(theirs, deep);
                if mine.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// Struct members on the way to a path become paths of the set themselves: whoever owns something in a struct keeps
    /// the struct there.
    pub(crate) fn with_structs(&self, of: Option<Type<'_>>) -> Set {
        let mut set = Set {
            members: self.members.clone(),
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            let below = match element.name() {
                Some(name) => {
                    if of.is_some_and(|of| of.member(name).is_some()) {
                        set.members.insert(element.clone());
                    }
                    of.and_then(|of| of.under(name))
                }
                None => of.and_then(Type::item),
            };
            set.children.insert(element.clone(), child.with_structs(below));
        }
        set
    }

    /// Every path as conflicts name them, in order.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.gather("", &mut paths);
        paths
    }

    fn gather(&self, prefix: &str, paths: &mut Vec<String>) {
        paths.extend(self.members.iter().map(|element| format!("{prefix}{element}")));
        for (element, child) in &self.children {
            child.gather(&format!("{prefix}{element}"), paths);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set() -> impl Strategy<Value = Set> {
        let step = prop_oneof![
            "[a-c]".prop_map(|name| Element::field(&name)),
            "[ab]".prop_map(|name| Element::value(&name.into())),
            (0..2).prop_map(|n| Element::parse(&format!("k:{{\"p\":\"TCP\",\"n\":{n}}}")).unwrap()),
        ];
        prop::collection::vec(prop::collection::vec(step, 1..4), 0..6).prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws_of_sets(a in set(), b in set()) {
            let [without, deeply] = [a.clone().difference(&b), a.clone().deep_difference(&b)];
            prop_assert_eq!(a.clone().union(b.clone()), b.clone().union(a.clone()));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert!(without.intersection(&b).is_empty());
            prop_assert!(deeply.intersection(&without) == deeply);
            prop_assert_eq!(without.union(a.intersection(&b)), a.clone());
            prop_assert_eq!(a.clone().difference(&a), Set::default());
            prop_assert_eq!(deeply.union(a.clone()), a.clone());
        }

        #[test]
        fn sets_survive_their_written_form(a in set()) {
            prop_assert_eq!(Set::from_v1(&a.clone().into_v1()), a);
        }
    }

    #[test]
    fn sets_are_written_and_named_as_kubernetes_does() {
        let fields = json!({
            "f:spec": {"f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"web\"}": {".": {}, "f:image": {}},
                "k:{\"protocol\":\"TCP\", \"containerPort\":80}": {},
            }}}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}, "f:labels": {".": {}, "f:a": {}}},
        });
        let set = Set::from_v1(&fields);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.finalizers[=\"x\"]",
                ".metadata.labels.a",
                ".spec.template.spec.containers[containerPort=80,protocol=\"TCP\"]",
                ".spec.template.spec.containers[name=\"web\"]",
                ".spec.template.spec.containers[name=\"web\"].image",
            ]
        );
        assert_eq!(set.into_v1()["f:metadata"], fields["f:metadata"]);
    }
}
