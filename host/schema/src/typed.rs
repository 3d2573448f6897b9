//! What structured merge does with two values of one form: the fields of one, the difference of two, the sum of two, and
//! one without some fields.
//!
//! Source of the rules: KEP-555 and the behaviour of `sigs.k8s.io/structured-merge-diff`. Where nothing is known of a
//! place, objects are granular and lists atomic.

use serde_json::{Map, Value};

use crate::fields::{Element, Set};
use crate::form::{Node, Relation, Scalar, Type};
use crate::json::MOST_PROBLEMS;

/// How a place takes part, given what stands there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// One value, owned as a whole.
    Leaf,
    Members,
    Elements,
}

/// `None` for the form: nothing is known.
type Of<'f> = Option<Type<'f>>;

fn part(of: Of<'_>, value: &Value) -> Part {
    match of.map(Type::node) {
        None | Some(Node::Any | Node::Union { .. }) if value.is_object() => Part::Members,
        None | Some(Node::Any | Node::Union { .. } | Node::Scalar(_)) => Part::Leaf,
        Some(_) if of.is_some_and(Type::is_atomic) => Part::Leaf,
        Some(Node::Struct(_) | Node::Map { .. }) => Part::Members,
        Some(Node::List(_)) => Part::Elements,
    }
}

fn under<'f>(of: Of<'f>, key: &str) -> Of<'f> {
    of.and_then(|of| of.under(key))
}

fn is_declared(of: Of<'_>, key: &str) -> bool {
    of.is_some_and(|of| of.member(key).is_some())
}

