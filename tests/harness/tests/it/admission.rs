//! A rule of the user's own: the README's `admission-imagetag`, from `kubectl apply` of its Plugin to its end.

use harness::{TestCluster, eventually, guest};
use serde_json::json;

use crate::steps::{LIMIT, loaded, plugin_status, settled};

const POLICY: &str = "image \"web\" has no tag: write web:VERSION";

#[test]
fn a_users_rule_keeps_out_what_it_denies_until_it_is_deleted() {
    let cluster = TestCluster::fake(1);
    let plugin = json!({
        "apiVersion": "plugins.pilotis.dev/v1alpha1", "kind": "Plugin", "metadata": {"name": "imagetag"},
        "spec": {"source": {"file": guest("admission-imagetag")}, "failurePolicy": "Fail"},
    });
    cluster.apply(&plugin.to_string());
    let status = plugin_status(&cluster, "imagetag");
    assert_eq!(loaded(&status).0, "True", "{status}");
    assert_eq!(status["worlds"], json!(["admission"]), "{status}");
    // Loaded a moment ago; its place in the chain is taken right after.
    let denied = eventually("the rule is asked", LIMIT, || {
        let said = cluster.try_kubectl(&["run", "web", "--image=web", "--dry-run=server"]);
        said.err().ok_or_else(|| "admitted".to_owned())
    });
    assert!(denied.contains(POLICY), "{denied}");

    let denied = cluster.try_kubectl(&["run", "web", "--image=web"]).expect_err("no tag");
    assert!(denied.contains(POLICY), "{denied}");
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "a", "image": "web:v1"}, {"name": "b", "image": "web"}]},
    });
    let denied = cluster.try_apply(&manifest.to_string()).expect_err("one has no tag");
    assert!(denied.contains(POLICY), "{denied}");
    assert_eq!(
        cluster.kubectl(&["get", "pods", "-o", "name"]),
        "",
        "nothing of the denied was kept"
    );

    cluster.kubectl(&["run", "tagged", "--image=localhost:5000/web:v1", "--labels=app=tagged"]);
    settled(&cluster, "app=tagged", 1);
    a_controller_hears_it_too(&cluster);

    cluster.kubectl(&["delete", "plugin", "imagetag"]);
    eventually("nobody asks the rule any more", LIMIT, || {
        cluster.try_kubectl(&["run", "web", "--image=web", "--labels=app=web"])
    });
    settled(&cluster, "app=web", 1);
}

#[test]
fn rules_are_asked_when_there_is_an_occasion_for_them() {
    let cluster = TestCluster::fake(1);
    let calls = |name: &str| {
        cluster.json(&["get", "plugin", name])["status"]["calls"]
            .as_u64()
            .unwrap_or(0)
    };
    // The first request of all has the kinds read that the rules' occasions are of.
    cluster.kubectl(&["run", "first", "--image=web:v1"]);
    let rules = [
        "admission-limitranger",
        "admission-runtimeclass",
        "admission-namespacelifecycle",
    ];
    let before = rules.map(calls);
    for name in ["second", "third"] {
        cluster.kubectl(&["run", name, "--image=web:v1"]);
    }
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "classed"},
        "spec": {"runtimeClassName": "none", "containers": [{"name": "a", "image": "web:v1"}]},
    });
    let denied = cluster
        .try_apply(&manifest.to_string())
        .expect_err("there is no such class");
    assert!(denied.contains("RuntimeClass \"none\" not found"), "{denied}");
    let denied = cluster
        .try_kubectl(&["run", "nowhere", "--image=web:v1", "--namespace=nowhere"])
        .expect_err("there is no such namespace");
    assert!(denied.contains("namespaces \"nowhere\" not found"), "{denied}");
    let more = [0, 1, 1];
    for (i, rule) in rules.into_iter().enumerate() {
        assert_eq!(calls(rule) - before[i], more[i], "calls of {rule}");
    }

    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "7m"}}]},
    });
    cluster.apply(&range.to_string());
    eventually("a pod has the range's default", LIMIT, || {
        cluster.kubectl(&["delete", "pod", "ranged", "--ignore-not-found", "--now"]);
        cluster.kubectl(&["run", "ranged", "--image=web:v1"]);
        let pod = cluster.json(&["get", "pod", "ranged"]);
        let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
        if requests["cpu"] == "7m" {
            Ok(())
        } else {
            Err(requests.to_string())
        }
    });
}

