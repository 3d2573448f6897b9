//! Nobody hands out rights they do not have, unless the verbs `escalate` or `bind` let them.

use model::{Failure, GroupResource, UserInfo};

use super::policy::{Policy, RoleRef};
use super::role::PolicyRule;
use super::{Ask, What};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Which role is written, as the escalation check sees it.
#[derive(Debug, Clone, Copy)]
pub struct RoleWrite<'a> {
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`.
    pub resource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Policy {
    /// May `user` leave a role with these rules?
    ///
    /// # Errors
    /// `Forbidden`, listing what the user does not hold.
    pub fn may_write_role(&self, user: &UserInfo, of: RoleWrite<'_>, rules: &[PolicyRule]) -> Result<(), Failure> {
        let escalate = Ask {
            user,
            verb: "escalate",
            what: of.what(of.resource, of.name),
        };
        if self.allows(&escalate) {
            Ok(())
        } else {
            self.holds(user, of, rules)
        }
    }

    /// May `user` bind subjects to `role`?
    ///
    /// # Errors
    /// `Forbidden`, listing what the user does not hold; `NotFound` if the role does not exist and so cannot be compared.
    pub fn may_bind(&self, user: &UserInfo, of: RoleWrite<'_>, role: &RoleRef) -> Result<(), Failure> {
        let resource = if role.kind == "ClusterRole" {
            "clusterroles"
        } else {
            "roles"
        };
        let bind = Ask {
            user,
            verb: "bind",
            what: of.what(resource, &role.name),
        };
        if self.allows(&bind) {
            return Ok(());
        }
        let place = if role.kind == "ClusterRole" { "" } else { of.namespace };
        let rules = self.rules_of_role(role, of.namespace).ok_or_else(|| {
            Failure::NotFound(model::ObjectKey::new(
                GroupResource::new(RBAC, resource),
                place,
                &role.name,
            ))
        })?;
        self.holds(user, of, rules)
    }

    fn holds(&self, user: &UserInfo, of: RoleWrite<'_>, rules: &[PolicyRule]) -> Result<(), Failure> {
        let missing: Vec<String> = rules
            .iter()
            .filter(|rule| !self.covers(user, of.namespace, rule))
            .map(ToString::to_string)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::Forbidden {
            resource: GroupResource::new(RBAC, of.resource),
            name: of.name.to_owned(),
            reason: format!(
                "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
                user.name,
                user.groups,
                missing.join("\n")
            ),
        })
    }

    /// Does the user hold every single right of the rule? Wildcards are compared as words: only `*` covers `*`.
    fn covers(&self, user: &UserInfo, namespace: &str, rule: &PolicyRule) -> bool {
        let no_name = [String::new()];
        let names = if rule.resource_names.is_empty() {
            &no_name[..]
        } else {
            &rule.resource_names[..]
        };
        rule.verbs.iter().all(|verb| {
            let resources = rule.api_groups.iter().all(|group| {
                rule.resources.iter().all(|resource| {
                    names.iter().all(|name| {
                        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                        let what = What::Resource {
                            group,
                            resource,
                            subresource,
                            namespace,
                            name,
                        };
                        self.allows(&Ask { user, verb, what })
                    })
                })
            });
            resources
                && rule.non_resource_urls.iter().all(|url| {
                    self.allows(&Ask {
                        user,
                        verb,
                        what: What::Path(url),
                    })
                })
        })
    }
}

impl<'a> RoleWrite<'a> {
    fn what(&self, resource: &'a str, name: &'a str) -> What<'a> {
        What::Resource {
            group: RBAC,
            resource,
            subresource: "",
            namespace: self.namespace,
            name,
        }
    }
}