fn is_blank(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(members)) => members.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// How an element of a set or map list is addressed.
///
/// # Errors
/// A sentence, if the element cannot be.
pub(crate) fn address(list: Type<'_>, element: &Value) -> Result<Element, String> {
    if list.relation() == Some(Relation::Set) {
        return match element {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(Element::value(scalar)),
        };
    }
    let members = match element {
        Value::Object(members) => members,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut keys = Map::new();
    for key in list.keys() {
        let value = members.get(key).cloned().or_else(|| key_default(list, key));
        keys.extend(value.map(|value| (key.to_owned(), value)));
    }
    if keys.is_empty() {
        let names: Vec<String> = list.keys().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    Ok(Element::key(&keys))
}

/// `protocol: TCP`. A key that Go always writes has its zero value as default.
fn key_default(list: Type<'_>, key: &str) -> Option<Value> {
    let member = list.item()?.member(key)?;
    if let Some(json) = member.default_json() {
        return serde_json::from_str(json).ok();
    }
    if member.is_pointer() || member.omits_empty() || member.has(crate::form::AS_SENT) {
        return None;
    }
    match member.of().scalar()? {
        Scalar::Text => Some("".into()),
        Scalar::Flag => Some(false.into()),
        Scalar::Int32 | Scalar::Whole | Scalar::Real => Some(0.into()),
        _ => None,
    }
}

/// The elements with their addresses; those that have none are left out.
fn addressed<'v>(list: Type<'_>, value: Option<&'v Value>) -> Vec<(Element, &'v Value)> {
    let elements = value.and_then(Value::as_array).into_iter().flatten();
    elements
        .filter_map(|element| Some((address(list, element).ok()?, element)))
        .collect()
}

/// What the form does not allow of a configuration, path first: `.spec.foo: field not declared in schema`. Of several
/// things, a list below `errors:`.
///
/// # Errors
/// That text.
pub(crate) fn check(of: Of<'_>, value: &Value) -> Result<(), String> {
    let mut wrong = Vec::new();
    complain(of, value, "", &mut wrong);
    match wrong.len() {
        0 => Ok(()),
        1 => Err(wrong.swap_remove(0)),
        _ => Err(format!("errors:\n  {}", wrong.join("\n  "))),
    }
}

fn complain(of: Of<'_>, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let Some(form) = of.filter(|_| wrong.len() < MOST_PROBLEMS) else {
        return;
    };
    match (form.node(), value) {
        (_, Value::Null) | (Node::Any | Node::Union { .. }, _) => {}
        (Node::Struct(shape), Value::Object(members)) => {
            for (key, value) in members {
                let path = format!("{path}.{key}");
                match form.member(key) {
                    Some(member) => complain(Some(member.of()), value, &path, wrong),
                    None if shape.open => {}
                    None => wrong.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        (Node::Map { .. }, Value::Object(members)) => {
            for (key, value) in members {
                complain(form.values(), value, &format!("{path}.{key}"), wrong);
            }
        }
        (Node::List(list), Value::Array(elements)) => {
            let mut seen = std::collections::BTreeSet::new();
            for (at, element) in elements.iter().enumerate() {
                let mut here = format!("{path}[{at}]");
                if list.relation != Relation::Atomic {
                    match address(form, element) {
                        Ok(address) => {
                            here = format!("{path}{address}");
                            if !seen.insert(address.clone()) {
                                wrong.push(format!("{path}: duplicate entries for key {address}"));
                            }
                        }
                        // An element without an address has no place to look below.
                        Err(says) => {
                            wrong.push(format!("{path}: element {at}: {says}"));
                            continue;
                        }
                    }
                }
                complain(form.item(), element, &here, wrong);
            }
        }
        (Node::Scalar(scalar), value) => {
            if let Some(expected) = expected(*scalar, value) {
                wrong.push(format!("{path}: expected {expected}, got {value}"));
            }
        }
        (Node::Struct(_) | Node::Map { .. }, value) => wrong.push(format!("{path}: expected map, got {value}")),
        (Node::List(_), value) => wrong.push(format!("{path}: expected list, got {value}")),
    }
}

fn expected(scalar: Scalar, value: &Value) -> Option<&'static str> {
    let fits = match scalar {
        Scalar::Text | Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::Duration => value.is_string(),
        Scalar::Flag => value.is_boolean(),
        Scalar::Real | Scalar::Whole | Scalar::Int32 => value.is_number(),
        Scalar::Quantity | Scalar::IntOrString => value.is_string() || value.is_number(),
    };
    match scalar {
        _ if fits => None,
        Scalar::Flag => Some("boolean"),
        Scalar::Real | Scalar::Whole | Scalar::Int32 => Some("numeric (int or float)"),
        Scalar::Quantity | Scalar::IntOrString => Some("string or number"),
        _ => Some("string"),
    }
}

/// The fields a value sets.
pub(crate) fn fields(of: Of<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    match (part(of, value), value) {
        (Part::Members, Value::Object(members)) => {
            for (key, value) in members {
                let below = under(of, key);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let element = Element::field(key);
                if part(below, value) == Part::Leaf || empty || !is_declared(of, key) {
                    set.add(element.clone());
                }
                set.put(element, fields(below, value));
            }
        }
        (Part::Elements, Value::Array(_)) => {
            let Some(list) = of else { return set };
            let elements = addressed(list, Some(value));
            for (at, (element, value)) in elements.iter().enumerate() {
                set.add(element.clone());
                // What is there twice is owned as one.
                let twice = elements
                    .iter()
                    .enumerate()
                    .any(|(other, (same, _))| other != at && same == element);
                if !twice {
                    set.put(element.clone(), fields(list.item(), value));
                }
            }
        }
        _ => {}
    }
    set
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed,
    Modified,
    Added,
}

/// What changed from one value to another.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    /// Of the objects themselves nothing is said: they are nobody's.
    pub(crate) fn of(form: Type<'_>, old: &Value, new: &Value) -> Self {
        let mut comparison = Self::default();
        comparison.compare(Some(form), Some(old), Some(new));
        comparison
    }

    pub(crate) fn without(self, ignored: &Set) -> Self {
        let strip = |set: Set| set.deep_difference(ignored);
        Self {
            removed: strip(self.removed),
            modified: strip(self.modified),
            added: strip(self.added),
        }
    }

    /// Adds what changed below this place, where the two differ, and tells what happened to the place as a whole.
    fn compare(&mut self, of: Of<'_>, old: Option<&Value>, new: Option<&Value>) -> Option<Change> {
        let kind = |value: Option<&Value>| value.filter(|v| !v.is_null()).map(|value| part(of, value));
        let how = match (kind(old), kind(new)) {
            (Some(a), Some(b)) if a != b => Part::Leaf,
            (a, b) => b.or(a).unwrap_or(Part::Leaf),
        };
        let whole = match (old, new) {
            (None, _) => Some(Change::Added),
            (_, None) => Some(Change::Removed),
            _ => None,
        };
        if how == Part::Leaf || is_blank(old) && is_blank(new) {
            return whole.or(Some(Change::Modified));
        }
        if how == Part::Members {
            let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let only_after = after
                .into_iter()
                .flatten()
                .filter(|(key, _)| before.is_none_or(|b| !b.contains_key(*key)))
                .map(|(key, value)| (key, None, Some(value)));
            let of_before = before
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, Some(value), after.and_then(|a| a.get(key))));
            for (key, old, new) in only_after.chain(of_before) {
                self.step(under(of, key), || Element::field(key), old, new);
            }
        } else if let Some(list) = of {
            self.elements(list, &addressed(list, old), &addressed(list, new));
        }
        whole
    }

    fn step(&mut self, of: Of<'_>, element: impl FnOnce() -> Element, old: Option<&Value>, new: Option<&Value>) {
        // Two equal values differ nowhere, and most are equal.
        if old == new {
            return;
        }
        let element = element();
        let mut below = Self::default();
        let whole = below.compare(of, old, new);
        for (mine, theirs) in [
            (&mut self.removed, below.removed),
            (&mut self.modified, below.modified),
            (&mut self.added, below.added),
        ] {
            if !theirs.is_empty() {
                mine.put(element.clone(), theirs);
            }
        }
        if let Some(change) = whole {
            self.changed(change).add(element);
        }
    }

    fn changed(&mut self, change: Change) -> &mut Set {
        match change {
            Change::Removed => &mut self.removed,
            Change::Modified => &mut self.modified,
            Change::Added => &mut self.added,
        }
    }

    fn elements(&mut self, list: Type<'_>, old: &[(Element, &Value)], new: &[(Element, &Value)]) {
        let mut done: Vec<&Element> = Vec::new();
        for (element, _) in old.iter().chain(new) {
            if done.contains(&element) {
                continue;
            }
            done.push(element);
            let (before, after) = (all_at(old, element), all_at(new, element));
            let change = match (before.as_slice(), after.as_slice()) {
                ([] | [_], [] | [_]) => None,
                ([_, _, ..], [_, _, ..]) if before == after => continue,
                ([_, _, ..], [_, _, ..]) => Some(Change::Modified),
                // What was there twice was owned as one; now its fields are, or the other way round.
                ([_, _, ..], _) => Some(Change::Removed),
                (_, [_, _, ..]) => Some(Change::Added),
            };
            self.step(list.item(), || element.clone(), only(&before), only(&after));
            if let Some(change) = change {
                self.changed(change).add(element.clone());
            }
        }
    }
}

