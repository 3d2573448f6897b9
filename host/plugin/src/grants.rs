//! What a plugin may ask, compared with what its `Plugin` object grants.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bindings::pilotis::core::types;

/// One rule, as RBAC writes it: any of the verbs on any of the resources of any of the groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    #[serde(default)]
    pub api_groups: Vec<String>,
    /// `pods`, `pods/status`, `*`.
    #[serde(default)]
    pub resources: Vec<String>,
    #[serde(default)]
    pub verbs: Vec<String>,
}

/// `spec.grants` of a Plugin object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Grants {
    /// Whatever it asks: for plugins that are part of this very build.
    All,
    /// These and no others; none by default.
    Rules(Vec<Rule>),
    #[default]
    None,
}

impl Grants {
    /// What of `asks` is not covered, cut down to the single verbs and resources that are missing.
    pub fn beyond(&self, asks: &[Rule]) -> Vec<Rule> {
        let rules: &[Rule] = match self {
            Grants::All => return Vec::new(),
            Grants::Rules(rules) => rules,
            Grants::None => &[],
        };
        asks.iter().flat_map(|ask| missing(ask, rules)).collect()
    }
}

fn missing(ask: &Rule, rules: &[Rule]) -> Vec<Rule> {
    let mut found: Vec<Rule> = Vec::new();
    for group in &ask.api_groups {
        for resource in &ask.resources {
            let verbs: Vec<String> = ask
                .verbs
                .iter()
                .filter(|verb| !rules.iter().any(|r| r.covers(group, resource, verb)))
                .cloned()
                .collect();
            if !verbs.is_empty() {
                found.push(Rule {
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    verbs,
                });
            }
        }
    }
    found
}

impl Rule {
    /// RBAC's own meaning of `*`; `*/status` covers the status of every resource.
    pub fn covers(&self, group: &str, resource: &str, verb: &str) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|has| has == "*" || has == wanted);
        let subresource = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        any(&self.api_groups, group)
            && any(&self.verbs, verb)
            && (any(&self.resources, resource) || subresource.is_some_and(|sub| self.resources.contains(&sub)))
    }
}

impl fmt::Display for Rule {
    /// `get,list pods/status.apps`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs.join(","), self.resources.join(","))?;
        let groups: Vec<&str> = self
            .api_groups
            .iter()
            .map(String::as_str)
            .filter(|g| !g.is_empty())
            .collect();
        if groups.is_empty() {
            Ok(())
        } else {
            write!(f, " in {}", groups.join(","))
        }
    }
}

impl From<types::Rule> for Rule {
    fn from(rule: types::Rule) -> Self {
        Self {
            api_groups: rule.groups,
            resources: rule.resources,
            verbs: rule.verbs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Rule {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Rule {
            api_groups: own(groups),
            resources: own(resources),
            verbs: own(verbs),
        }
    }

    #[test]
    fn names_exactly_what_is_missing() {
        let asks = [rule(&[""], &["pods", "pods/status"], &["get", "delete"])];
        let grants = |rules: &[Rule]| Grants::Rules(rules.to_vec());
        let beyond = |grants: Grants| grants.beyond(&asks).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(beyond(Grants::None), ["get,delete pods", "get,delete pods/status"]);
        assert_eq!(
            beyond(grants(&[rule(&[""], &["pods"], &["*"])])),
            ["get,delete pods/status"]
        );
        assert_eq!(
            beyond(grants(&[rule(&["apps"], &["*"], &["*"])])).len(),
            2,
            "another group grants nothing"
        );
        assert_eq!(
            beyond(grants(&[
                rule(&["*"], &["*/status"], &["get"]),
                rule(&[""], &["pods"], &["get", "delete"])
            ])),
            ["delete pods/status"]
        );
        assert!(beyond(Grants::All).is_empty());
        assert!(beyond(grants(&[rule(&["*"], &["*"], &["*"])])).is_empty());
    }
}
