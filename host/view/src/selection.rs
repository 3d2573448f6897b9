//! Which objects a question is about, and the one fact by which a change finds the question.

use model::{Failure, FieldPath, FieldSet, FieldValue, Object, Selector};
use serde::{Deserialize, Serialize};

use crate::fields::texts;

/// A selection as plugins write it. All parts must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selection {
    /// Empty: every namespace.
    pub namespace: String,
    /// Label selector text; empty: any labels.
    pub labels: String,
    /// Field path and the text its value, or one of its values, must read as.
    pub equals: Vec<(String, String)>,
}

impl Selection {
    pub fn namespace(namespace: &str) -> Self {
        Self {
            namespace: namespace.into(),
            ..Self::default()
        }
    }

    pub fn labelled(mut self, labels: &str) -> Self {
        self.labels = labels.into();
        self
    }

    pub fn equals(mut self, path: &str, value: &str) -> Self {
        self.equals.push((path.into(), value.into()));
        self
    }
}

impl std::fmt::Display for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.namespace.is_empty() {
            parts.push(format!("namespace {}", self.namespace));
        }
        if !self.labels.is_empty() {
            parts.push(self.labels.clone());
        }
        parts.extend(self.equals.iter().map(|(path, value)| format!("{path} = {value:?}")));
        f.write_str(if parts.is_empty() { "all" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// What an index is made on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum IndexOn {
    Label(String),
    /// Canonical text of a path.
    Path(String),
}

/// A parsed [`Selection`].
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) namespace: String,
    labels: Selector,
    equals: Vec<(FieldPath, String)>,
    set: FieldSet,
    /// The one value that everything selected has: what to look up in which index. `None`: the namespace is all there is.
    pub(crate) anchor: Option<(IndexOn, String)>,
}

impl Chosen {
    pub(crate) fn parse(selection: &Selection) -> Result<Self, Failure> {
        let labels = Selector::parse(&selection.labels)?;
        let mut equals = Vec::new();
        for (path, value) in &selection.equals {
            equals.push((FieldPath::parse(path)?, value.clone()));
        }
        let by_field = equals
            .first()
            .map(|(path, value)| (IndexOn::Path(path.to_string()), value.clone()));
        let by_label = || {
            let mut keys = labels.requirements().iter().map(|r| r.key.as_str());
            keys.find_map(|key| Some((IndexOn::Label(key.into()), labels.exact(key)?.to_owned())))
        };
        let anchor = by_field.or_else(by_label);
        let set = FieldSet::new(equals.iter().map(|(path, _)| path.clone()));
        Ok(Self {
            namespace: selection.namespace.clone(),
            labels,
            equals,
            set,
            anchor,
        })
    }

    pub(crate) fn selects(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || object.key.namespace == self.namespace.as_str())
            && self.labels.matches(&object.labels)
            && (self.equals.is_empty() || self.values_match(object))
    }

    /// For candidates that were found under the anchor: its own equality need not be read again.
    pub(crate) fn selects_anchored(&self, object: &Object) -> bool {
        match self.equals.len() {
            0 | 1 => {
                (self.namespace.is_empty() || object.key.namespace == self.namespace.as_str())
                    && self.labels.matches(&object.labels)
            }
            _ => self.selects(object),
        }
    }

    fn values_match(&self, object: &Object) -> bool {
        let row = self.set.read(&object.json);
        self.equals
            .iter()
            .zip(&row)
            .all(|((path, wanted), value)| reads_as(path, value, wanted))
    }
}

/// Whether a value, or one of the values of a `[*]` path, reads as this text: what `equals` means.
pub fn reads_as(path: &FieldPath, value: &FieldValue<'_>, wanted: &str) -> bool {
    if path.is_many() {
        texts(path, value).iter().any(|text| text == wanted)
    } else {
        value.to_text() == wanted
    }
}
