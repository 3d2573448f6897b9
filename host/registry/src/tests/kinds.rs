//! What kinds promise: pods, Services, workloads, custom kinds, the list of all.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{
    Action, Cluster, DeleteOptions, FieldValidation, ListOptions, Outcome, PatchKind, Preconditions, WatchOptions,
    WriteOptions,
};
use futures::StreamExt;
use model::{Failure, Gvr};
use schema::Table;
use serde_json::{Value, json};

use super::support::*;
use crate::Network;

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn binding(node: &str) -> Action {
    let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": node}});
    Action::Create(bytes(&body))
}

#[test]
fn every_built_in_kind_is_listed_once_and_known_to_the_schema() {
    let mut seen = BTreeSet::new();
    for resource in crate::resources::all() {
        let kind = &resource.kind;
        assert!(seen.insert(kind.gvr()), "{} is listed twice", kind.gvr());
        if kind.gvk.group != "plugins.pilotis.dev" {
            assert!(
                Table::builtin().schema(&kind.gvk).is_some(),
                "{} is not in the table",
                kind.gvk
            );
        }
        for subresource in &kind.subresources {
            assert!(resource.find_door(&subresource.name).is_some());
        }
    }
}

/// Each file in `resources/` is a module that `all` uses, or a helper named here.
#[test]
fn the_list_of_kinds_and_the_folder_agree() {
    let helpers = [
        "admission",
        "binding",
        "check",
        "common",
        "crd_check",
        "cron",
        "eviction",
        "hpa_v1",
        "mod",
        "pod_affinity",
        "pod_check",
        "pod_security",
        "pod_spec",
        "pod_volumes",
        "workload",
    ];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/resources");
    let list = std::fs::read_to_string(format!("{folder}/mod.rs")).unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        if !helpers.contains(&name) {
            assert!(
                list.contains(&format!("        {name}::")),
                "{name} is in the folder and not in `all`"
            );
        }
    }
}

#[tokio::test]
async fn a_pod_is_filled_in_bound_and_deleted_gracefully() {
    let registry = open().await;
    let shop = Shop(&registry);
    let made = shop.create("pods/default", pod("a")).await.unwrap().value();
    assert_eq!(made["spec"]["restartPolicy"], "Always");
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    let done = shop.act("pods/default/a/binding", binding("n1")).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Document { created: true, .. }));
    let bound = shop.get("pods/default/a").await.unwrap();
    assert_eq!(
        (&bound["spec"]["nodeName"], &bound["status"]["conditions"][0]["type"]),
        (&json!("n1"), &json!("PodScheduled"))
    );
    let twice = shop.act("pods/default/a/binding", binding("n2")).await.unwrap_err();
    assert_eq!(
        twice.to_string(),
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
    );

    let outcome = shop.delete("pods/default/a").await.unwrap();
    assert!(matches!(outcome, Outcome::Changed(_)));
    let dying = shop.get("pods/default/a").await.unwrap();
    assert_eq!(dying["metadata"]["deletionTimestamp"], "2026-01-02T12:00:30Z");
    assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 30);
    // A shorter grace counts from the first delete; a longer one changes nothing.
    let grace = |seconds| DeleteOptions {
        grace: Some(seconds),
        ..DeleteOptions::default()
    };
    shop.delete_with("pods/default/a", grace(60)).await.unwrap();
    assert_eq!(
        shop.get("pods/default/a").await.unwrap()["metadata"]["deletionGracePeriodSeconds"],
        30
    );
    shop.delete_with("pods/default/a", grace(5)).await.unwrap();
    let sooner = shop.get("pods/default/a").await.unwrap();
    assert_eq!(sooner["metadata"]["deletionTimestamp"], "2026-01-02T12:00:05Z");
    // The kubelet ends it.
    assert!(matches!(
        shop.delete_with("pods/default/a", grace(0)).await.unwrap(),
        Outcome::Deleted(_)
    ));
    assert!(matches!(shop.get("pods/default/a").await, Err(Failure::NotFound(_))));

    shop.create("pods/default", pod("b")).await.unwrap();
    assert!(
        matches!(shop.delete("pods/default/b").await.unwrap(), Outcome::Deleted(_)),
        "it runs nowhere"
    );
}

