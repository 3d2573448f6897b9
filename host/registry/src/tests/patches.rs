//! What becomes of a change: unknown fields, the four patches, whose fields are whose, which changes count.

use client::{Action, FieldValidation, PatchKind, Preconditions, WriteOptions};
use model::Failure;
use serde_json::{Value, json};

use super::support::*;

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