#[test]
fn classes_are_given_where_none_is_named() {
    let cluster = TestCluster::fake(1);
    let spec = |of: &str, name: &str| cluster.json(&["get", of, name])["spec"].clone();
    cluster.kubectl(&["run", "plain", "--image=web:v1"]);
    let plain = spec("pod", "plain");
    assert_eq!(
        (
            &plain["priority"],
            &plain["preemptionPolicy"],
            &plain["priorityClassName"]
        ),
        (&json!(0), &json!("PreemptLowerPriority"), &json!(null))
    );
    let with = |class: &str| format!(r#"--overrides={{"spec": {{"priorityClassName": "{class}"}}}}"#);
    cluster.kubectl(&["run", "critical", "--image=web:v1", &with("system-node-critical")]);
    assert_eq!(spec("pod", "critical")["priority"], 2_000_001_000);
    let denied = cluster
        .try_kubectl(&["run", "odd", "--image=web:v1", &with("odd")])
        .expect_err("there is no such class");
    assert!(denied.contains("no PriorityClass with name odd was found"), "{denied}");
    let itself = r#"--overrides={"spec": {"priority": 7}}"#;
    let denied = cluster
        .try_kubectl(&["run", "itself", "--image=web:v1", itself])
        .expect_err("a priority of its own");
    assert!(denied.contains("(7) must not be provided in pod spec"), "{denied}");

    let usual = [
        "create",
        "priorityclass",
        "usual",
        "--value=10",
        "--global-default",
        "--preemption-policy=Never",
    ];
    cluster.kubectl(&usual);
    eventually("the default class is given", LIMIT, || {
        cluster.kubectl(&["delete", "pod", "usual", "--ignore-not-found", "--now"]);
        cluster.kubectl(&["run", "usual", "--image=web:v1"]);
        let pod = spec("pod", "usual");
        let given = (&pod["priority"], &pod["preemptionPolicy"], &pod["priorityClassName"]);
        if given == (&json!(10), &json!("Never"), &json!("usual")) {
            Ok(())
        } else {
            Err(format!("{given:?}"))
        }
    });
    let second = ["create", "priorityclass", "second", "--value=11", "--global-default"];
    let denied = cluster.try_kubectl(&second).expect_err("a second default");
    let refusal = "PriorityClass usual is already marked as default. Only one default can exist";
    assert!(denied.contains(refusal), "{denied}");
    // The document a pod was made of says nothing of what it was given.
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "again"},
        "spec": {"containers": [{"name": "web", "image": "web:v1"}]},
    });
    cluster.apply(&manifest.to_string());
    let mut changed = spec("pod", "again");
    changed["priority"].take();
    changed["preemptionPolicy"].take();
    let replaced = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "again", "labels": {"a": "b"}}, "spec": changed});
    let file = cluster.scratch("again.json");
    std::fs::write(&file, replaced.to_string()).expect("it can be written");
    cluster.kubectl(&["replace", "-f", file.to_str().expect("UTF-8")]);
    assert_eq!(spec("pod", "again")["priority"], 10);

    let classes = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "disk",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "example.com/disk"},
        {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "door",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": "example.com/door"}},
    ]});
    cluster.apply(&classes.to_string());
    let claim = |class: serde_json::Value| {
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        if !class.is_null() {
            claim["spec"]["storageClassName"] = class;
        }
        cluster.kubectl(&["delete", "persistentvolumeclaim", "data", "--ignore-not-found"]);
        cluster.apply(&claim.to_string());
        spec("persistentvolumeclaim", "data")["storageClassName"].clone()
    };
    eventually("a claim has the default class", LIMIT, || {
        let class = claim(json!(null));
        if class == "disk" {
            Ok(())
        } else {
            Err(class.to_string())
        }
    });
    assert_eq!(claim(json!("")), "", "none is a choice");
    assert_eq!(claim(json!("tape")), "tape");
    cluster.kubectl(&["create", "ingress", "web", "--rule=example.com/*=web:80"]);
    assert_eq!(spec("ingress", "web")["ingressClassName"], "door");
}

/// The pod is made by a controller, the rule applies, and the people who look at the Deployment learn why there is none.
fn a_controller_hears_it_too(cluster: &TestCluster) {
    cluster.kubectl(&["create", "deployment", "web", "--image=web"]);
    eventually("the ReplicaSet says why it has no pod", LIMIT, || {
        let sets = cluster.items(&["get", "replicasets", "-l", "app=web"]);
        let conditions = sets
            .first()
            .map(|set| set["status"]["conditions"].to_string())
            .unwrap_or_default();
        if conditions.contains("ReplicaFailure") && conditions.contains("has no tag") {
            Ok(())
        } else {
            Err(conditions)
        }
    });
    cluster.kubectl(&["delete", "deployment", "web"]);
}
