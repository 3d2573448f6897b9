//! One admission plugin: which writes matter to it, and what it is told of them.

use std::sync::Arc;

use model::{Failure, FieldValue, Gvk, Object};
use plugin::Admission;
use plugin::world::admission::{Description, MatchRule, Occasion as Asked, Operation as Word, Phase};
use registry::gates::{Interest, Operation, one_of, one_of_resources};
use view::{View, Wanted};

use crate::chain::Texts;

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
    occasion: Option<Occasion>,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) wanted_of_namespace: Arc<Wanted>,
    /// It asked to read; such rules get a view with each call.
    pub(crate) reads: bool,
    description: Description,
}

/// What gives a rule something to say: one of these fields, or an object of one of these kinds.
struct Occasion {
    fields: Arc<Wanted>,
    of_namespace: Arc<Wanted>,
    kinds: Vec<Gvk>,
}

impl Rule {
    /// # Errors
    /// `BadRequest` when the plugin names a field that cannot be read as a path, or a kind that is none; `Plugin` when nothing of it is loaded.
    pub fn new(plugin: Arc<plugin::Plugin>, failure_policy: FailurePolicy, built_in: bool) -> Result<Self, Failure> {
        let admission = Admission::new(plugin);
        let description = admission.description().ok_or_else(|| Failure::Plugin {
            name: admission.plugin().name().as_str().to_owned(),
            doing: "describing its rules",
            reason: "it exports no pilotis:admission/about".into(),
        })?;
        let occasion = description.occasion.as_ref().map(Occasion::parse).transpose()?;
        Ok(Self {
            occasion,
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

    /// Whether a namespace matters to it, or to whether it is asked.
    pub(crate) fn reads_namespace(&self) -> bool {
        let occasion = self.occasion.iter().map(|occasion| &occasion.of_namespace);
        occasion.chain([&self.wanted_of_namespace]).any(|w| w.columns() > 0)
    }

    /// `false` only where it said itself that it has nothing to say. A kind that nobody has read yet may have objects.
    pub(crate) fn has_occasion(
        &self,
        texts: &Texts,
        of_namespace: Option<&Object>,
        view: Option<&View>,
        namespace: &str,
    ) -> bool {
        let any = |kind: &Gvk| view.and_then(|view| view.any(kind, namespace)).unwrap_or(true);
        self.occasion
            .as_ref()
            .is_none_or(|occasion| occasion.is_there(texts, of_namespace.map(|object| &*object.json), any))
    }

    pub(crate) fn in_phase(&self, phase: Phase) -> bool {
        self.description.phases.contains(&phase)
    }

    /// The wanted fields of a document, packed as one row; no row without a document.
    pub(crate) fn pack(&self, document: Option<&[u8]>) -> Vec<u8> {
        document.map_or_else(|| no_row(&self.wanted), |json| row(&self.wanted, json))
    }

    pub(crate) fn pack_namespace(&self, namespace: Option<&Object>) -> Vec<u8> {
        match namespace {
            None => no_row(&self.wanted_of_namespace),
            Some(object) => row(&self.wanted_of_namespace, &object.json),
        }
    }
}

impl Occasion {
    fn parse(asked: &Asked) -> Result<Self, Failure> {
        let kind = |text: &String| {
            Gvk::parse(text).ok_or_else(|| Failure::BadRequest(format!("occasion: {text:?} is not group/version/Kind")))
        };
        Ok(Self {
            fields: Wanted::parse(&asked.fields)?,
            of_namespace: Wanted::parse(&asked.of_namespace)?,
            kinds: asked.kinds.iter().map(kind).collect::<Result<_, _>>()?,
        })
    }

    fn is_there(&self, texts: &Texts, namespace: Option<&[u8]>, any: impl Fn(&Gvk) -> bool) -> bool {
        let of_object = |json: &Vec<u8>| has_one(&self.fields, json);
        texts.object.iter().chain(&texts.old).any(of_object)
            || self.of_namespace.columns() > 0 && namespace.is_none_or(|json| has_one(&self.of_namespace, json))
            || self.kinds.iter().any(any)
    }
}

fn has_one(fields: &Arc<Wanted>, json: &[u8]) -> bool {
    let absent = |value: &FieldValue<'_>| matches!(value, FieldValue::Absent | FieldValue::Null);
    !fields.read(json).iter().all(absent)
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
        Operation::Create => Word::Create,
        Operation::Update => Word::Update,
        Operation::Delete => Word::Delete,
        Operation::Connect => Word::Connect,
    };
    rule.operations.contains(&operation)
        && one_of(&rule.groups, &of.kind.gvk.group)
        && one_of(&rule.versions, &of.kind.gvk.version)
        && one_of_resources(&rule.resources, &of.kind.plural, of.subresource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_that_is_named_and_there_is_an_occasion() {
        let texts = |object: Option<&str>, old: Option<&str>| Texts {
            object: object.map(Into::into),
            old: old.map(Into::into),
        };
        let asked = |fields: &str, of_namespace: &str, kinds: &[&str]| Asked {
            fields: fields.to_owned(),
            of_namespace: of_namespace.to_owned(),
            kinds: kinds.iter().map(|&kind| kind.to_owned()).collect(),
        };
        let occasion = |fields: &str, of: &str, kinds: &[&str]| Occasion::parse(&asked(fields, of, kinds)).unwrap();
        let quotas = |kind: &Gvk| kind.kind == "ResourceQuota";
        let class = occasion(".spec.runtimeClassName .spec.overhead", "", &[]);
        let plain = r#"{"spec":{"nodeName":"a","overhead":null}}"#;
        let classed = r#"{"spec":{"runtimeClassName":"b"}}"#;
        assert!(!class.is_there(&texts(Some(plain), None), None, quotas));
        assert!(class.is_there(&texts(Some(classed), None), None, quotas));
        assert!(class.is_there(&texts(Some(plain), Some(classed)), None, quotas));
        assert!(
            class.is_there(&texts(None, Some(classed)), None, quotas),
            "what is deleted had it"
        );
        let either = occasion("", "", &["v1/LimitRange", "v1/ResourceQuota"]);
        assert!(either.is_there(&texts(Some(plain), None), None, quotas));
        assert!(!occasion("", "", &["v1/LimitRange"]).is_there(&texts(Some(classed), None), None, quotas));
        assert!(Occasion::parse(&asked("", "", &["LimitRange"])).is_err());

        let going = occasion("", ".metadata.deletionTimestamp", &[]);
        let asked_in =
            |namespace: Option<&str>| going.is_there(&texts(Some(classed), None), namespace.map(str::as_bytes), quotas);
        assert!(!asked_in(Some(r#"{"metadata":{"name":"web"}}"#)));
        assert!(asked_in(Some(
            r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}"#
        )));
        assert!(asked_in(None), "there is no such namespace, or the object is in none");
    }
}
