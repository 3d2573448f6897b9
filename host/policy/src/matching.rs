//! What a policy or binding applies to (`admissionregistration.k8s.io/v1` `MatchResources`).

use client::Target;
use model::{Failure, Kind, Labels, Scope, Selector};
use registry::gates::{Interest, Operation};
use serde_json::Value;

#[derive(Debug, Default)]
pub(crate) struct Constraints {
    /// `None`: everything (a binding that says nothing).
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    namespaces: Option<Result<Selector, String>>,
    objects: Option<Result<Selector, String>>,
    /// A version that the rules do not name will do as well.
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

    /// As far as can be told without the object.
    pub(crate) fn may_match(&self, of: &Interest<'_>) -> bool {
        let fits = |rule: &Rule| rule.matches(of.operation, of.kind, of.subresource, None, self.equivalent);
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(fits))
    }

    /// `namespace`: the labels of the object's namespace (of the object itself, if it is one); `None` at cluster scope.
    ///
    /// # Errors
    /// A selector that is none.
    pub(crate) fn matches(
        &self,
        operation: Operation,
        kind: &Kind,
        target: &Target,
        namespace: Option<&Labels>,
        objects: &[Option<Labels>],
    ) -> Result<bool, Failure> {
        let fits = |rule: &Rule| {
            rule.matches(
                operation,
                kind,
                &target.subresource,
                Some(&target.name),
                self.equivalent,
            )
        };
        if self.excluded.iter().any(fits) || !self.rules.as_ref().is_none_or(|rules| rules.iter().any(fits)) {
            return Ok(false);
        }
        let bad = |why: &String| Failure::BadRequest(why.clone());
        if let (Some(selector), Some(labels)) = (&self.namespaces, namespace)
            && !selector.as_ref().map_err(bad)?.matches(labels)
        {
            return Ok(false);
        }
        if let Some(selector) = &self.objects {
            let selector = selector.as_ref().map_err(bad)?;
            return Ok(objects.iter().flatten().any(|labels| selector.matches(labels)));
        }
        Ok(true)
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

    fn matches(
        &self,
        operation: Operation,
        kind: &Kind,
        subresource: &str,
        name: Option<&str>,
        any_version: bool,
    ) -> bool {
        let one_of = |list: &[String], text: &str| list.iter().any(|entry| entry == "*" || entry == text);
        let resource = |entry: &String| {
            let (wanted, sub) = entry.split_once('/').unwrap_or((entry, ""));
            (wanted == "*" || wanted == kind.plural) && (sub == "*" || sub == subresource)
        };
        let scope = match self.scope.as_str() {
            "Namespaced" => kind.scope == Scope::Namespaced,
            "Cluster" => kind.scope == Scope::Cluster,
            _ => true,
        };
        scope
            && one_of(&self.operations, operation.as_str())
            && one_of(&self.groups, &kind.gvk.group)
            && (any_version || one_of(&self.versions, &kind.gvk.version))
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || name.is_none_or(|name| self.names.iter().any(|n| n == name)))
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
