//! The rights every cluster starts with, as one table, and the loop that puts them in place.
//!
//! An administrator may add rights to a default role, and they stay; rights that are missing are put back at each start,
//! unless the object carries `rbac.authorization.kubernetes.io/autoupdate: "false"` (Kubernetes' "auto-reconciliation").

use bytes::Bytes;
use client::{Action, Cluster, ReadVersion, Target, Write, WriteOptions};
use model::{Caller, Failure, Gvr};
use serde_json::{Value, json};

use crate::rbac::{Policy, PolicyRule, RoleRef, Subject};

const TABLE: &str = include_str!("roles.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// One default ClusterRole with what binds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefaultRole {
    pub name: String,
    pub rules: Vec<PolicyRule>,
    /// Collected by the role of this name.
    pub into: Option<String>,
    /// Collects the roles labelled for this name; then `rules` is empty.
    pub collects: Option<String>,
    pub subjects: Vec<Subject>,
}

/// All of them, in table order.
pub fn roles() -> Vec<DefaultRole> {
    parse(TABLE).expect("the table of default roles is well formed: a test reads it")
}

impl DefaultRole {
    /// The ClusterRole as it is created.
    pub fn role(&self) -> Value {
        let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        if let Some(into) = &self.into {
            labels[aggregate_label(into)] = "true".into();
        }
        let mut role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": self.name, "labels": labels, "annotations": {AUTOUPDATE: "true"}},
            "rules": self.rules,
        });
        if let Some(collects) = &self.collects {
            let selector = json!({"matchLabels": {aggregate_label(collects): "true"}});
            role["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
        }
        role
    }

    /// The ClusterRoleBinding of the same name, where the role is bound from the start.
    pub fn binding(&self) -> Option<Value> {
        let subject = |s: &Subject| match s.kind.as_str() {
            "ServiceAccount" => json!({"kind": s.kind, "name": s.name, "namespace": s.namespace}),
            kind => json!({"kind": kind, "name": s.name, "apiGroup": GROUP}),
        };
        (!self.subjects.is_empty()).then(|| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {
                    "name": self.name,
                    "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                    "annotations": {AUTOUPDATE: "true"},
                },
                "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": self.name},
                "subjects": self.subjects.iter().map(subject).collect::<Vec<_>>(),
            })
        })
    }
}

fn aggregate_label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

