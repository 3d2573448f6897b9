//! What a list or watch wants to see: namespace, labels, fields.

use compact_str::CompactString;
use model::{Failure, FieldSelector, Object, Selector};

use crate::cache::Entry;
use crate::document::Picker;
use crate::resource::Resource;

/// A parsed selection over one kind. Equal filters share one channel of the watch cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    pub(crate) namespace: Option<CompactString>,
    labels: Selector,
    fields: Vec<Term>,
}

/// One comparison of a field selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Term {
    field: Field,
    value: CompactString,
    equal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Field {
    Name,
    Namespace,
    /// A place in the kind's list of selectable fields.
    Slot(usize),
}

/// Where a channel is found by the cache when an object changes: under one value it must have, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Index {
    Any,
    Namespace(CompactString),
    Field(usize, CompactString),
}

impl Filter {
    /// # Errors
    /// [`Failure::BadRequest`] in kube-apiserver's words for a selector that cannot be read or names another field.
    pub(crate) fn new(
        resource: &Resource,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Self, Failure> {
        let unknown = |path: &str| {
            Failure::BadRequest(if resource.custom || !resource.selectable.is_empty() {
                format!("field label not supported: {path}")
            } else {
                format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            })
        };
        let selector = if labels.is_empty() {
            Selector::everything()
        } else {
            Selector::parse(labels)?
        };
        let parsed = FieldSelector::parse(fields)?;
        let terms = parsed.terms().iter().map(|term| {
            let field = match term.field.as_str() {
                "metadata.name" => Field::Name,
                "metadata.namespace" if resource.kind.namespaced() => Field::Namespace,
                path => {
                    let slot = resource.selectable.iter().position(|s| s.path == path);
                    Field::Slot(slot.ok_or_else(|| unknown(path))?)
                }
            };
            Ok(Term {
                field,
                value: term.value.clone(),
                equal: term.equal,
            })
        });
        let fields = terms.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self {
            namespace: namespace.map(Into::into),
            labels: selector,
            fields,
        })
    }

    pub(crate) fn matches(&self, entry: &Entry, picker: &Picker) -> bool {
        let object: &Object = &entry.object;
        self.namespace.as_ref().is_none_or(|n| *n == object.key.namespace)
            && self.fields.iter().all(|term| {
                let has = match term.field {
                    Field::Name => &object.key.name,
                    Field::Namespace => &object.key.namespace,
                    Field::Slot(slot) => &entry.fields(picker)[slot],
                };
                (*has == term.value) == term.equal
            })
            && self.labels.matches(&object.labels)
    }

    /// Selects everything in its namespace (or in all).
    pub(crate) fn is_whole(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// The one object it can match, if it names one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|t| t.equal && t.field == Field::Name)
            .map(|t| t.value.as_str())
    }

    pub(crate) fn index(&self) -> Index {
        let slot = self.fields.iter().find_map(|term| match (term.field, term.equal) {
            (Field::Slot(slot), true) => Some(Index::Field(slot, term.value.clone())),
            _ => None,
        });
        slot.or_else(|| self.namespace.clone().map(Index::Namespace))
            .unwrap_or(Index::Any)
    }
}
