//! `Plugin` objects, from apply to delete, in a cluster in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::fake::Fake;
use model::{Caller, GroupResource, Kind, ObjectKey};
use plugin::objects::{LoadedPlugins, Objects};
use plugin::{Controller, PluginName};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Echo, guest, host, request, scratch};

struct House {
    cluster: Fake,
    objects: Arc<Objects>,
    stop: CancellationToken,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{name}.wasm"))
}

fn file(name: &str) -> Value {
    json!({"source": {"file": path(name)}, "grants": {"rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "delete"]},
    ]}})
}

impl House {
    async fn new() -> Self {
        let cluster = Fake::new();
        for (kind, plural) in [
            ("ClusterRole", "clusterroles"),
            ("ClusterRoleBinding", "clusterrolebindings"),
        ] {
            let kinds = cluster.cluster().kinds();
            let like = kinds
                .iter()
                .find(|kind| kind.plural == "nodes")
                .expect("a cluster has nodes");
            let gvk = model::Gvk::new("rbac.authorization.k8s.io", "v1", kind);
            let singular = kind.to_lowercase().into();
            cluster.add_kind(Kind {
                gvk,
                plural: plural.into(),
                singular,
                ..(**like).clone()
            });
        }
        let embedded: &'static [u8] = Box::leak(guest("refuses_config").to_vec().into_boxed_slice());
        let table: &'static [(&str, &[u8])] = Box::leak(vec![("particular", embedded)].into_boxed_slice());
        let caller = Caller::component("system:plugin-host", &["system:masters"]);
        let objects = Objects::new(host(), cluster.cluster(), caller, table);
        let stop = CancellationToken::new();
        tokio::spawn(objects.clone().run(stop.clone()));
        objects.first_look().await;
        Self { cluster, objects, stop }
    }