#[tokio::test]
async fn a_pod_keeps_its_spec_and_the_kubelet_its_status() {
    let registry = open().await;
    let shop = Shop(&registry);
    let mut made = shop.create("pods/default", pod("a")).await.unwrap().value();
    let image = json!({"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}});
    shop.patch("pods/default/a", PatchKind::Strategic, image).await.unwrap();
    let refused = shop
        .patch("pods/default/a", PatchKind::Merge, json!({"spec": {"hostname": "x"}}))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields other than"),
        "{refused}"
    );
    // The front door leaves the status; the status door leaves the rest.
    made["status"]["phase"] = "Running".into();
    made["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    made["spec"]["containers"][0]["image"] = "nginx:3".into();
    shop.update("pods/default/a/status", &made).await.unwrap();
    let now = shop.get("pods/default/a").await.unwrap();
    assert_eq!(
        (&now["status"]["phase"], &now["spec"]["containers"][0]["image"]),
        (&json!("Running"), &json!("nginx:2"))
    );
    made["status"]["phase"] = "Failed".into();
    shop.update("pods/default/a", &made).await.unwrap();
    let now = shop.get("pods/default/a").await.unwrap();
    assert_eq!(
        (&now["status"]["phase"], &now["spec"]["containers"][0]["image"]),
        (&json!("Running"), &json!("nginx:3"))
    );
}

#[tokio::test]
async fn a_bad_pod_is_told_everything_that_is_wrong() {
    let registry = open().await;
    let bad =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A"}, "spec": {"containers": [{"name": "c"}]}});
    let failure = Shop(&registry)
        .create("pods/default", bad)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        failure
            .starts_with("Pod \"A\" is invalid: [metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain"),
        "{failure}"
    );
    assert!(
        failure.ends_with("spec.containers[0].image: Required value]"),
        "{failure}"
    );
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored() {
    let registry = open().await;
    let shop = Shop(&registry);
    let mut odd = pod("a");
    odd["spec"]["colour"] = "red".into();
    let with = |validation| WriteOptions {
        dry_run: true,
        validation,
        ..WriteOptions::default()
    };
    let create = || Action::Create(bytes(&odd));
    let strict = shop
        .with("pods/default", create(), with(client::FieldValidation::Strict))
        .await
        .unwrap_err();
    assert_eq!(
        strict.to_string(),
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.colour\""
    );
    let warned = shop
        .with("pods/default", create(), with(client::FieldValidation::Warn))
        .await
        .unwrap();
    assert_eq!(warned.warnings, ["unknown field \"spec.colour\""]);
    let ignored = shop
        .with("pods/default", create(), with(client::FieldValidation::Ignore))
        .await
        .unwrap();
    assert!(ignored.warnings.is_empty());
    assert_eq!(ignored.outcome.object().unwrap().value()["spec"].get("colour"), None);
}

#[tokio::test]
async fn problems_of_a_patch_are_its_own_and_those_of_what_it_leaves() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create("pods/default", pod("a")).await.unwrap();
    let patch = async |kind, text: &'static str, validation| {
        let action = Action::Patch {
            kind,
            body: bytes::Bytes::from_static(text.as_bytes()),
            preconditions: Preconditions::default(),
        };
        let options = WriteOptions {
            dry_run: true,
            field_manager: "m".into(),
            validation,
        };
        shop.with("pods/default/a", action, options).await
    };
    let operations = r#"[{"op": "add", "path": "/spec/colour", "value": 1, "value": 2, "tint": 3}]"#;
    let document = r#"{"spec": {"colour": 1, "nodeName": "x", "nodeName": "y"}}"#;
    let applied =
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"colour": 1, "nodeName": 5}}"#;
    for (kind, text, problems) in [
        (
            PatchKind::Json,
            operations,
            r#"json patch duplicate field "[0].value", json patch unknown field "[0].tint", unknown field "spec.colour""#,
        ),
        (
            PatchKind::Merge,
            document,
            r#"duplicate field "spec.nodeName", unknown field "spec.colour""#,
        ),
        (
            PatchKind::Strategic,
            document,
            r#"duplicate field "spec.nodeName", unknown field "spec.colour""#,
        ),
    ] {
        let refused = patch(kind, text, FieldValidation::Strict).await.unwrap_err();
        let says = refused.to_string();
        assert!(
            matches!(refused, Failure::Invalid { .. })
                && says.starts_with(r#" "" is invalid: patch: Invalid value: "{"#)
                && says.ends_with(&format!(": strict decoding error: {problems}")),
            "{kind:?}: {says}"
        );
        // The node of a pod may not be set, so the others end there.
        if kind == PatchKind::Json {
            let warned = patch(kind, text, FieldValidation::Warn).await.unwrap();
            assert_eq!(warned.warnings.join(", "), problems);
        }
    }
    for validation in [FieldValidation::Strict, FieldValidation::Warn, FieldValidation::Ignore] {
        let refused = patch(PatchKind::Apply { force: false }, applied, validation).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "failed to create typed patch object (/a; /v1, Kind=Pod): errors:\n  .spec.colour: field not declared in schema\n  .spec.nodeName: expected string, got 5"
        );
    }
}

