//! Orders as plugins write them, and the keys that sort by them.

use std::cmp::Ordering;
use std::sync::Arc;

use model::{Failure, FieldPath, FieldSet, FieldValue, Object};

use crate::member::name_of;

/// `-.metadata.creationTimestamp .status.phase(Pending|Running) .metadata.annotations["cost"]:int`, parsed.
#[derive(Debug)]
pub struct Order {
    set: FieldSet,
    terms: Vec<Term>,
}

#[derive(Debug)]
struct Term {
    descending: bool,
    as_int: bool,
    /// These values first, in this order.
    first: Vec<String>,
}

impl Order {
    /// # Errors
    /// [`Failure::BadRequest`] for a term that is not `[-]path[:int][(a|b|c)]`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut paths = Vec::new();
        let mut terms = Vec::new();
        for word in crate::fields::words(text) {
            let (word, descending) = word.strip_prefix('-').map_or((word, false), |rest| (rest, true));
            let (word, first) = match word.strip_suffix(')').and_then(|rest| rest.rsplit_once('(')) {
                Some((word, values)) => (word, values.split('|').map(String::from).collect()),
                None => (word, Vec::new()),
            };
            let (word, as_int) = word.strip_suffix(":int").map_or((word, false), |rest| (rest, true));
            paths.push(FieldPath::parse(word)?);
            terms.push(Term {
                descending,
                as_int,
                first,
            });
        }
        Ok(Self {
            set: FieldSet::new(paths),
            terms,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub(crate) fn key(&self, object: &Object) -> SortKey {
        let values = self.set.read(&object.json).into_iter();
        values.zip(&self.terms).map(|(value, term)| term.part(value)).collect()
    }
}

impl Term {
    fn part(&self, value: FieldValue<'_>) -> Part {
        let value = match (self.as_int, value) {
            (false, value) => value.into_owned(),
            (true, FieldValue::I64(number)) => FieldValue::I64(number),
            (true, value) => FieldValue::I64(value.to_text().trim().parse().unwrap_or(0)),
        };
        let text = value.to_text();
        let rank = self.first.iter().position(|v| *v == text).unwrap_or(self.first.len());
        Part {
            descending: self.descending,
            rank: rank as u32,
            value: if rank < self.first.len() {
                FieldValue::Absent
            } else {
                value
            },
        }
    }
}

pub(crate) type SortKey = Box<[Part]>;

/// One term's contribution. Two are only compared under one order, so they agree on `descending`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    descending: bool,
    rank: u32,
    value: FieldValue<'static>,
}

impl Ord for Part {
    fn cmp(&self, other: &Self) -> Ordering {
        let up = self.rank.cmp(&other.rank).then_with(|| self.value.cmp(&other.value));
        if self.descending { up.reverse() } else { up }
    }
}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An object in its place. Ties go by namespace and name, which are unique in a kind, so the order is total.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    pub(crate) key: SortKey,
    pub(crate) object: Arc<Object>,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key
            .cmp(&other.key)
            .then_with(|| name_of(&self.object).cmp(&name_of(&other.object)))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::json;

    #[test]
    fn ranks_ints_and_directions() {
        let order =
            Order::parse(r#".status.phase(Pending|Unknown|Running) .metadata.annotations["cost"]:int -.spec.n"#)
                .unwrap();
        let made = |name: &str, phase: &str, cost: &str, n: i64| {
            pod(
                name,
                1,
                json!({"metadata": {"annotations": {"cost": cost}}, "status": {"phase": phase}, "spec": {"n": n}}),
            )
        };
        let mut pods = [
            made("a", "Failed", "", 0),
            made("b", "Running", "10", 0),
            made("c", "Running", "9", 1),
            made("d", "Running", "9", 2),
            made("e", "Pending", "x", 0),
        ]
        .map(|object| Ranked {
            key: order.key(&object),
            object,
        });
        pods.sort();
        assert_eq!(pods.map(|p| p.object.key.name.to_string()), ["e", "d", "c", "b", "a"]);
    }
}
