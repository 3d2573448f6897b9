//! What a policy or binding applies to (`admissionregistration.k8s.io/v1` `MatchResources`).

use client::Target;
use model::{Failure, Kind, Labels, Scope, Selector};
use registry::gates::{Interest, Operation, one_of, one_of_resources};
use serde_json::Value;

#[derive(Debug, Default)]
pub(crate) struct Constraints {
    /// `None`: everything (a binding that says nothing).
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    namespaces: Option<Result<Selector, String>>,
    objects: Option<Result<Selector, String>>,
    /// Rules count as well that name another version or group with the same objects.
    equivalent: bool,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn selector(value: &Value) -> Option<Result<Selector, String>> {
    let set = value.as_object().is_some_and(|members| !members.is_empty());
    set.then(|| Selector::from_json(value).map_err(|failure| failure.to_string()))
}

impl Constraints {
    /// Of a `matchConstraints` or `matchResources`; null: everything.
    pub(crate) fn read(value: &Value) -> Self {
        let rules = |key: &str| -> Vec<Rule> { value[key].as_array().into_iter().flatten().map(Rule::read).collect() };
        let own = rules("resourceRules");
        Self {
            rules: (!own.is_empty()).then_some(own),
            excluded: rules("excludeResourceRules"),
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
            equivalent: value["matchPolicy"] != "Exact",
        }
    }

    /// As far as can be told without the object and without looking for other versions of it.
    pub(crate) fn may_match(&self, of: &Interest<'_>) -> bool {
        let fits = |rule: &Rule| {
            rule.about(of.operation, of.kind, of.subresource, None) && (self.equivalent || rule.names(of.kind))
        };
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(fits))
    }

    /// Which of `kinds` the request is known by here; the first is the one that was asked for. `None`: it does not match.
    /// `namespace`: the labels of the object's namespace (of the object itself, if it is one); `None` at cluster scope.
    ///
    /// # Errors
    /// A selector that is none.
    pub(crate) fn matches<'k>(
        &self,
        operation: Operation,
        kinds: &[&'k Kind],
        target: &Target,
        namespace: Option<&Labels>,
        objects: &[Option<Labels>],
    ) -> Result<Option<&'k Kind>, Failure> {
        let known_by = |rules: &[Rule]| {
            let (asked, others) = kinds.split_first()?;
            let about = |rule: &&Rule| rule.about(operation, asked, &target.subresource, Some(&target.name));
            if rules.iter().filter(about).any(|rule| rule.names(asked)) {
                return Some(*asked);
            }
            let mut rules = rules.iter().filter(|_| self.equivalent).filter(about);
            rules.find_map(|rule| others.iter().copied().find(|kind| rule.names(kind)))
        };
        let known = match &self.rules {
            Some(rules) => known_by(rules),
            None => kinds.first().copied(),
        };
        if known.is_none() || known_by(&self.excluded).is_some() {
            return Ok(None);
        }
        let bad = |why: &String| Failure::BadRequest(why.clone());
        if let (Some(selector), Some(labels)) = (&self.namespaces, namespace)
            && !selector.as_ref().map_err(bad)?.matches(labels)
        {
            return Ok(None);
        }
        if let Some(selector) = &self.objects {
            let selector = selector.as_ref().map_err(bad)?;
            let chosen = objects.iter().flatten().any(|labels| selector.matches(labels));
            return Ok(known.filter(|_| chosen));
        }
        Ok(known)
    }
}

impl Rule {
    fn read(value: &Value) -> Self {
        Self {
            operations: texts(&value["operations"]),
            groups: texts(&value["apiGroups"]),
            versions: texts(&value["apiVersions"]),
            resources: texts(&value["resources"]),
            names: texts(&value["resourceNames"]),
            scope: value["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    /// All but the kind's group and version, which may be those of another kind with the same objects.
    fn about(&self, operation: Operation, kind: &Kind, subresource: &str, name: Option<&str>) -> bool {
        let scope = match self.scope.as_str() {
            "Namespaced" => kind.scope == Scope::Namespaced,
            "Cluster" => kind.scope == Scope::Cluster,
            _ => true,
        };
        scope
            && one_of(&self.operations, operation.as_str())
            && one_of_resources(&self.resources, &kind.plural, subresource)
            && (self.names.is_empty() || name.is_none_or(|name| self.names.iter().any(|n| n == name)))
    }

    fn names(&self, kind: &Kind) -> bool {
        one_of(&self.groups, &kind.gvk.group) && one_of(&self.versions, &kind.gvk.version)
    }
}

/// The labels of a document.
pub(crate) fn labels_of(object: &Value) -> Labels {
    let labels = object["metadata"]["labels"].as_object();
    let pairs = labels.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect()
}