#[tokio::test]
async fn events_have_two_faces() {
    let registry = open().await;
    let shop = Shop(&registry);
    // Both share a cache, which reads the stored fields whichever face starts it.
    shop.list("events.k8s.io/v1/events", ListOptions::default())
        .await
        .unwrap();
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Started", "message": "hello", "reportingComponent": "kubelet",
        "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}, "type": "Normal"});
    shop.create("events/default", event).await.unwrap();
    let new = shop.get("events.k8s.io/v1/events/default/e").await.unwrap();
    assert_eq!(
        (&new["apiVersion"], &new["note"], &new["regarding"]["name"]),
        (&json!("events.k8s.io/v1"), &json!("hello"), &json!("a"))
    );
    // Each face by its own names of the same fields.
    let found = async |face: &str, fields: &str| {
        let options = ListOptions {
            fields: fields.into(),
            ..ListOptions::default()
        };
        shop.list(face, options).await.map(|list| list.items.len())
    };
    for (face, fields, many) in [
        ("events", "involvedObject.name=a,reason=Started", 1),
        ("events", "reportingComponent=kubelet", 1),
        ("events", "source=kubelet,type=Normal", 1),
        ("events.k8s.io/v1/events", "regarding.name=a,reason=Started", 1),
        ("events.k8s.io/v1/events", "reportingController=kubelet", 1),
        ("events.k8s.io/v1/events", "reportingController!=kubelet", 0),
        ("events.k8s.io/v1/events", "regarding.kind=Node", 0),
    ] {
        assert_eq!(found(face, fields).await.unwrap(), many, "{face} {fields}");
    }
    for (face, fields) in [
        ("events", "regarding.name=a"),
        ("events", "reportingController=kubelet"),
        ("events.k8s.io/v1/events", "involvedObject.name=a"),
    ] {
        let failure = found(face, fields).await.unwrap_err().to_string();
        assert!(failure.contains("field label not supported: "), "{failure}");
    }
    let mut watch = shop
        .watch("events.k8s.io/v1/events", WatchOptions::default())
        .await
        .unwrap();
    let Some(Ok(client::WatchEvent::Added(seen))) = event_of(&mut watch).await else {
        panic!()
    };
    assert_eq!(seen.value()["note"], "hello");
}

