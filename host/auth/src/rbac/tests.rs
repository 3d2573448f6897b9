//! Questions and answers over the default roles and a few of our own.

use std::sync::Arc;

use model::{Labels, UserInfo};
use serde_json::{Value, json};

use super::*;
use crate::{defaults, users};

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.into(),
        groups: groups.iter().map(|g| (*g).into()).collect(),
        ..UserInfo::default()
    }
}

/// `get pods/log web -n default`, `list deployments.apps`, `get /healthz`.
fn ask<'a>(user: &'a UserInfo, text: &'a str) -> Ask<'a> {
    let mut words = text.split(' ');
    let verb = words.next().unwrap();
    let object = words.next().unwrap();
    let mut rest: Vec<&str> = words.collect();
    let namespace = match rest.iter().position(|w| *w == "-n") {
        Some(at) => rest.drain(at..).nth(1).unwrap(),
        None => "",
    };
    if object.starts_with('/') {
        return Ask {
            user,
            verb,
            what: What::Path(object),
        };
    }
    let (resource, subresource) = object.split_once('/').unwrap_or((object, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let name = rest.first().copied().unwrap_or_default();
    Ask {
        user,
        verb,
        what: What::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        },
    }
}

fn role(rules: Value) -> RoleDocument {
    serde_json::from_value(json!({"rules": rules})).unwrap()
}

fn bind(policy: &mut Policy, namespace: &str, name: &str, role: (&str, &str), subjects: Value) {
    let role = RoleRef {
        kind: role.0.into(),
        name: role.1.into(),
    };
    policy.set_binding(namespace, name, serde_json::from_value(subjects).unwrap(), role);
}

fn to(user: &str) -> Value {
    json!([{"kind": "User", "name": user}])
}

#[test]
fn the_default_roles_give_what_kubernetes_gives() {
    let mut policy = defaults::policy();
    bind(&mut policy, "shop", "viewers", ("ClusterRole", "view"), to("vera"));
    bind(&mut policy, "shop", "editors", ("ClusterRole", "edit"), to("eddy"));
    bind(&mut policy, "shop", "admins", ("ClusterRole", "admin"), to("ada"));
    bind(&mut policy, "", "root", ("ClusterRole", "cluster-admin"), to("rita"));
    let who = |name: &str| match name {
        "anonymous" => users::anonymous(),
        "master" => user("m", &[users::MASTERS]),
        "kubelet" => user("system:node:n1", &[users::NODES, users::AUTHENTICATED]),
        "rs-controller" => user(
            "system:serviceaccount:kube-system:replicaset-controller",
            &[users::AUTHENTICATED],
        ),
        name => user(name, &[users::AUTHENTICATED]),
    };
    let cases = [
        ("vera", "get pods -n shop", true),
        ("vera", "get pods/log web -n shop", true),
        ("vera", "get secrets -n shop", false),
        ("vera", "list pods -n other", false),
        ("vera", "list pods", false),
        ("vera", "create pods -n shop", false),
        ("eddy", "create pods/exec web -n shop", true),
        ("eddy", "get secrets -n shop", true),
        ("eddy", "get pods -n shop", true),
        ("eddy", "update deployments.apps/scale web -n shop", true),
        ("eddy", "update pods/status web -n shop", false),
        ("eddy", "create roles.rbac.authorization.k8s.io -n shop", false),
        ("ada", "create roles.rbac.authorization.k8s.io -n shop", true),
        ("ada", "get pods -n shop", true),
        ("ada", "create namespaces", false),
        ("rita", "create namespaces", true),
        ("rita", "get /metrics", true),
        ("rita", "deletecollection anything.example.com/odd x -n y", true),
        ("vera", "get /api", true),
        ("vera", "get /metrics", false),
        ("vera", "create selfsubjectaccessreviews.authorization.k8s.io", true),
        ("anonymous", "get /healthz", true),
        ("anonymous", "get /version", true),
        ("anonymous", "get /api", false),
        ("anonymous", "list pods -n shop", false),
        ("master", "destroy worlds.example.com", true),
        ("kubelet", "patch nodes/status n1", true),
        ("kubelet", "create leases.coordination.k8s.io -n kube-node-lease", true),
        ("kubelet", "delete namespaces shop", false),
        ("rs-controller", "create pods -n shop", true),
        ("rs-controller", "create pods/exec web -n shop", false),
        ("system:kube-scheduler", "create pods/binding web -n shop", true),
        (
            "system:kube-scheduler",
            "update leases.coordination.k8s.io kube-scheduler -n kube-system",
            true,
        ),
        (
            "system:kube-scheduler",
            "update leases.coordination.k8s.io other -n kube-system",
            false,
        ),
    ];
    for (name, question, expected) in cases {
        let user = who(name);
        assert_eq!(policy.allows(&ask(&user, question)), expected, "{name}: {question}");
    }
}

#[test]
fn wildcards_names_and_subresources() {
    let mut policy = Policy::default();
    policy.set_role(
        "a",
        "r",
        role(json!([
            {"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]},
            {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"]},
            {"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": null},
        ])),
    );
    bind(&mut policy, "a", "b", ("Role", "r"), to("jo"));
    let jo = user("jo", &[]);
    for (question, expected) in [
        ("get widgets.example.com/scale w -n a", true),
        ("get widgets.example.com w -n a", false),
        ("get deployments.apps/status w -n a", false),
        ("patch configmaps one -n a", true),
        ("patch configmaps two -n a", false),
        ("create configmaps -n a", false),
        ("list secrets -n a", true),
        ("list secrets -n b", false),
    ] {
        assert_eq!(policy.allows(&ask(&jo, question)), expected, "{question}");
    }
}

#[test]
fn changes_take_hold_and_leave_nothing() {
    let mut policy = Policy::default();
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let jo = user("jo", &["team"]);
    let question = ask(&jo, "get pods -n a");
    bind(
        &mut policy,
        "a",
        "b",
        ("Role", "r"),
        json!([{"kind": "Group", "name": "team"}]),
    );
    assert!(
        !policy.allows(&question),
        "a binding to a role that is not there grants nothing"
    );
    policy.set_role("a", "r", role(pods.clone()));
    assert!(policy.allows(&question));
    bind(&mut policy, "a", "b", ("Role", "r"), to("somebody else"));
    assert!(!policy.allows(&question), "the new subjects replace the old");
    bind(&mut policy, "a", "b", ("Role", "r"), to("jo"));
    policy.remove_role("a", "r");
    assert!(!policy.allows(&question));
    policy.set_role("a", "r", role(pods));
    assert!(policy.allows(&question), "and back with the role of the same name");
    policy.remove_binding("a", "b");
    assert!(!policy.allows(&question));
    assert_eq!(
        format!("{policy:?}").matches("jo").count(),
        0,
        "no trace of the subject is kept"
    );
}

#[test]
fn aggregation_follows_labels() {
    let mut policy = defaults::policy();
    bind(&mut policy, "shop", "viewers", ("ClusterRole", "admin"), to("ada"));
    let ada = user("ada", &[]);
    let question = ask(&ada, "list crontabs.stable.example.com -n shop");
    assert!(!policy.allows(&question));
    let labels: Labels = [("rbac.authorization.k8s.io/aggregate-to-view", "true")]
        .into_iter()
        .collect();
    let rules = json!([{"verbs": ["list"], "apiGroups": ["stable.example.com"], "resources": ["crontabs"]}]);
    policy.set_cluster_role("crontab-viewer", labels, role(rules));
    assert!(
        policy.allows(&question),
        "view collects it, edit collects view, admin collects edit"
    );
    assert!(policy.stale_aggregates().iter().any(|(name, _)| name == "admin"));
    policy.remove_cluster_role("crontab-viewer");
    assert!(!policy.allows(&question));
}

#[test]
fn refusals_and_reasons_are_worded_as_kubernetes_words_them() {
    let jane = user("jane", &[users::AUTHENTICATED]);
    for (question, text) in [
        (
            "list pods -n default",
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#,
        ),
        (
            "get deployments.apps web -n shop",
            r#"deployments.apps "web" is forbidden: User "jane" cannot get resource "deployments" in API group "apps" in the namespace "shop""#,
        ),
        (
            "create pods/exec web -n shop",
            r#"pods "web" is forbidden: User "jane" cannot create resource "pods/exec" in API group "" in the namespace "shop""#,
        ),
        (
            "list nodes",
            r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#,
        ),
    ] {
        assert_eq!(ask(&jane, question).refusal().to_string(), text);
    }
    let policy = defaults::policy();
    assert_eq!(
        policy
            .explain(&ask(&jane, "create selfsubjectaccessreviews.authorization.k8s.io"))
            .unwrap(),
        r#"RBAC: allowed by ClusterRoleBinding "system:basic-user" of ClusterRole "system:basic-user" to Group "system:authenticated""#
    );
}

#[test]
fn nobody_grants_what_he_does_not_hold() {
    let mut policy = defaults::policy();
    bind(&mut policy, "shop", "admins", ("ClusterRole", "admin"), to("ada"));
    let ada = user("ada", &[users::AUTHENTICATED]);
    let of = RoleWrite {
        resource: "roles",
        namespace: "shop",
        name: "new",
    };
    let rules = |value: Value| serde_json::from_value::<Vec<PolicyRule>>(value).unwrap();
    let mine = rules(json!([{"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods", "pods/exec"]}]));
    policy.may_write_role(&ada, of, &mine).unwrap();
    let named =
        rules(json!([{"verbs": ["delete"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["x"]}]));
    policy.may_write_role(&ada, of, &named).unwrap();
    for not_mine in [
        json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}]),
        json!([{"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]}]),
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}]),
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]),
    ] {
        let refusal = policy
            .may_write_role(&ada, of, &rules(not_mine.clone()))
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("attempting to grant RBAC permissions not currently held"),
            "{not_mine}: {refusal}"
        );
    }
    let binding = RoleWrite {
        resource: "rolebindings",
        namespace: "shop",
        name: "new",
    };
    let cluster_role = |name: &str| RoleRef {
        kind: "ClusterRole".into(),
        name: name.into(),
    };
    policy.may_bind(&ada, binding, &cluster_role("edit")).unwrap();
    assert!(policy.may_bind(&ada, binding, &cluster_role("cluster-admin")).is_err());
    assert!(matches!(
        policy.may_bind(&ada, binding, &cluster_role("no such")),
        Err(Failure::NotFound(_))
    ));
    let root = user("root", &[users::MASTERS]);
    policy.may_bind(&root, binding, &cluster_role("cluster-admin")).unwrap();
}

