//! Keeps a [`super::Rbac`] current: one list and one watch for each of the four kinds.

use std::sync::Arc;
use std::time::Duration;

use client::{
    Action, Cluster, Collection, ListOptions, PatchKind, Preconditions, Target, WatchEvent, WatchOptions, Write,
    WriteOptions,
};
use futures::StreamExt;
use model::{Caller, Failure, Gvr, Object};
use tokio::sync::Barrier;

use super::Rbac;
use super::policy::{BindingDocument, Policy};
use super::role::RoleDocument;
use crate::users;

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
    /// Follows roles and bindings until dropped or aborted. Lists again whenever a watch ends, so no change is missed for
    /// longer than an outage of the cluster itself lasts; meanwhile the last known policy holds.
    pub async fn keep_current(self: Arc<Self>, cluster: Arc<dyn Cluster>) {
        let all_read = Arc::new(Barrier::new(KINDS.len()));
        let followers = KINDS.map(|kind| {
            let (rbac, cluster, all_read) = (self.clone(), cluster.clone(), all_read.clone());
            async move { rbac.follow(kind, &*cluster, &all_read).await }
        });
        futures::future::join_all(followers).await;
    }

    async fn follow(&self, kind: Kind, cluster: &dyn Cluster, all_read: &Barrier) {
        let caller = users::api_server();
        let mut wait = Duration::ZERO;
        let mut first = true;
        loop {
            tokio::time::sleep(wait).await;
            match self.follow_once(kind, cluster, &caller, all_read, &mut first).await {
                Ok(()) => wait = Duration::ZERO,
                Err(failure) => {
                    tracing::warn!(?kind, %failure, "roles cannot be followed; trying again");
                    wait = (wait * 2).clamp(Duration::from_millis(50), Duration::from_secs(5));
                }
            }
        }
    }

    /// One list and the watch after it. `Ok` when the watch ended by itself or must be started anew.
    async fn follow_once(
        &self,
        kind: Kind,
        cluster: &dyn Cluster,
        caller: &Caller,
        all_read: &Barrier,
        first: &mut bool,
    ) -> Result<(), Failure> {
        let all = Collection::all(kind.gvr());
        let list = cluster.list(caller, &all, &ListOptions::default()).await?;
        self.change(|policy| kind.replace(policy, &list.items));
        if std::mem::take(first) {
            // Nobody may believe the policy before all four kinds are in: a binding alone grants nothing, but a
            // deny-by-absence would be wrong too.
            all_read.wait().await;
            self.synced.send_replace(true);
        }
        let options = WatchOptions {
            from: Some(list.version),
            bookmarks: true,
            ..WatchOptions::default()
        };
        self.settle(kind, cluster, caller).await?;
        let mut events = cluster.watch(caller, &all, &options).await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    self.change(|policy| kind.set(policy, &object))
                }
                Ok(WatchEvent::Deleted(object)) => {
                    self.change(|policy| kind.remove(policy, &object.key.namespace, &object.key.name));
                }
                Ok(WatchEvent::Bookmark { .. }) => {}
                Err(Failure::Expired(_)) => return Ok(()),
                Err(failure) => return Err(failure),
            }
            self.settle(kind, cluster, caller).await?;
        }
        Ok(())
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
