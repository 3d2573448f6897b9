//! What kinds promise: pods, events, secrets, and the list of all.

use std::collections::BTreeSet;

use client::{Action, DeleteOptions, ListOptions, Outcome, PatchKind, WatchOptions};
use model::Failure;
use schema::Table;
use serde_json::{Value, json};

use super::support::*;

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
async fn ephemeral_containers_are_added_through_a_door_of_their_own() {
    let registry = open().await;
    let shop = Shop(&registry);
    shop.create("pods/default", pod("a")).await.unwrap();
    let (path, door) = ("pods/default/a", "pods/default/a/ephemeralcontainers");
    let looks = |name: &str| json!({"name": name, "image": "debug:1"});
    let names = |pod: &Value| {
        let list = pod["spec"]["ephemeralContainers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut names: Vec<_> = list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names.join(" ")
    };
    // As `kubectl debug` does it.
    for name in ["one", "two"] {
        let patch = json!({"spec": {"ephemeralContainers": [looks(name)]}});
        shop.patch(door, PatchKind::Strategic, patch).await.unwrap();
    }
    assert_eq!(names(&shop.get(door).await.unwrap()), "one two");
    let apply = PatchKind::Apply { force: false };
    let config = |list: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"ephemeralContainers": list}});
    let applied = shop.patch(door, apply, config(json!([looks("three")]))).await.unwrap();
    let applied = applied.value();
    assert_eq!(names(&applied), "one three two");
    let books = applied["metadata"]["managedFields"].as_array().unwrap();
    let book = books
        .iter()
        .find(|b| b["operation"] == "Apply")
        .expect("a book of what was applied");
    assert_eq!(book["subresource"], "ephemeralcontainers");
    assert_eq!(book["fieldsV1"].get("f:metadata"), None, "labels are not this door's");
    let gone = shop
        .patch(door, apply, config(json!([])))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        gone.contains("existing ephemeral containers \"three\" may not be removed"),
        "{gone}"
    );
    // The rest of the document passes by.
    let mut whole = shop.get(door).await.unwrap();
    whole["spec"]["ephemeralContainers"]
        .as_array_mut()
        .unwrap()
        .push(looks("four"));
    whole["spec"]["containers"][0]["image"] = json!("other");
    whole["metadata"]["labels"]["x"] = json!("y");
    let updated = shop.update(door, &whole).await.unwrap().value();
    assert_eq!(names(&updated), "four one three two");
    let before = pod("a");
    assert_eq!(
        updated["spec"]["containers"][0]["image"],
        before["spec"]["containers"][0]["image"]
    );
    assert_eq!(updated["metadata"]["labels"].get("x"), None);
    assert_eq!(
        updated["spec"]["ephemeralContainers"][0]["imagePullPolicy"],
        "IfNotPresent"
    );
    // And no other door changes them.
    for list in [json!([looks("five")]), Value::Null] {
        let mut whole = updated.clone();
        whole["spec"]["ephemeralContainers"] = list;
        let refused = shop.update(path, &whole).await.unwrap_err().to_string();
        assert!(refused.contains("pod updates may not change fields"), "{refused}");
    }
    shop.update("pods/default/a/status", &before).await.unwrap();
    assert_eq!(names(&shop.get(path).await.unwrap()), "four one three two");
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
        let Failure::TooManyRequests {
            reason,
            retry_after,
            causes,
        } = refused
        else {
            panic!("{refused}")
        };
        assert_eq!(
            reason,
            "Cannot evict pod as it would violate the pod's disruption budget."
        );
        assert_eq!(retry_after.as_secs(), wait);
        let told: Vec<_> = causes.iter().map(|c| (c.reason.as_str(), c.message.as_str())).collect();
        assert_eq!(told, [("DisruptionBudget", why)]);
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
    let target = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .find(|condition| condition["type"] == "DisruptionTarget")
    };
    assert_eq!(target(&untouched), None);
    // The version that was named is changed by the eviction itself, which holds all the same; an older one does not.
    let at = |version: &Value| {
        let options = json!({"preconditions": {"resourceVersion": version}});
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}, "deleteOptions": options});
        shop.act("pods/default/a/eviction", Action::Create(bytes(&eviction)))
    };
    let late = at(&json!("1")).await.unwrap_err();
    assert!(matches!(late, Failure::Conflict { .. }), "{late}");
    assert_eq!(target(&shop.get("pods/default/a").await.unwrap()), None);
    at(&untouched["metadata"]["resourceVersion"]).await.unwrap();
    let evicted = shop.get("pods/default/a").await.unwrap();
    assert_eq!(
        target(&evicted),
        Some(
            json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": "2026-01-02T12:00:00Z"})
        )
    );
    let owned = evicted["metadata"]["managedFields"].to_string();
    assert!(
        owned.contains("Ready") && !owned.contains("DisruptionTarget"),
        "{owned}"
    );
    // Again, while it goes: nothing is to be done.
    shop.act("pods/default/a/eviction", evict()).await.unwrap();
    assert_eq!(shop.get("pods/default/a").await.unwrap(), evicted);
    assert_eq!(
        shop.get("pods/default/a").await.unwrap()["metadata"]["deletionGracePeriodSeconds"],
        30
    );
    assert_eq!(
        shop.get("policy/v1/poddisruptionbudgets/default/b").await.unwrap()["status"]["disruptionsAllowed"],
        0
    );
}