fn only<'v>(side: &[&'v Value]) -> Option<&'v Value> {
    match side {
        [value] => Some(value),
        _ => None,
    }
}

fn all_at<'v>(side: &[(Element, &'v Value)], element: &Element) -> Vec<&'v Value> {
    let here = side.iter().filter(|(other, _)| other == element);
    here.map(|(_, value)| *value).collect()
}

/// `left` with all that `right` sets. Lists keep the order of `right` and, as far as that leaves it open, of `left`.
pub(crate) fn merge(of: Of<'_>, left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    let (Some(old), Some(new)) = (left, right) else {
        // One side only: structured merge walks it to the same end.
        return right.or(left).cloned();
    };
    let how = part(of, new);
    if how == Part::Leaf || new.is_null() || part(of, old) != how || is_blank(left) && is_blank(right) {
        return Some(new.clone());
    }
    match (how, old, new) {
        (Part::Members, Value::Object(old), Value::Object(new)) => {
            let mut sum = old.clone();
            for (key, value) in new {
                if let Some(value) = merge(under(of, key), old.get(key), Some(value)) {
                    sum.insert(key.clone(), value);
                }
            }
            Some(Value::Object(sum))
        }
        (Part::Elements, Value::Array(_), Value::Array(_)) => {
            let list = of?;
            Some(Value::Array(merge_elements(
                list,
                &addressed(list, left),
                &addressed(list, right),
            )))
        }
        _ => Some(new.clone()),
    }
}