async fn event_of(stream: &mut client::WatchStream) -> Option<Result<client::WatchEvent, Failure>> {
    super::support::event(stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_given_once_and_come_back() {
    let mut options = options();
    options.network = Network {
        service_ranges: vec!["10.0.0.0/28".into()],
        node_ports: (30000, 30010),
        ..Network::default()
    };
    let registry = open_with(options).await;
    // 14 addresses, the first for the kubernetes Service: of twenty creates at once thirteen succeed.
    let spec = || json!({"ports": [{"port": 80}]});
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let registry = registry.clone();
            tokio::spawn(async move {
                Shop(&registry)
                    .create("services/default", service(&format!("s{i}"), spec()))
                    .await
            })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(object) => made.push(object),
            Err(failure) => assert!(failure.to_string().contains("range 10.0.0.0/28 is full"), "{failure}"),
        }
    }
    let addresses: BTreeSet<String> = made
        .iter()
        .map(|o| o.value()["spec"]["clusterIP"].as_str().unwrap().into())
        .collect();
    assert_eq!((made.len(), addresses.len()), (13, 13));
    assert!(!addresses.contains("10.0.0.1"), "that is the API's");

    let shop = Shop(&registry);
    let first = made[0].clone();
    shop.delete(&format!("services/default/{}", first.key.name))
        .await
        .unwrap();
    let again = shop.create("services/default", service("again", spec())).await.unwrap();
    assert_eq!(again.value()["spec"]["clusterIP"], first.value()["spec"]["clusterIP"]);
    // A refused create gives back what it took; a taken address is named.
    let taken = service("taken", json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
    let failure = shop.create("services/default", taken).await.unwrap_err();
    assert!(
        failure.to_string().contains("provided IP is already allocated"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_service_changes_its_type_and_keeps_what_it_can() {
    let registry = open().await;
    let shop = Shop(&registry);
    let made = shop
        .create(
            "services/default",
            service("s", json!({"type": "NodePort", "ports": [{"port": 80}]})),
        )
        .await
        .unwrap()
        .value();
    let (address, port) = (
        made["spec"]["clusterIP"].clone(),
        made["spec"]["ports"][0]["nodePort"].clone(),
    );
    assert!(port.as_u64().is_some_and(|p| (30000..=32767).contains(&p)), "{port}");
    assert_eq!(made["spec"]["ports"][0]["targetPort"], 80);
    // A replace that names neither keeps both.
    let replaced = shop
        .update(
            "services/default/s",
            &service(
                "s",
                json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}),
            ),
        )
        .await
        .unwrap()
        .value();
    assert_eq!(
        (
            &replaced["spec"]["clusterIP"],
            &replaced["spec"]["ports"][0]["nodePort"]
        ),
        (&address, &port)
    );
    let plain = shop
        .patch(
            "services/default/s",
            PatchKind::Merge,
            json!({"spec": {"type": "ClusterIP"}}),
        )
        .await
        .unwrap()
        .value();
    assert_eq!(
        (&plain["spec"]["clusterIP"], plain["spec"]["ports"][0].get("nodePort")),
        (&address, None)
    );
    // Its node port is free again.
    let other = service(
        "t",
        json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]}),
    );
    shop.create("services/default", other).await.unwrap();
    let outside =
        json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": "", "clusterIPs": null}});
    let outside = shop
        .patch("services/default/s", PatchKind::Merge, outside)
        .await
        .unwrap()
        .value();
    assert_eq!(outside["spec"].get("clusterIP"), None);
    let none = shop
        .create(
            "services/default",
            service("h", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        )
        .await
        .unwrap();
    assert_eq!(none.value()["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn what_is_taken_is_known_after_a_restart() {
    let store: Arc<dyn store::Store> = Arc::new(store::memory::open(store::History::default()).unwrap());
    let first = crate::Registry::open(store.clone(), options()).await.unwrap();
    let wish = json!({"clusterIP": "10.96.7.7", "ports": [{"port": 80}]});
    Shop(&first)
        .create("services/default", service("s", wish.clone()))
        .await
        .unwrap();
    drop(first);
    let second = crate::Registry::open(store, options()).await.unwrap();
    let failure = Shop(&second)
        .create("services/default", service("t", wish))
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("already allocated"), "{failure}");
    assert!(Shop(&second).get("services/default/kubernetes").await.is_ok());
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}})
}

