//! RBAC: roles and bindings, compiled as they change, asked on every request.
//!
//! [`Policy`] is the pure part: facts in, answers out. [`Rbac`] holds one and keeps it current through `Cluster`.

mod escalation;
mod policy;
mod role;
mod watch;

pub use escalation::RoleWrite;
pub use policy::{Policy, RoleRef, Subject};
pub use role::{PolicyRule, RoleDocument};

use std::sync::RwLock;

use model::{Failure, GroupResource, UserInfo};
use tokio::sync::watch as signal;

/// One question: may this user do this?
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub what: What<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    Resource {
        group: &'a str,
        resource: &'a str,
        /// Empty for the object itself.
        subresource: &'a str,
        /// Empty for cluster-scoped kinds and for all namespaces.
        namespace: &'a str,
        /// Empty for collections.
        name: &'a str,
    },
    /// `/healthz`, `/metrics`.
    Path(&'a str),
}

impl Ask<'_> {
    /// The refusal in kube-apiserver's words, which users search for and scripts match.
    pub fn refusal(&self) -> Failure {
        let user = &self.user.name;
        match self.what {
            What::Path(path) => Failure::Forbidden {
                resource: GroupResource::new("", ""),
                name: String::new(),
                reason: format!("User \"{user}\" cannot {} path \"{path}\"", self.verb),
            },
            What::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
            } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                let place = match namespace {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace \"{namespace}\""),
                };
                Failure::Forbidden {
                    resource: GroupResource::new(group, resource),
                    name: name.to_owned(),
                    reason: format!(
                        "User \"{user}\" cannot {} resource \"{resource}{slash}{subresource}\" in API group \"{group}\" {place}",
                        self.verb
                    ),
                }
            }
        }
    }
}

/// The authorizer of the cluster.
#[derive(Debug)]
pub struct Rbac {
    policy: RwLock<Policy>,
    /// True once every role and binding that existed at the start has been read.
    synced: signal::Sender<bool>,
}

impl Default for Rbac {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Rbac {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: RwLock::new(policy),
            synced: signal::Sender::new(false),
        }
    }

    pub fn allows(&self, ask: &Ask<'_>) -> bool {
        self.read(|policy| policy.allows(ask))
    }

    /// # Errors
    /// `Forbidden`, worded as kube-apiserver does.
    pub fn check(&self, ask: &Ask<'_>) -> Result<(), Failure> {
        if self.allows(ask) { Ok(()) } else { Err(ask.refusal()) }
    }

    /// Runs `f` on the policy as it stands. Held for the time of a lookup only: never across an await.
    pub fn read<T>(&self, f: impl FnOnce(&Policy) -> T) -> T {
        f(&self.policy.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn change(&self, f: impl FnOnce(&mut Policy)) {
        f(&mut self.policy.write().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Returns when all roles and bindings have been read once.
    pub async fn wait_until_synced(&self) {
        // The sender lives in `self`, so this cannot fail while we are borrowed.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }
}

#[cfg(test)]
mod tests;
