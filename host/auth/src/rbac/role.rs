//! One role: its rules as written, and compiled for lookups.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    #[serde(deserialize_with = "or_default")]
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub resource_names: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub non_resource_urls: Vec<String>,
}

impl PolicyRule {
    /// All verbs on all resources, and on all paths.
    pub fn everything() -> [Self; 2] {
        let all = || vec!["*".to_owned()];
        let resources = Self {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Self::default()
        };
        let paths = Self {
            verbs: all(),
            non_resource_urls: all(),
            ..Self::default()
        };
        [resources, paths]
    }
}

/// `null` where a list may stand: Go clients send it for an empty one.
pub(crate) fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl fmt::Display for PolicyRule {
    /// As kube-apiserver prints a rule somebody may not grant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{list:?}"))
        .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// What a Role or ClusterRole document says that matters here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleDocument {
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<PolicyRule>,
    pub aggregation_rule: Option<AggregationRule>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AggregationRule {
    #[serde(deserialize_with = "or_default")]
    pub cluster_role_selectors: Vec<LabelSelector>,
}

/// `metav1.LabelSelector`, as aggregation uses it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    #[serde(deserialize_with = "or_default")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Requirement {
    pub key: String,
    pub operator: String,
    #[serde(deserialize_with = "or_default")]
    pub values: Vec<String>,
}

impl LabelSelector {
    pub fn matches(&self, labels: &model::Labels) -> bool {
        let equal = self
            .match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        equal
            && self.match_expressions.iter().all(|r| {
                let value = labels.get(&r.key);
                match r.operator.as_str() {
                    "In" => value.is_some_and(|v| r.values.iter().any(|w| w == v)),
                    "NotIn" => !value.is_some_and(|v| r.values.iter().any(|w| w == v)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

/// The same rules by group and resource, so that a question costs a few hash lookups whatever the role's length.
#[derive(Debug, Clone, Default)]
pub(super) struct Role {
    pub(super) rules: Vec<PolicyRule>,
    /// Group, then resource as written (`pods`, `pods/log`, `*/scale`, `*`).
    grants: HashMap<String, HashMap<String, Vec<Grant>>>,
    /// Verbs and URL patterns.
    urls: Vec<(Vec<String>, Vec<String>)>,
}

#[derive(Debug, Clone)]
struct Grant {
    verbs: Vec<String>,
    /// Empty: all names.
    names: Vec<String>,
}

impl Role {
    pub(super) fn compile(rules: Vec<PolicyRule>) -> Self {
        let mut role = Self::default();
        for rule in &rules {
            for group in &rule.api_groups {
                for resource in &rule.resources {
                    let grant = Grant {
                        verbs: rule.verbs.clone(),
                        names: rule.resource_names.clone(),
                    };
                    role.grants
                        .entry(group.clone())
                        .or_default()
                        .entry(resource.clone())
                        .or_default()
                        .push(grant);
                }
            }
            if !rule.non_resource_urls.is_empty() {
                role.urls.push((rule.verbs.clone(), rule.non_resource_urls.clone()));
            }
        }
        role.rules = rules;
        role
    }

    /// `full` is `resource` or `resource/subresource`.
    pub(super) fn allows_resource(&self, verb: &str, group: &str, full: &str, name: &str) -> bool {
        let any_parent = full.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
        [group, "*"]
            .into_iter()
            .filter_map(|group| self.grants.get(group))
            .any(|resources| {
                [Some(full), Some("*"), any_parent.as_deref()]
                    .into_iter()
                    .flatten()
                    .filter_map(|resource| resources.get(resource))
                    .flatten()
                    .any(|grant| {
                        has(&grant.verbs, verb) && (grant.names.is_empty() || grant.names.iter().any(|n| n == name))
                    })
            })
    }

    pub(super) fn allows_path(&self, verb: &str, path: &str) -> bool {
        self.urls
            .iter()
            .any(|(verbs, patterns)| has(verbs, verb) && patterns.iter().any(|p| covers_path(p, path)))
    }
}

fn has(verbs: &[String], verb: &str) -> bool {
    verbs.iter().any(|v| v == verb || v == "*")
}

fn covers_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}
