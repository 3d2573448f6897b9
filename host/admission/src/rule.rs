//! One admission plugin: which writes matter to it, and what it is told of them.

use std::sync::Arc;

use model::{Failure, Object};
use plugin::Admission;
use plugin::world::admission::{Description, MatchRule, Operation as Asked, Phase};
use registry::gates::{Interest, Operation};
use serde_json::Value;
use view::Wanted;

/// What a fault of the plugin means for the write (`spec.failurePolicy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// Refuse it.
    #[default]
    Fail,
    /// Let it pass, with a warning.
    Ignore,
}

/// A loaded rule. Made anew when its plugin is swapped.
pub struct Rule {
    pub(crate) admission: Admission,
    pub(crate) failure_policy: FailurePolicy,
    /// Comes with the house: its refusals are worded as Kubernetes words them, without naming a plugin.
    pub(crate) built_in: bool,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) wanted_of_namespace: Arc<Wanted>,
    /// It asked to read; such rules get a view with each call.
    pub(crate) reads: bool,
    description: Description,
}

impl Rule {
    /// # Errors
    /// `BadRequest` when the plugin names a field that cannot be read as a path; `Plugin` when nothing of it is loaded.
    pub fn new(plugin: Arc<plugin::Plugin>, failure_policy: FailurePolicy, built_in: bool) -> Result<Self, Failure> {
        let admission = Admission::new(plugin);
        let description = admission.description().ok_or_else(|| Failure::Plugin {
            name: admission.plugin().name().as_str().to_owned(),
            doing: "describing its rules",
            reason: "it exports no pilotis:admission/about".into(),
        })?;
        Ok(Self {
            wanted: Wanted::parse(&description.wanted)?,
            wanted_of_namespace: Wanted::parse(&description.wanted_of_namespace)?,
            reads: !description.asks.is_empty(),
            admission,
            failure_policy,
            built_in,
            description,
        })
    }

    pub fn name(&self) -> &str {
        self.admission.plugin().name().as_str()
    }

    /// Whether it wants to be asked in some phase.
    pub(crate) fn wants(&self, of: &Interest<'_>) -> bool {
        self.description.rules.iter().any(|rule| matches(rule, of))
    }

    pub(crate) fn in_phase(&self, phase: Phase) -> bool {
        self.description.phases.contains(&phase)
    }

    /// The wanted fields of a document, packed as one row; no row without a document.
    pub(crate) fn pack(&self, document: Option<&Value>) -> Result<Vec<u8>, Failure> {
        match document {
            None => Ok(no_row(&self.wanted)),
            Some(value) => Ok(row(
                &self.wanted,
                &serde_json::to_vec(value).map_err(Failure::internal)?,
            )),
        }
    }

    pub(crate) fn pack_namespace(&self, namespace: Option<&Object>) -> Vec<u8> {
        match namespace {
            None => no_row(&self.wanted_of_namespace),
            Some(object) => row(&self.wanted_of_namespace, &object.json),
        }
    }
}

fn no_row(wanted: &Wanted) -> Vec<u8> {
    view::columns::pack(wanted.columns(), std::iter::empty()).into()
}

fn row(wanted: &Arc<Wanted>, json: &[u8]) -> Vec<u8> {
    let values = wanted.read(json);
    view::columns::pack(wanted.columns(), [values.as_slice()]).into()
}

fn matches(rule: &MatchRule, of: &Interest<'_>) -> bool {
    let operation = match of.operation {
        Operation::Create => Asked::Create,
        Operation::Update => Asked::Update,
        Operation::Delete => Asked::Delete,
        Operation::Connect => Asked::Connect,
    };
    let one_of = |list: &[String], text: &str| list.iter().any(|entry| entry == "*" || entry == text);
    rule.operations.contains(&operation)
        && one_of(&rule.groups, &of.kind.gvk.group)
        && one_of(&rule.versions, &of.kind.gvk.version)
        && rule
            .resources
            .iter()
            .any(|entry| resource_matches(entry, &of.kind.plural, of.subresource))
}

/// `pods`, `pods/status`, `pods/*`, `*` (any resource, no subresource), `*/status`, `*/*` (admissionregistration/v1 Rule).
fn resource_matches(entry: &str, resource: &str, subresource: &str) -> bool {
    let (wanted, sub) = entry.split_once('/').unwrap_or((entry, ""));
    (wanted == "*" || wanted == resource) && (sub == "*" || sub == subresource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_match_as_admission_registration_says() {
        let cases = [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/status", "pods", "status", true),
            ("pods/*", "pods", "", true),
            ("pods/*", "pods", "binding", true),
            ("*", "pods", "", true),
            ("*", "pods", "status", false),
            ("*/status", "pods", "status", true),
            ("*/*", "services", "status", true),
            ("pods", "services", "", false),
        ];
        for (entry, resource, subresource, expected) in cases {
            assert_eq!(
                resource_matches(entry, resource, subresource),
                expected,
                "{entry} on {resource}/{subresource}"
            );
        }
    }
}