#[tokio::test]
async fn generation_counts_intent_and_scale_is_a_window() {
    let registry = open().await;
    let shop = Shop(&registry);
    let path = "apps/v1/deployments/default/d";
    let made = shop
        .create("apps/v1/deployments/default", deployment())
        .await
        .unwrap()
        .value();
    assert_eq!(
        (
            &made["metadata"]["generation"],
            &made["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        ),
        (&json!(1), &json!("25%"))
    );
    shop.patch(path, PatchKind::Merge, json!({"metadata": {"labels": {"x": "y"}}}))
        .await
        .unwrap();
    shop.patch(
        "apps/v1/deployments/default/d/status",
        PatchKind::Merge,
        json!({"status": {"replicas": 2}}),
    )
    .await
    .unwrap();
    assert_eq!(shop.get(path).await.unwrap()["metadata"]["generation"], 1);
    let scale = shop.get("apps/v1/deployments/default/d/scale").await.unwrap();
    assert_eq!(
        (&scale["kind"], &scale["spec"], &scale["status"]),
        (
            &json!("Scale"),
            &json!({"replicas": 2}),
            &json!({"replicas": 2, "selector": "app=a"})
        )
    );
    let scaled = shop
        .patch(
            "apps/v1/deployments/default/d/scale",
            PatchKind::Merge,
            json!({"spec": {"replicas": 5}}),
        )
        .await
        .unwrap();
    assert_eq!(scaled.value()["spec"]["replicas"], 5);
    let now = shop.get(path).await.unwrap();
    assert_eq!(
        (&now["spec"]["replicas"], &now["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
    let moved = json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}});
    let failure = shop.patch(path, PatchKind::Merge, moved).await.unwrap_err().to_string();
    assert!(
        failure.contains("spec.selector: Invalid value") && failure.contains("field is immutable"),
        "{failure}"
    );
}

#[tokio::test]
async fn the_four_patches() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create("apps/v1/deployments/default", deployment()).await.unwrap();
    let path = "apps/v1/deployments/default/d";
    let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 2}, {"op": "replace", "path": "/spec/replicas", "value": 3}]);
    assert_eq!(
        shop.patch(path, PatchKind::Json, json_patch.clone())
            .await
            .unwrap()
            .value()["spec"]["replicas"],
        3
    );
    assert!(
        shop.patch(path, PatchKind::Json, json_patch).await.is_err(),
        "the test no longer holds"
    );
    // Strategic merge finds the container by its name, merge replaces the list.
    let sidecar = json!({"spec": {"template": {"spec": {"containers": [{"name": "s", "image": "b:1"}]}}}});
    let merged = shop
        .patch(path, PatchKind::Strategic, sidecar.clone())
        .await
        .unwrap()
        .value();
    assert_eq!(
        merged["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let replaced = shop.patch(path, PatchKind::Merge, sidecar).await.unwrap().value();
    assert_eq!(
        replaced["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // A version in the patch is a precondition.
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}});
    assert!(matches!(
        shop.patch(path, PatchKind::Merge, stale).await,
        Err(Failure::Conflict { .. })
    ));
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let registry = open().await;
    let shop = Shop(&registry);
    let path = "apps/v1/deployments/default/d";
    let apply = |force| PatchKind::Apply { force };
    let made = shop.patch(path, apply(false), deployment()).await.unwrap();
    let books = made.value()["metadata"]["managedFields"].clone();
    assert_eq!(
        (&books[0]["manager"], &books[0]["operation"]),
        (&json!("tester"), &json!("Apply"))
    );
    let same = shop.patch(path, apply(false), deployment()).await.unwrap();
    assert_eq!(same.version, made.version, "nothing to do is no write");

    let other = |value: Value, kind| {
        let options = WriteOptions {
            field_manager: "other".into(),
            ..WriteOptions::default()
        };
        let action = Action::Patch {
            kind,
            body: bytes(&value),
            preconditions: Default::default(),
        };
        let shop = &shop;
        async move { shop.with(path, action, options).await }
    };
    let five =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 5}});
    let Err(Failure::Conflict { causes, .. }) = other(five.clone(), apply(false)).await else {
        panic!("no conflict")
    };
    assert_eq!((causes.len(), causes[0].field.as_str()), (1, ".spec.replicas"));
    other(five, apply(true)).await.unwrap();
    assert_eq!(shop.get(path).await.unwrap()["spec"]["replicas"], 5);
    // What was taken is no longer the first one's to remove.
    let mut without = deployment();
    without["spec"].as_object_mut().unwrap().remove("replicas");
    let left = shop.patch(path, apply(false), without).await.unwrap();
    assert_eq!(left.value()["spec"]["replicas"], 5);
    let nameless = shop
        .with(
            path,
            Action::Patch {
                kind: apply(false),
                body: bytes(&deployment()),
                preconditions: Default::default(),
            },
            WriteOptions::default(),
        )
        .await;
    assert!(
        nameless
            .unwrap_err()
            .to_string()
            .contains("fieldManager: Required value: is required for apply patch")
    );
}

