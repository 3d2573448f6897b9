//! All roles and bindings, and the answers they give. No clock, no IO.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use model::{Labels, UserInfo};
use serde::Deserialize;

use super::role::{AggregationRule, PolicyRule, Role, RoleDocument, or_default};
use super::{Ask, What};
use crate::users;

/// What a binding points at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RoleRef {
    /// `ClusterRole` or `Role`.
    pub kind: String,
    pub name: String,
}

/// One line of a binding's `subjects`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub namespace: String,
}

/// What a RoleBinding or ClusterRoleBinding document says that matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BindingDocument {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) subjects: Vec<Subject>,
    pub(super) role_ref: RoleRef,
}

/// Facts changed one at a time, so that a cluster with ten thousand bindings does not recompile for each new one.
#[derive(Debug, Default)]
pub struct Policy {
    cluster_roles: HashMap<String, ClusterRole>,
    /// Namespace, then name.
    roles: HashMap<String, HashMap<String, Role>>,
    bindings: HashMap<(String, String), BindingDocument>,
    users: Holders,
    groups: Holders,
}

/// By subject, then by namespace; the empty namespace holds ClusterRoleBindings.
type Holders = HashMap<String, HashMap<String, Vec<Held>>>;

#[derive(Debug, Clone)]
struct Held {
    binding: Arc<str>,
    role: RoleRef,
}

#[derive(Debug, Default)]
struct ClusterRole {
    labels: Labels,
    own: Vec<PolicyRule>,
    aggregation: Option<AggregationRule>,
    compiled: Role,
}

/// One role somebody holds, while walking them.
struct Holding<'a> {
    held: &'a Held,
    /// Namespace of the binding, empty for a cluster-wide one.
    namespace: &'a str,
    subject: (&'static str, &'a str),
    role: &'a Role,
}

impl Policy {
    pub fn set_cluster_role(&mut self, name: &str, labels: Labels, document: RoleDocument) {
        let compiled = Role::compile(document.rules.clone());
        let role = ClusterRole {
            labels,
            own: document.rules,
            aggregation: document.aggregation_rule,
            compiled,
        };
        self.cluster_roles.insert(name.to_owned(), role);
        self.aggregate();
    }

    pub fn remove_cluster_role(&mut self, name: &str) {
        self.cluster_roles.remove(name);
        self.aggregate();
    }