#[tokio::test]
async fn the_policy_follows_the_cluster() {
    let fake = client::fake::Fake::new();
    for (kind, plural, scope) in [
        ("ClusterRole", "clusterroles", model::Scope::Cluster),
        ("ClusterRoleBinding", "clusterrolebindings", model::Scope::Cluster),
        ("Role", "roles", model::Scope::Namespaced),
        ("RoleBinding", "rolebindings", model::Scope::Namespaced),
    ] {
        fake.add_kind(model::Kind {
            gvk: model::Gvk::new("rbac.authorization.k8s.io", "v1", kind),
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            scope,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: model::Verb::ALL.to_vec(),
            subresources: Vec::new(),
            stored: None,
        });
    }
    let cluster = fake.cluster();
    defaults::ensure(&*cluster, &users::api_server()).await.unwrap();
    let rbac = Arc::new(Rbac::default());
    let following = tokio::spawn(rbac.clone().keep_current(cluster.clone()));
    rbac.wait_until_synced().await;
    let admin = model::ObjectKey::new(
        model::GroupResource::new("rbac.authorization.k8s.io", "clusterroles"),
        "",
        "admin",
    );
    let rules = || {
        fake.object(&admin).unwrap().value()["rules"]
            .as_array()
            .map_or(0, Vec::len)
    };
    eventually(|| rules() > 10).await;
    let jane = user("jane", &[users::AUTHENTICATED]);
    let question = ask(&jane, "list pods -n default");
    assert!(!rbac.allows(&question));
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "jane"}]});
    fake.put(binding);
    eventually(|| rbac.allows(&question)).await;
    fake.break_watches();
    let target = client::Target::new(
        model::Gvr::new("rbac.authorization.k8s.io", "v1", "rolebindings"),
        "default",
        "b",
    );
    let action = client::Action::Delete(client::DeleteOptions::default());
    let write = client::Write {
        target,
        action,
        options: Default::default(),
    };
    cluster.write(&users::api_server(), write).await.unwrap();
    eventually(|| !rbac.allows(&question)).await;
    following.abort();
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait)
        .await
        .expect("it never came true");
}