fn merge_elements(list: Type<'_>, old: &[(Element, &Value)], new: &[(Element, &Value)]) -> Vec<Value> {
    let in_old = |element: &Element| {
        let mut found = old.iter().filter(|(e, _)| e == element).map(|(_, value)| *value);
        // What is there twice is replaced, not merged.
        match (found.next(), found.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    };
    let has = |side: &[(Element, &Value)], element: &Element| side.iter().any(|(e, _)| e == element);
    let mut shared = new
        .iter()
        .map(|(element, _)| element)
        .filter(|element| has(old, element))
        .peekable();
    let mut taken: Vec<&Element> = Vec::new();
    let mut sum = Vec::with_capacity(old.len().max(new.len()));
    let (mut l, mut r) = (0, 0);
    while l < old.len() || r < new.len() {
        if let (Some((left, _)), Some((right, value))) = (old.get(l), new.get(r)) {
            if left == right {
                taken.push(right);
                sum.extend(merge(list.item(), in_old(left), Some(value)));
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            // In both, but its turn comes later.
            if has(new, left) && shared.peek().is_some_and(|next| *next != left) {
                l += 1;
                continue;
            }
        }
        if let Some((left, value)) = old.get(l) {
            if !has(new, left) {
                sum.push((*value).clone());
                l += 1;
                continue;
            }
            if taken.contains(&left) {
                l += 1;
            }
        }
        if let Some((right, value)) = new.get(r) {
            taken.push(right);
            sum.extend(merge(list.item(), in_old(right), Some(value)));
            r += 1;
            if shared.peek() == Some(&right) {
                shared.next();
            }
        }
    }
    sum
}

/// `value` without the fields of `gone`. What becomes empty stays, empty.
pub(crate) fn remove(of: Of<'_>, value: &Value, gone: &Set) -> Value {
    match (part(of, value), value) {
        (Part::Members, Value::Object(members)) => {
            let keep = members.iter().filter_map(|(key, value)| {
                let element = Element::field(key);
                if gone.has(&element) {
                    return None;
                }
                let value = gone
                    .below(&element)
                    .map_or_else(|| value.clone(), |gone| remove(under(of, key), value, gone));
                Some((key.clone(), value))
            });
            Value::Object(keep.collect())
        }
        (Part::Elements, Value::Array(elements)) => {
            let Some(list) = of else { return value.clone() };
            let keep = elements.iter().filter_map(|value| {
                let Ok(element) = address(list, value) else {
                    return Some(value.clone());
                };
                if gone.has(&element) {
                    return None;
                }
                Some(
                    gone.below(&element)
                        .map_or_else(|| value.clone(), |gone| remove(list.item(), value, gone)),
                )
            });
            Value::Array(keep.collect())
        }
        _ => value.clone(),
    }
}

/// A set written when the form was another: what has become atomic since is owned as a whole.
pub(crate) fn reconcile(of: Of<'_>, set: &Set) -> Set {
    let mut now = Set::default();
    set.members().for_each(|element| now.add(element.clone()));
    for (element, child) in set.children() {
        let below = match element.name() {
            Some(name) => under(of, name),
            None => of.and_then(Type::item),
        };
        if below.is_some_and(|b| b.is_atomic()) {
            now.add(element.clone());
        } else {
            now.put(element.clone(), reconcile(below, child));
        }
    }
    now
}

/// Where a value sets an atomic list, map or struct: `.spec.selector`.
pub(crate) fn atomics(of: Type<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    let whole = !matches!(of.node(), Node::Scalar(_)) && of.is_atomic();
    match value {
        Value::Object(members) => {
            if whole {
                found.push(path.to_owned());
            }
            for (key, value) in members {
                if let Some(below) = of.under(key) {
                    atomics(below, value, &format!("{path}.{key}"), found);
                }
            }
        }
        Value::Array(list) => {
            if whole {
                found.push(path.to_owned());
            }
            if let Some(item) = of.item() {
                for (at, value) in list.iter().enumerate() {
                    atomics(item, value, &format!("{path}[{at}]"), found);
                }
            }
        }
        _ => {}
    }
}
