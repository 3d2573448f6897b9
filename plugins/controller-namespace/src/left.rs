//! What is still in a namespace.

use std::collections::{BTreeMap, BTreeSet};

use sdk::columns::Cell;
use sdk::view::Served;
use sdk::{View, within};

#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Objects by resource, as kubectl names it with a dot behind: `pods.`, `deployments.apps`.
    pub(crate) objects: BTreeMap<String, i64>,
    /// Objects by finalizer.
    pub(crate) finalizers: BTreeMap<String, i64>,
    /// Kinds of which some object is not being deleted yet.
    untouched: BTreeSet<String>,
    /// Kinds that could not be read, and why. What is in them is not known, so it is not nothing.
    pub(crate) failures: Vec<String>,
}

impl Left {
    /// Reads on behind a kind that cannot be read: one broken kind hides no other.
    pub(crate) fn count(namespace: &str, kinds: &[Served], view: &View) -> Self {
        let mut left = Self::default();
        for kind in kinds {
            if let Err(error) = left.add(namespace, kind, view) {
                left.failures.push(format!("{}: {error}", name(kind)));
            }
        }
        left
    }

    fn add(&mut self, namespace: &str, kind: &Served, view: &View) -> sdk::Result<()> {
        const BY: &str = ".metadata.deletionTimestamp? .metadata.finalizers";
        for row in view.tally(&kind.kind, &within(namespace), BY, "")?.rows()? {
            *self.objects.entry(name(kind)).or_default() += row.count();
            if row.value(0) != Cell::Bool(true) {
                self.untouched.insert(kind.resource.clone());
            }
            let finalizers: Vec<String> = match row.value(1) {
                Cell::Json(list) => serde_json::from_str(list)?,
                _ => Vec::new(),
            };
            for finalizer in finalizers {
                *self.finalizers.entry(finalizer).or_default() += row.count();
            }
        }
        Ok(())
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.objects.is_empty() && self.failures.is_empty()
    }

    pub(crate) fn is_untouched(&self, kind: &Served) -> bool {
        self.untouched.contains(&kind.resource)
    }
}

fn name(kind: &Served) -> String {
    let dot = if kind.resource.contains('.') { "" } else { "." };
    format!("{}{dot}", kind.resource)
}