fn crd() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "cats.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "cats", "kind": "Cat", "shortNames": ["ct"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.lives", "statusReplicasPath": ".status.lives"}},
                "additionalPrinterColumns": [{"name": "Lives", "type": "integer", "jsonPath": ".spec.lives"}],
                "selectableFields": [{"jsonPath": ".spec.colour"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"lives": {"type": "integer", "default": 9, "minimum": 1}, "colour": {"type": "string"}}},
                    "status": {"type": "object", "properties": {"lives": {"type": "integer"}}}}}}},
            {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

/// Waits until the definition says it is established.
async fn established(shop: &Shop<'_>, name: &str) {
    let options = WatchOptions {
        fields: format!("metadata.name={name}"),
        ..WatchOptions::default()
    };
    let mut watch = shop
        .watch("apiextensions.k8s.io/v1/customresourcedefinitions", options)
        .await
        .unwrap();
    while let Some(Ok(event)) = super::support::event(&mut watch).await {
        if let client::WatchEvent::Added(o) | client::WatchEvent::Modified(o) = event {
            let value = o.value();
            let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions
                .iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
            {
                return;
            }
        }
    }
    panic!("the watch ended");
}

#[tokio::test]
async fn a_custom_kind_lives_and_dies_with_its_definition() {
    let registry = open().await;
    let shop = Shop(&registry);
    let changed = registry.kinds_changed();
    shop.create("apiextensions.k8s.io/v1/customresourcedefinitions", crd())
        .await
        .unwrap();
    established(&shop, "cats.example.com").await;
    changed.await;
    let resource = registry.resource(&Gvr::new("example.com", "v1", "cats")).unwrap();
    assert_eq!(
        (resource.kind.short_names[0].as_str(), resource.kind.singular.as_str()),
        ("ct", "cat")
    );

    let tom = json!({"apiVersion": "example.com/v1", "kind": "Cat", "metadata": {"name": "tom"}, "spec": {"colour": "grey"}, "status": {"lives": 1}});
    let made = shop.create("example.com/v1/cats/default", tom).await.unwrap();
    let value = made.value();
    assert_eq!(
        (&value["spec"]["lives"], value.get("status")),
        (&json!(9), None),
        "defaults are filled in, the status is not the creator's"
    );
    assert_eq!(resource.table(&made, registry.now()), [json!("tom"), json!(9)]);
    let old = shop.get("example.com/v1beta1/cats/default/tom").await.unwrap();
    assert_eq!(old["apiVersion"], "example.com/v1beta1");
    let bad = json!({"apiVersion": "example.com/v1", "kind": "Cat", "metadata": {"name": "x"}, "spec": {"lives": 0}});
    let failure = shop.create("example.com/v1/cats/default", bad).await.unwrap_err();
    assert!(
        failure.to_string().starts_with("Cat.example.com \"x\" is invalid")
            || failure.to_string().contains("spec.lives"),
        "{failure}"
    );
    let scaled = shop
        .patch(
            "example.com/v1/cats/default/tom/scale",
            PatchKind::Merge,
            json!({"spec": {"replicas": 3}}),
        )
        .await
        .unwrap();
    assert_eq!(scaled.value()["spec"]["replicas"], 3);
    let grey = ListOptions {
        fields: "spec.colour=grey".into(),
        ..ListOptions::default()
    };
    assert_eq!(shop.list("example.com/v1/cats", grey).await.unwrap().items.len(), 1);
    let smp = shop
        .patch("example.com/v1/cats/default/tom", PatchKind::Strategic, json!({}))
        .await;
    assert!(matches!(smp, Err(Failure::UnsupportedMediaType(_))));

    let mut cats = shop
        .watch("example.com/v1/cats", WatchOptions::default())
        .await
        .unwrap();
    assert_eq!(next(&mut cats).await, "ADDED tom");
    shop.delete("apiextensions.k8s.io/v1/customresourcedefinitions//cats.example.com")
        .await
        .unwrap();
    assert_eq!(next(&mut cats).await, "DELETED tom");
    let mut definitions = shop
        .watch(
            "apiextensions.k8s.io/v1/customresourcedefinitions",
            WatchOptions::default(),
        )
        .await
        .unwrap();
    let gone = async {
        while shop
            .get("apiextensions.k8s.io/v1/customresourcedefinitions//cats.example.com")
            .await
            .is_ok()
        {
            definitions.next().await;
        }
        let mut kinds = registry.kinds_version();
        while registry.resource(&Gvr::new("example.com", "v1", "cats")).is_some() {
            kinds.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .expect("the definition goes");
    assert!(matches!(
        shop.get("example.com/v1/cats/default/tom").await,
        Err(Failure::NoSuchResource { .. })
    ));
}

#[tokio::test]
async fn a_definition_that_takes_a_name_is_not_served() {
    let registry = open().await;
    let shop = Shop(&registry);
    let definitions = "apiextensions.k8s.io/v1/customresourcedefinitions";
    shop.create(definitions, crd()).await.unwrap();
    established(&shop, "cats.example.com").await;
    let mut thief = crd();
    thief["metadata"]["name"] = "lions.example.com".into();
    thief["spec"]["names"] = json!({"plural": "lions", "singular": "lion", "kind": "Cat"});
    shop.create(definitions, thief).await.unwrap();
    let options = WatchOptions {
        fields: "metadata.name=lions.example.com".into(),
        ..WatchOptions::default()
    };
    let mut watch = shop.watch(definitions, options).await.unwrap();
    loop {
        let Some(Ok(client::WatchEvent::Added(o) | client::WatchEvent::Modified(o))) =
            super::support::event(&mut watch).await
        else {
            panic!()
        };
        let value = o.value();
        let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(said) = conditions.iter().find(|c| c["type"] == "NamesAccepted") {
            assert_eq!(
                (&said["status"], &said["reason"]),
                (&json!("False"), &json!("KindConflict"))
            );
            break;
        }
    }
    assert!(registry.resource(&Gvr::new("example.com", "v1", "lions")).is_none());
    let wrong = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"}, "spec": {"group": "example.com",
        "scope": "Global", "names": {"plural": "dogs", "kind": "Dog"}, "versions": []}});
    let failure = shop.create(definitions, wrong).await.unwrap_err().to_string();
    assert!(
        failure.contains("must be spec.names.plural+\".\"+spec.group")
            && failure.contains("spec.scope: Unsupported value"),
        "{failure}"
    );
}