/// The defaults as a policy, for asking before the cluster holds them (and in tests).
pub fn policy() -> Policy {
    let mut policy = Policy::default();
    for role in roles() {
        let document = role.role();
        let labels = document["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect();
        let read = serde_json::from_value(document.clone()).expect("made by `role`");
        policy.set_cluster_role(&role.name, labels, read);
        if !role.subjects.is_empty() {
            let to = RoleRef {
                kind: "ClusterRole".into(),
                name: role.name.clone(),
            };
            policy.set_binding("", &role.name, role.subjects, to);
        }
    }
    policy
}

/// Puts missing roles, bindings, rules and subjects in place. Safe to run again and by several servers at once.
///
/// # Errors
/// The first [`Failure`] that is not somebody else having written the same object at the same time.
pub async fn ensure(cluster: &dyn Cluster, caller: &Caller) -> Result<(), Failure> {
    for role in roles() {
        ensure_one(cluster, caller, "clusterroles", &role.role()).await?;
        if let Some(binding) = role.binding() {
            ensure_one(cluster, caller, "clusterrolebindings", &binding).await?;
        }
    }
    Ok(())
}

async fn ensure_one(cluster: &dyn Cluster, caller: &Caller, resource: &str, wanted: &Value) -> Result<(), Failure> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let target = Target::new(Gvr::new(GROUP, "v1", resource), "", name);
    loop {
        let (action, body) = match cluster.get(caller, &target, ReadVersion::Latest).await {
            Ok(there) => match completed(&there.value(), wanted) {
                Some(body) => ("update", body),
                None => return Ok(()),
            },
            Err(Failure::NotFound(_)) => ("create", wanted.clone()),
            Err(failure) => return Err(failure),
        };
        let body = Bytes::from(serde_json::to_vec(&body).map_err(Failure::internal)?);
        let action = match action {
            "create" => Action::Create(body),
            _ => Action::Update {
                body,
                preconditions: client::Preconditions::default(),
            },
        };
        let write = Write {
            target: target.clone(),
            action,
            options: WriteOptions::default(),
        };
        match cluster.write(caller, write).await {
            Ok(_) => return Ok(()),
            // Another server of the cluster is starting too: look again.
            Err(Failure::AlreadyExists(_) | Failure::Conflict { .. } | Failure::NotFound(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// `there` with everything of `wanted` added that it lacks; `None` if it lacks nothing or does not want help.
fn completed(there: &Value, wanted: &Value) -> Option<Value> {
    if there["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut full = there.clone();
    // An aggregated role's rules belong to the aggregation.
    let lists = if wanted.get("aggregationRule").is_some() {
        &[][..]
    } else {
        &["rules", "subjects"][..]
    };
    for list in lists {
        let Some(items) = wanted[*list].as_array() else {
            continue;
        };
        let mut merged = there[*list].as_array().cloned().unwrap_or_default();
        merged.extend(
            items
                .iter()
                .filter(|item| !merged.contains(item))
                .cloned()
                .collect::<Vec<_>>(),
        );
        if !merged.is_empty() {
            full[*list] = merged.into();
        }
    }
    if wanted.get("aggregationRule").is_some() && there.get("aggregationRule").is_none_or(Value::is_null) {
        full["aggregationRule"] = wanted["aggregationRule"].clone();
    }
    for map in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][map].as_object().into_iter().flatten() {
            if full["metadata"][map].get(key).is_none() {
                full["metadata"][map][key] = value.clone();
            }
        }
    }
    (full != *there).then_some(full)
}

/// Reads the table. The error names the line.
fn parse(table: &str) -> Result<Vec<DefaultRole>, String> {
    let mut roles: Vec<DefaultRole> = Vec::new();
    for (number, line) in table.lines().enumerate() {
        let bad = |why: &str| format!("line {}: {why}: {line}", number + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            [comment, ..] if comment.starts_with('#') => {}
            ["role", name, ref options @ ..] => {
                let mut role = DefaultRole {
                    name: name.into(),
                    ..DefaultRole::default()
                };
                for option in options {
                    match option.split_once('=') {
                        Some(("into", label)) => role.into = Some(label.into()),
                        Some(("collects", label)) => role.collects = Some(label.into()),
                        _ => return Err(bad("unknown option")),
                    }
                }
                roles.push(role);
            }
            ["controller", name] => {
                let subject = Subject {
                    kind: "ServiceAccount".into(),
                    name: name.into(),
                    namespace: "kube-system".into(),
                };
                let name = format!("system:controller:{name}");
                roles.push(DefaultRole {
                    name,
                    subjects: vec![subject],
                    ..DefaultRole::default()
                });
            }
            ["to", ref subjects @ ..] => {
                let role = roles.last_mut().ok_or_else(|| bad("no role yet"))?;
                for text in subjects {
                    role.subjects.push(subject(text).ok_or_else(|| bad("unknown subject"))?);
                }
            }
            [verbs, groups, resources, ref more @ ..] => {
                let role = roles.last_mut().ok_or_else(|| bad("no role yet"))?;
                role.rules
                    .push(rule(verbs, groups, resources, more).ok_or_else(|| bad("unknown rule"))?);
            }
            _ => return Err(bad("neither a role nor a rule")),
        }
    }
    Ok(roles)
}

fn rule(verbs: &str, groups: &str, resources: &str, more: &[&str]) -> Option<PolicyRule> {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut rule = PolicyRule::default();
    for verb in verbs.split(',') {
        match verb {
            "read" => rule.verbs.extend(list("get,list,watch")),
            "write" => rule.verbs.extend(list("create,delete,deletecollection,patch,update")),
            verb => rule.verbs.push(verb.into()),
        }
    }
    if groups == "url" {
        rule.non_resource_urls = list(resources);
    } else {
        rule.api_groups = groups
            .split(',')
            .map(|g| if g == "core" { "" } else { g }.to_owned())
            .collect();
        rule.resources = list(resources);
    }
    match more {
        [] => {}
        [names] => rule.resource_names = list(names.strip_prefix("names=")?),
        _ => return None,
    }
    Some(rule)
}

fn subject(text: &str) -> Option<Subject> {
    let (kind, name) = text.split_once(':')?;
    let of = |kind: &str, namespace: &str, name: &str| Subject {
        kind: kind.into(),
        name: name.into(),
        namespace: namespace.into(),
    };
    match kind {
        "user" => Some(of("User", "", name)),
        "group" => Some(of("Group", "", name)),
        "sa" => name
            .split_once('/')
            .map(|(namespace, name)| of("ServiceAccount", namespace, name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_reads_and_names_each_role_once() {
        let roles = parse(TABLE).unwrap();
        let names: HashSet<&str> = roles.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names.len(), roles.len());
        for role in &roles {
            assert_eq!(
                role.rules.is_empty(),
                role.collects.is_some(),
                "{}: rules, or collected ones",
                role.name
            );
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in [
            "read core pods",
            "role a b",
            "role a\n  to pets:x",
            "role a\n  get core pods extra",
            "role a\n  get",
        ] {
            assert!(parse(bad).unwrap_err().starts_with("line "), "{bad}");
        }
    }

    #[test]
    fn what_an_administrator_added_stays_and_what_was_taken_comes_back() {
        let wanted = roles()
            .into_iter()
            .find(|r| r.name == "system:node-proxier")
            .unwrap()
            .role();
        let mut there = wanted.clone();
        there["rules"].as_array_mut().unwrap().remove(0);
        there["rules"]
            .as_array_mut()
            .unwrap()
            .push(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pets"]}));
        let full = completed(&there, &wanted).unwrap();
        let rules = full["rules"].as_array().unwrap();
        assert!(
            wanted["rules"]
                .as_array()
                .unwrap()
                .iter()
                .all(|rule| rules.contains(rule))
        );
        assert!(rules.iter().any(|rule| rule["resources"][0] == "pets"));
        assert_eq!(completed(&full, &wanted), None, "once complete it is left alone");
        there["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(completed(&there, &wanted), None);
    }
}
