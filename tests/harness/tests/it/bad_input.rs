//! What people get wrong: each time a sentence that says what and where, and nothing is lost.

use harness::{TestCluster, guest};
use serde_json::{Value, json};

use crate::steps::{loaded, patch, plugin_status, settled};

#[test]
fn bad_input_is_told_and_changes_nothing() {
    let cluster = TestCluster::fake(1);
    manifests_are_refused(&cluster);
    bodies_are_refused(&cluster);
    plugins_that_cannot_be_loaded_say_why(&cluster);
    a_bad_revision_leaves_the_good_one(&cluster);
}

/// kubectl takes what begins with a brace for JSON.
fn yaml(flow: &str) -> String {
    format!("---\n{flow}")
}

fn web(member: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{{member}, selector: {{matchLabels: {{app: web}}}}, \
         template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: 'web:v1'}}]}}}}}}}}"
    )
}

fn manifests_are_refused(cluster: &TestCluster) {
    for (manifest, says) in [
        ("kind: [".to_owned(), vec!["error parsing"]),
        (
            "{apiVersion: v1, kind: Nothing, metadata: {name: a}}".to_owned(),
            vec!["no matches for kind \"Nothing\""],
        ),
        (web("replica: 3"), vec!["unknown field", "spec.replica"]),
        (web("replicas: three"), vec!["replicas"]),
        (web("replicas: -1"), vec!["spec.replicas"]),
        (
            web("replicas: 1").replace("app: web}}, template", "app: other}}, template"),
            vec!["selector"],
        ),
        (
            web("replicas: 1").replace("name: web", "name: Web_1"),
            vec!["metadata.name"],
        ),
        (
            "{apiVersion: plugins.pilotis.dev/v1alpha1, kind: Plugin, metadata: {name: a}, spec: {source: {}}}"
                .to_owned(),
            vec!["spec.source", "one of embedded, file and oci"],
        ),
    ] {
        let said = cluster
            .try_apply(&yaml(&manifest))
            .expect_err(&format!("accepted: {manifest}"));
        for word in says {
            assert!(said.contains(word), "{manifest}\ngave: {said}");
        }
    }
    let left = cluster.kubectl(&["get", "deployments,replicasets,pods", "-o", "name"]);
    assert_eq!(left, "", "nothing of the refused was kept");
}

/// Past kubectl's own parser.
fn bodies_are_refused(cluster: &TestCluster) {
    let create = |text: &str| {
        let file = cluster.scratch("body.json");
        std::fs::write(&file, text).expect("a temporary file");
        let file = file.to_str().expect("UTF-8");
        cluster
            .try_kubectl(&["create", "--raw", "/api/v1/namespaces/default/configmaps", "-f", file])
            .expect_err("a bad body")
    };
    for (body, says) in [
        ("{\"kind\":", "(BadRequest)"),
        ("[1,2]", "(BadRequest)"),
        (
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"a":1}}"#,
            "(BadRequest)",
        ),
        (
            r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#,
            "(BadRequest)",
        ),
    ] {
        let said = create(body);
        assert!(said.contains(says), "{body}\ngave: {said}");
    }
    let huge = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "huge"}, "data": {"a": "x".repeat(4 << 20)}});
    let said = create(&huge.to_string());
    assert!(said.contains("too large") || said.contains("TooLarge"), "{said}");
    let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
    assert!(
        !names
            .lines()
            .any(|name| name == "configmap/a" || name == "configmap/huge"),
        "{names}"
    );
}

fn plugin(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "plugins.pilotis.dev/v1alpha1", "kind": "Plugin", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn plugins_that_cannot_be_loaded_say_why(cluster: &TestCluster) {
    let text = cluster.scratch("text.wasm");
    std::fs::write(&text, "not a component").expect("a temporary file");
    for (name, spec, reason, says) in [
        (
            "missing",
            json!({"source": {"file": "/nowhere/at-all.wasm"}}),
            "SourceNotFound",
            "/nowhere/at-all.wasm",
        ),
        (
            "unknown",
            json!({"source": {"embedded": "no-such"}}),
            "SourceNotFound",
            "scheduler-default",
        ),
        (
            "text",
            json!({"source": {"file": text}}),
            "LoadFailed",
            "not WebAssembly",
        ),
        (
            "stranger",
            json!({"source": {"file": guest("wrong_world")}}),
            "LoadFailed",
            "it must export",
        ),
        (
            "greedy",
            json!({"source": {"file": guest("well_behaved")}}),
            "LoadFailed",
            "asks for more than spec.grants allows",
        ),
    ] {
        cluster.apply(&plugin(name, &spec));
        let status = plugin_status(cluster, name);
        let (is, why, message) = loaded(&status);
        assert_eq!((is, why), ("False", reason), "{name}: {message}");
        assert!(message.contains(says), "{name}: {message}");
        assert_eq!(status["state"], "Failed", "{name}");
        cluster.kubectl(&["delete", "plugin", name]);
    }
}

/// The controller that is to be replaced by nothing goes on making pods.
fn a_bad_revision_leaves_the_good_one(cluster: &TestCluster) {
    const PLUGIN: &str = "controller-replicaset";
    let good = plugin_status(cluster, PLUGIN);
    assert_eq!((loaded(&good).0, &good["state"]), ("True", &json!("Ready")), "{good}");
    for source in [json!("/nowhere/at-all.wasm"), json!(guest("wrong_world"))] {
        patch(
            cluster,
            &format!("plugin/{PLUGIN}"),
            &json!({"spec": {"source": {"embedded": null, "file": source}}}),
        );
        let status = plugin_status(cluster, PLUGIN);
        let (is, _, message) = loaded(&status);
        assert_eq!(is, "False", "{status}");
        assert!(message.ends_with("the previous revision serves on"), "{message}");
        assert_eq!(status["state"], "Degraded");
        assert_eq!(status["digest"], good["digest"], "what serves is what served");
    }
    cluster.apply(&yaml(&web("replicas: 2")));
    settled(cluster, "app=web", 2);
    patch(
        cluster,
        &format!("plugin/{PLUGIN}"),
        &json!({"spec": {"source": {"embedded": PLUGIN, "file": null}}}),
    );
    let status = plugin_status(cluster, PLUGIN);
    assert_eq!(
        (loaded(&status).0, &status["state"]),
        ("True", &json!("Ready")),
        "{status}"
    );
    cluster.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    settled(cluster, "app=web", 4);
}