#[tokio::test]
async fn definitions_are_served_again_after_a_restart() {
    let store: Arc<dyn store::Store> = Arc::new(store::memory::open(store::History::default()).unwrap());
    let first = crate::Registry::open(store.clone(), options()).await.unwrap();
    Shop(&first)
        .create("apiextensions.k8s.io/v1/customresourcedefinitions", crd())
        .await
        .unwrap();
    established(&Shop(&first), "cats.example.com").await;
    drop(first);
    let second = crate::Registry::open(store, options()).await.unwrap();
    assert!(second.resource(&Gvr::new("example.com", "v1", "cats")).is_some());
}

#[tokio::test]
async fn secrets_take_text_and_keep_base64() {
    let registry = open().await;
    let shop = Shop(&registry);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "hello"}});
    let made = shop.create("secrets/default", secret).await.unwrap().value();
    assert_eq!(
        (&made["data"], &made["type"], made.get("stringData")),
        (&json!({"a": "aGVsbG8="}), &json!("Opaque"), None)
    );
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create("pods/default", pod("a")).await.unwrap();
    shop.act("pods/default/a/binding", binding("n")).await.unwrap();
    shop.patch(
        "pods/default/a/status",
        PatchKind::Merge,
        json!({"status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}]}}),
    )
    .await
    .unwrap();
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    shop.create("policy/v1/poddisruptionbudgets/default", budget)
        .await
        .unwrap();
    let evict = || {
        Action::Create(bytes(
            &json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}),
        ))
    };
    let status = |observed: u64| json!({"status": {"observedGeneration": observed, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    // A budget that nobody has looked at yet may allow it in a moment; one that is used up promises nothing.
    for (observed, wait, why) in [
        (0, 10, "The disruption budget b is still being processed by the server."),
        (1, 0, "The disruption budget b needs 1 healthy pods and has 1 currently"),
    ] {
        let budget = "policy/v1/poddisruptionbudgets/default/b/status";
        shop.patch(budget, PatchKind::Merge, status(observed)).await.unwrap();
        let refused = shop.act("pods/default/a/eviction", evict()).await.unwrap_err();
        assert!(
            matches!(&refused, Failure::TooManyRequests { reason, retry_after, causes } if reason.contains("disruption budget")
                && retry_after.as_secs() == wait && causes[0].reason.as_str() == "DisruptionBudget" && causes[0].message == why),
            "{refused:?}"
        );
    }
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    shop.patch(
        "policy/v1/poddisruptionbudgets/default/b/status",
        PatchKind::Merge,
        status,
    )
    .await
    .unwrap();
    let evict_with = |stage: &str| {
        let options = json!({"dryRun": [stage]});
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}, "deleteOptions": options});
        shop.act("pods/default/a/eviction", Action::Create(bytes(&eviction)))
    };
    evict_with("All").await.unwrap();
    let unknown = evict_with("Some").await.unwrap_err();
    assert!(
        unknown.to_string().contains("deleteOptions.dryRun: Unsupported value"),
        "{unknown}"
    );
    let untouched = shop.get("pods/default/a").await.unwrap();
    assert_eq!(untouched["metadata"].get("deletionTimestamp"), None);
    shop.act("pods/default/a/eviction", evict()).await.unwrap();
    assert_eq!(
        shop.get("pods/default/a").await.unwrap()["metadata"]["deletionGracePeriodSeconds"],
        30
    );
    assert_eq!(
        shop.get("policy/v1/poddisruptionbudgets/default/b").await.unwrap()["status"]["disruptionsAllowed"],
        0
    );
}