    fn apply(&self, name: &str, spec: Value) {
        // The generation rises with the spec, as the registry has it.
        let generation = self.object(name)["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        let status = self.object(name)["status"].clone();
        self.cluster.put(json!({
            "apiVersion": "plugins.pilotis.dev/v1alpha1", "kind": "Plugin",
            "metadata": {"name": name, "generation": generation}, "spec": spec, "status": status,
        }));
    }

    fn object(&self, name: &str) -> Value {
        let key = ObjectKey::new(GroupResource::new("plugins.pilotis.dev", "plugins"), "", name);
        self.cluster.object(&key).map_or(Value::Null, |object| object.value())
    }

    /// The status once it speaks of the newest spec.
    async fn told(&self, name: &str) -> Value {
        let generation = self.object(name)["metadata"]["generation"].clone();
        let told = async {
            while self.object(name)["status"]["observedGeneration"] != generation {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told)
            .await
            .expect("the status follows the spec");
        self.object(name)["status"].clone()
    }

    async fn loaded(&self, what: &str, is: impl Fn(&LoadedPlugins) -> bool) -> LoadedPlugins {
        let mut loaded = self.objects.loaded();
        let found = tokio::time::timeout(Duration::from_secs(60), loaded.wait_for(|all| is(all))).await;
        found.unwrap_or_else(|_| panic!("{what}")).expect("it runs").clone()
    }
}

fn condition(status: &Value) -> (&str, &str, &str) {
    let condition = &status["conditions"][0];
    let text = |name: &str| condition[name].as_str().unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_loaded_swapped_and_unloaded() {
    let house = House::new().await;
    house.apply("mine", file("well_behaved"));
    let status = house.told("mine").await;
    assert_eq!(
        (status["state"].as_str(), condition(&status).0),
        (Some("Ready"), "True"),
        "{status}"
    );
    assert_eq!(status["worlds"], json!(["controller"]));
    let loaded = house.loaded("it is loaded", |all| all.len() == 1).await;
    let plugin = loaded[0].plugin.clone();
    let caller = Controller::new(plugin.clone());
    assert!(caller.reconcile(&request(b"0"), Box::new(Echo)).await.unwrap().is_ok());

    // Another configuration is another revision in the same plugin.
    let mut spec = file("well_behaved");
    spec["config"] = json!({"greeting": "hello"});
    house.apply("mine", spec);
    let status = house.told("mine").await;
    assert_eq!(
        (status["revision"].as_str(), status["previous"]["revision"].as_str()),
        (Some("2"), Some("1")),
        "{status}"
    );
    assert_eq!(plugin.current().unwrap().config(), r#"{"greeting":"hello"}"#);
    assert!(caller.reconcile(&request(b"0"), Box::new(Echo)).await.unwrap().is_ok());
    let figures = house.objects.figures("mine").unwrap();
    assert_eq!(
        (figures["faults"].as_u64(), figures["breaker"].as_str()),
        (Some(0), Some("Closed")),
        "{figures:?}"
    );

    let key = ObjectKey::new(GroupResource::new("plugins.pilotis.dev", "plugins"), "", "mine");
    assert!(house.cluster.remove(&key));
    house.loaded("it is unloaded", |all| all.is_empty()).await;
    assert!(house.objects.figures("mine").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_loaded_says_why_and_the_previous_revision_serves_on() {
    let house = House::new().await;
    house.apply("mine", file("well_behaved"));
    house.told("mine").await;
    let plugin = house.loaded("it is loaded", |all| all.len() == 1).await[0]
        .plugin
        .clone();
    let good = plugin.current().unwrap().digest();
    let torn = scratch("torn.wasm");
    std::fs::write(&torn, &guest("trap")[..3000]).unwrap();
    let text = scratch("text.wasm");
    std::fs::write(&text, "not a component").unwrap();
    let with = |name: &str, member: &str, value: Value| {
        let mut spec = file(name);
        spec[member] = value;
        spec
    };
    for (spec, reason, says) in [
        (
            json!({"source": {"file": "/nowhere/at-all.wasm"}}),
            "SourceNotFound",
            "/nowhere/at-all.wasm",
        ),
        (
            json!({"source": {"file": text}}),
            "LoadFailed",
            "this is not WebAssembly",
        ),
        (json!({"source": {"file": torn}}), "LoadFailed", "it does not compile"),
        (
            json!({"source": {"embedded": "nothing"}}),
            "SourceNotFound",
            "there are: particular",
        ),
        (
            json!({"source": {"oci": "registry/x:1"}}),
            "SourceNotSupported",
            "spec.source.file",
        ),
        (file("wrong_world"), "LoadFailed", "it must export"),
        (file("denied_import"), "LoadFailed", "wasi:sockets/"),
        (
            with("well_behaved", "grants", json!({"rules": []})),
            "LoadFailed",
            "asks for more than spec.grants allows",
        ),
        (
            with("well_behaved", "config", json!({"greeting": 1})),
            "LoadFailed",
            "spec.config.greeting: must be of type string",
        ),
        (
            with("refuses_config", "config", json!({"word": "no"})),
            "LoadFailed",
            "the word is missing",
        ),
        (
            with("well_behaved", "digest", json!(format!("sha256:{}", "0".repeat(64)))),
            "DigestMismatch",
            "correct one of the two",
        ),
        (
            with("well_behaved", "limits", json!({"memory": "much"})),
            "InvalidSpec",
            "spec.limits.memory",
        ),
    ] {
        house.apply("mine", spec.clone());
        let status = house.told("mine").await;
        let (truth, has, message) = condition(&status);
        assert_eq!((truth, has), ("False", reason), "{spec}: {message}");
        assert!(message.contains(says), "{spec}: {message}");
        assert!(message.ends_with("the previous revision serves on"), "{message}");
        assert_eq!(status["state"], "Degraded");
        assert_eq!(plugin.current().unwrap().digest(), good);
        assert!(
            Controller::new(plugin.clone())
                .reconcile(&request(b"0"), Box::new(Echo))
                .await
                .unwrap()
                .is_ok()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_plugins_are_granted_what_they_ask() {
    let house = House::new().await;
    house.apply(
        "policy",
        json!({"source": {"embedded": "particular"}, "config": {"word": "please"}}),
    );
    let status = house.told("policy").await;
    assert_eq!(status["state"], "Ready", "{status}");
    let loaded = house.loaded("it is loaded", |all| all.len() == 1).await;
    assert!(loaded[0].built_in);
    assert_eq!(loaded[0].plugin.name(), &PluginName::new("policy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_comes_later_is_found() {
    let house = House::new().await;
    let late = scratch("late.wasm");
    let _ = std::fs::remove_file(&late);
    let mut spec = file("well_behaved");
    spec["source"] = json!({"file": late});
    house.apply("mine", spec);
    assert_eq!(condition(&house.told("mine").await).1, "SourceNotFound");
    // In place by rename, so that it is never seen half-written.
    let half = scratch("late.wasm.half");
    std::fs::write(&half, guest("well_behaved")).unwrap();
    std::fs::rename(&half, &late).unwrap();
    house.loaded("it is tried again by itself", |all| all.len() == 1).await;
    let ready = async {
        while house.object("mine")["status"]["state"] != "Ready" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready)
        .await
        .expect("and the status says so");
}
