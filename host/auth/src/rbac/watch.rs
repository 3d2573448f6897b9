//! Keeps a [`super::Rbac`] current: one list and one watch for each of the four kinds.

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Cluster, Collection, News, PatchKind, Preconditions, Target, Write, WriteOptions};
use futures::StreamExt;
use model::{Caller, Failure, Gvr, Object};
use tokio::sync::Barrier;

use super::Rbac;
use super::policy::{BindingDocument, Policy};
use super::role::RoleDocument;
use crate::users;

/// After a write of ours that failed.
const SETTLE_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ClusterRoles,
    Roles,
    ClusterRoleBindings,
    RoleBindings,
}

const KINDS: [Kind; 4] = [
    Kind::ClusterRoles,
    Kind::Roles,
    Kind::ClusterRoleBindings,
    Kind::RoleBindings,
];

impl Rbac {
    /// Follows roles and bindings until dropped or aborted. While the cluster cannot be read the last known policy holds.
    pub async fn keep_current(self: Arc<Self>, cluster: Arc<dyn Cluster>) {
        let all_read = Arc::new(Barrier::new(KINDS.len()));
        let followers = KINDS.map(|kind| {
            let (rbac, cluster, all_read) = (self.clone(), cluster.clone(), all_read.clone());
            async move { rbac.follow(kind, cluster, &all_read).await }
        });
        futures::future::join_all(followers).await;
    }

    async fn follow(&self, kind: Kind, cluster: Arc<dyn Cluster>, all_read: &Barrier) {
        let caller = users::api_server();
        let mut news = client::follow(cluster.clone(), caller.clone(), Collection::all(kind.gvr()), "");
        let mut settled = true;
        loop {
            let wait = if settled { Duration::MAX } else { SETTLE_AGAIN };
            match tokio::time::timeout(wait, news.next()).await {
                Ok(Some(News::Restarted { objects, .. })) => {
                    self.change(|policy| kind.replace(policy, &objects));
                    if !*self.synced.borrow() {
                        // Nobody may believe the policy before all four kinds are in: a binding alone grants nothing, but a
                        // deny-by-absence would be wrong too.
                        all_read.wait().await;
                        self.synced.send_replace(true);
                    }
                }
                Ok(Some(News::Changed(object))) => self.change(|policy| kind.set(policy, &object)),
                Ok(Some(News::Removed(object))) => {
                    self.change(|policy| kind.remove(policy, &object.key.namespace, &object.key.name));
                }
                Ok(Some(News::UpTo(_) | News::Failed(_))) if settled => continue,
                Ok(Some(News::UpTo(_) | News::Failed(_))) | Err(_) => {}
                Ok(None) => return,
            }
            let result = self.settle(kind, &*cluster, &caller).await;
            if let (Err(failure), true) = (&result, settled) {
                tracing::warn!(%failure, "the rules of aggregated roles cannot be written; trying again");
            }
            settled = result.is_ok();
        }
    }

    /// Writes into each aggregated ClusterRole the rules it has come to hold, so that people read what the authorizer
    /// answers (Kubernetes' clusterrole-aggregation controller). What is written comes back as an event and settles.
    async fn settle(&self, kind: Kind, cluster: &dyn Cluster, caller: &Caller) -> Result<(), Failure> {
        if kind != Kind::ClusterRoles {
            return Ok(());
        }
        for (name, rules) in self.read(super::Policy::stale_aggregates) {
            let patch = serde_json::to_vec(&serde_json::json!({ "rules": rules })).map_err(Failure::internal)?;
            let action = Action::Patch {
                kind: PatchKind::Merge,
                body: patch.into(),
                preconditions: Preconditions::default(),
            };
            let target = Target::new(kind.gvr(), "", &name);
            let write = Write {
                target,
                action,
                options: WriteOptions::default(),
            };
            match cluster.write(caller, write).await {
                // Gone meanwhile, or another server of the cluster was first.
                Ok(_) | Err(Failure::NotFound(_) | Failure::Conflict { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }
}

impl Kind {
    fn gvr(self) -> Gvr {
        let resource = match self {
            Kind::ClusterRoles => "clusterroles",
            Kind::Roles => "roles",
            Kind::ClusterRoleBindings => "clusterrolebindings",
            Kind::RoleBindings => "rolebindings",
        };
        Gvr::new("rbac.authorization.k8s.io", "v1", resource)
    }

    fn replace(self, policy: &mut Policy, objects: &[Arc<Object>]) {
        let gone: Vec<(String, String)> = match self {
            Kind::ClusterRoles => policy
                .cluster_role_names()
                .into_iter()
                .map(|name| (String::new(), name))
                .collect(),
            Kind::Roles => policy.role_names(),
            Kind::ClusterRoleBindings => policy.binding_names(true),
            Kind::RoleBindings => policy.binding_names(false),
        };
        let here: std::collections::HashSet<(&str, &str)> = objects
            .iter()
            .map(|o| (o.key.namespace.as_str(), o.key.name.as_str()))
            .collect();
        for (namespace, name) in gone
            .iter()
            .filter(|(ns, name)| !here.contains(&(ns.as_str(), name.as_str())))
        {
            self.remove(policy, namespace, name);
        }
        for object in objects {
            self.set(policy, object);
        }
    }

    fn set(self, policy: &mut Policy, object: &Object) {
        let (namespace, name) = (object.key.namespace.as_str(), object.key.name.as_str());
        let read = match self {
            Kind::ClusterRoles => object
                .parse()
                .map(|document| policy.set_cluster_role(name, object.labels.clone(), document)),
            Kind::Roles => object
                .parse::<RoleDocument>()
                .map(|document| policy.set_role(namespace, name, document)),
            Kind::ClusterRoleBindings | Kind::RoleBindings => object
                .parse::<BindingDocument>()
                .map(|document| policy.set_binding(namespace, name, document.subjects, document.role_ref)),
        };
        if let Err(failure) = read {
            // Whatever it said before must not go on granting rights.
            tracing::error!(key = %object.key, %failure, "unreadable role or binding grants nothing");
            self.remove(policy, namespace, name);
        }
    }

    fn remove(self, policy: &mut Policy, namespace: &str, name: &str) {
        match self {
            Kind::ClusterRoles => policy.remove_cluster_role(name),
            Kind::Roles => policy.remove_role(namespace, name),
            Kind::ClusterRoleBindings | Kind::RoleBindings => policy.remove_binding(namespace, name),
        }
    }
}