    pub fn set_role(&mut self, namespace: &str, name: &str, document: RoleDocument) {
        let roles = self.roles.entry(namespace.to_owned()).or_default();
        roles.insert(name.to_owned(), Role::compile(document.rules));
    }

    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        if let Some(roles) = self.roles.get_mut(namespace) {
            roles.remove(name);
            if roles.is_empty() {
                self.roles.remove(namespace);
            }
        }
    }

    /// `namespace` is empty for a ClusterRoleBinding.
    pub fn set_binding(&mut self, namespace: &str, name: &str, subjects: Vec<Subject>, role: RoleRef) {
        self.remove_binding(namespace, name);
        for subject in &subjects {
            let held = Held {
                binding: name.into(),
                role: role.clone(),
            };
            let (holders, who) = self.holders(subject, namespace);
            holders
                .entry(who)
                .or_default()
                .entry(namespace.to_owned())
                .or_default()
                .push(held);
        }
        let key = (namespace.to_owned(), name.to_owned());
        self.bindings.insert(
            key,
            BindingDocument {
                subjects,
                role_ref: role,
            },
        );
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some(old) = self.bindings.remove(&(namespace.to_owned(), name.to_owned())) else {
            return;
        };
        for subject in &old.subjects {
            let (holders, who) = self.holders(subject, namespace);
            let Some(places) = holders.get_mut(&who) else {
                continue;
            };
            if let Some(held) = places.get_mut(namespace) {
                held.retain(|h| &*h.binding != name);
                if held.is_empty() {
                    places.remove(namespace);
                }
            }
            if places.is_empty() {
                holders.remove(&who);
            }
        }
    }

    fn holders(&mut self, subject: &Subject, namespace: &str) -> (&mut Holders, String) {
        match subject.kind.as_str() {
            "Group" => (&mut self.groups, subject.name.clone()),
            "ServiceAccount" => {
                let home = if subject.namespace.is_empty() {
                    namespace
                } else {
                    &subject.namespace
                };
                (&mut self.users, users::service_account(home, &subject.name))
            }
            _ => (&mut self.users, subject.name.clone()),
        }
    }

    /// Names under which roles are known, for replacing a whole kind after a new list.
    pub(super) fn cluster_role_names(&self) -> Vec<String> {
        self.cluster_roles.keys().cloned().collect()
    }

    pub(super) fn role_names(&self) -> Vec<(String, String)> {
        let names = |(ns, roles): (&String, &HashMap<String, Role>)| {
            roles.keys().map(|n| (ns.clone(), n.clone())).collect::<Vec<_>>()
        };
        self.roles.iter().flat_map(names).collect()
    }

    pub(super) fn binding_names(&self, cluster: bool) -> Vec<(String, String)> {
        self.bindings
            .keys()
            .filter(|(ns, _)| ns.is_empty() == cluster)
            .cloned()
            .collect()
    }

    /// Rules of a ClusterRole with an `aggregationRule` are the union of those it selects. Aggregates do not nest in
    /// Kubernetes' own controller beyond what repeated runs reach; one pass over names in order, until nothing changes.
    fn aggregate(&mut self) {
        let mut aggregates: Vec<String> = self
            .cluster_roles
            .iter()
            .filter(|(_, r)| r.aggregation.is_some())
            .map(|(n, _)| n.clone())
            .collect();
        aggregates.sort();
        // A chain of n aggregates settles in n passes; a ring only ever grows to a union, so it settles too.
        for _ in 0..aggregates.len() {
            let mut changed = false;
            for name in &aggregates {
                let rules = self.aggregated(name).unwrap_or_default();
                let role = self.cluster_roles.get_mut(name).expect("taken from the same map");
                if role.compiled.rules != rules {
                    role.compiled = Role::compile(rules);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
    }

    /// What an aggregated ClusterRole's `rules` ought to say; `None` if it does not aggregate.
    pub fn aggregated(&self, name: &str) -> Option<Vec<PolicyRule>> {
        let aggregation = self.cluster_roles.get(name)?.aggregation.as_ref()?;
        let mut from: Vec<&String> = self
            .cluster_roles
            .iter()
            .filter(|(other, role)| {
                *other != name
                    && aggregation
                        .cluster_role_selectors
                        .iter()
                        .any(|s| s.matches(&role.labels))
            })
            .map(|(other, _)| other)
            .collect();
        from.sort();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for rule in from
            .into_iter()
            .flat_map(|other| &self.cluster_roles[other].compiled.rules)
        {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        Some(rules)
    }

    /// Aggregated ClusterRoles whose stored rules differ from what they ought to be, with the right rules.
    pub fn stale_aggregates(&self) -> Vec<(String, Vec<PolicyRule>)> {
        let stale = |(name, role): (&String, &ClusterRole)| {
            let rules = self.aggregated(name)?;
            (rules != role.own).then(|| (name.clone(), rules))
        };
        self.cluster_roles.iter().filter_map(stale).collect()
    }

    pub fn allows(&self, ask: &Ask<'_>) -> bool {
        self.why(ask).is_some()
    }

    /// Why the answer is yes, as SubjectAccessReview prints it; `None` when it is no.
    pub fn explain(&self, ask: &Ask<'_>) -> Option<String> {
        let Reason::Held {
            binding,
            namespace,
            role,
            subject,
        } = self.why(ask)?
        else {
            return Some(String::new());
        };
        let (kind, binding) = match namespace {
            "" => ("ClusterRoleBinding", binding.to_owned()),
            namespace => ("RoleBinding", format!("{binding}/{namespace}")),
        };
        let (what, who) = subject;
        let (role_kind, role) = (&role.kind, &role.name);
        let who = match users::parse_service_account(who) {
            Some((ns, name)) if what == "User" => format!("ServiceAccount \"{name}/{ns}\""),
            _ => format!("{what} \"{who}\""),
        };
        Some(format!(
            "RBAC: allowed by {kind} \"{binding}\" of {role_kind} \"{role}\" to {who}"
        ))
    }

    fn why<'a>(&'a self, ask: &Ask<'a>) -> Option<Reason<'a>> {
        if ask.user.groups.iter().any(|g| g == users::MASTERS) {
            return Some(Reason::Master);
        }
        let joined;
        let (namespace, question) = match ask.what {
            What::Path(path) => ("", Question::Path(path)),
            What::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
            } => {
                let full = if subresource.is_empty() {
                    resource
                } else {
                    joined = format!("{resource}/{subresource}");
                    &joined
                };
                (namespace, Question::Resource { group, full, name })
            }
        };
        let found = self.each_held(ask.user, namespace, |holding| {
            let yes = match question {
                Question::Path(path) => holding.namespace.is_empty() && holding.role.allows_path(ask.verb, path),
                Question::Resource { group, full, name } => holding.role.allows_resource(ask.verb, group, full, name),
            };
            if yes {
                let Holding {
                    held,
                    namespace,
                    subject,
                    ..
                } = holding;
                return ControlFlow::Break(Reason::Held {
                    binding: &held.binding,
                    namespace,
                    role: &held.role,
                    subject,
                });
            }
            ControlFlow::Continue(())
        });
        found.break_value()
    }

    /// Every role that counts for `user` in `namespace`: cluster-wide ones first. A binding to a missing role grants nothing.
    fn each_held<'a, B>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
        mut f: impl FnMut(Holding<'a>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let subjects = std::iter::once((&self.users, "User", user.name.as_str()))
            .chain(user.groups.iter().map(|group| (&self.groups, "Group", group.as_str())));
        let places = if namespace.is_empty() {
            &[""][..]
        } else {
            &["", namespace][..]
        };
        for (holders, kind, who) in subjects {
            let Some(by_namespace) = holders.get(who) else {
                continue;
            };
            for place in places {
                let Some((place, held)) = by_namespace.get_key_value(*place) else {
                    continue;
                };
                for held in held {
                    if let Some(role) = self.role(&held.role, place) {
                        f(Holding {
                            held,
                            namespace: place,
                            subject: (kind, who),
                            role,
                        })?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn role(&self, of: &RoleRef, namespace: &str) -> Option<&Role> {
        match of.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&of.name).map(|role| &role.compiled),
            "Role" => self.roles.get(namespace)?.get(&of.name),
            _ => None,
        }
    }

    /// The rules of a role that somebody wants to bind; `None` if there is no such role.
    pub fn rules_of_role(&self, of: &RoleRef, namespace: &str) -> Option<&[PolicyRule]> {
        self.role(of, namespace).map(|role| role.rules.as_slice())
    }

    /// All rules that hold for a user in a namespace: SelfSubjectRulesReview, `kubectl auth can-i --list`.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        if user.groups.iter().any(|g| g == users::MASTERS) {
            rules.extend(PolicyRule::everything());
        }
        let _ = self.each_held(user, namespace, |holding| {
            rules.extend(holding.role.rules.iter().cloned());
            ControlFlow::<()>::Continue(())
        });
        rules
    }
}

enum Reason<'a> {
    Master,
    Held {
        binding: &'a str,
        namespace: &'a str,
        role: &'a RoleRef,
        subject: (&'static str, &'a str),
    },
}

#[derive(Clone, Copy)]
enum Question<'a> {
    Path(&'a str),
    Resource {
        group: &'a str,
        full: &'a str,
        name: &'a str,
    },
}
