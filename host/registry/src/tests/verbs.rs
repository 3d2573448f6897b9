//! Create, update, patch, delete: conflicts, retries, preconditions, finalizers, names.

use client::{
    Action, DeleteOptions, ListOptions, Outcome, PatchKind, Preconditions, Propagation, ReadVersion, WriteOptions,
};
use model::{Failure, Uid};
use serde_json::json;

use super::support::*;

fn config(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn a_created_object_has_what_the_system_gives() {
    let registry = open().await;
    let shop = Shop(&registry);
    let mut sent = config("a");
    sent["metadata"]["uid"] = "mine".into();
    sent["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    let made = shop.create("configmaps/default", sent).await.unwrap();
    let value = made.value();
    assert!(value["metadata"]["uid"].as_str().unwrap().starts_with("uid-"));
    assert_eq!(value["metadata"]["creationTimestamp"], "2026-01-02T12:00:00Z");
    assert_eq!(value["metadata"]["resourceVersion"], made.version.to_string());
    assert_eq!(value["metadata"]["namespace"], "default");
    assert_eq!(value["metadata"].get("deletionTimestamp"), None);
    assert_eq!(shop.get("configmaps/default/a").await.unwrap(), value);
    let again = shop.create("configmaps/default", config("a")).await.unwrap_err();
    assert_eq!(again.to_string(), "configmaps \"a\" already exists");
}

#[tokio::test]
async fn documents_that_do_not_belong_are_refused() {
    let registry = open().await;
    let shop = Shop(&registry);
    for (path, document, says) in [
        (
            "configmaps/default",
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            "configmaps/default",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "x"}}),
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "configmaps/default",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "4"}}),
            "resourceVersion should not be set on objects to be created",
        ),
        (
            "configmaps/default",
            json!({"apiVersion": "v1", "kind": "ConfigMap"}),
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            "nothings/default",
            json!({}),
            "the server could not find the requested resource",
        ),
    ] {
        let failure = shop.create(path, document).await.unwrap_err();
        assert!(failure.to_string().contains(says), "{failure}");
    }
}

#[tokio::test]
async fn generated_names_are_tried_again_when_taken() {
    let registry = open().await;
    let shop = Shop(&registry);
    let mut made = Vec::new();
    for _ in 0..4 {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}});
        made.push(
            shop.create("configmaps/default", object)
                .await
                .unwrap()
                .key
                .name
                .to_string(),
        );
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 4, "{made:?}");
}

#[tokio::test]
async fn an_update_of_an_old_version_is_a_conflict() {
    let registry = open().await;
    let shop = Shop(&registry);
    let first = shop.create("configmaps/default", config("a")).await.unwrap().value();
    let mut new = first.clone();
    new["data"]["a"] = "2".into();
    let second = shop.update("configmaps/default/a", &new).await.unwrap();
    let failure = shop.update("configmaps/default/a", &new).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a version it overwrites.
    let mut blind = config("a");
    blind["data"]["a"] = "3".into();
    let third = shop.update("configmaps/default/a", &blind).await.unwrap();
    assert!(third.version > second.version);
    // The same again is no write.
    let fourth = shop.update("configmaps/default/a", &blind).await.unwrap();
    assert_eq!(fourth.version, third.version);
    // Another object's uid is not this object.
    let mut other = config("a");
    other["metadata"]["uid"] = "uid-x".into();
    assert!(matches!(
        shop.update("configmaps/default/a", &other).await,
        Err(Failure::Conflict { .. })
    ));
    let missing = shop.update("configmaps/default/b", &config("b")).await.unwrap_err();
    assert_eq!(missing.to_string(), "configmaps \"b\" not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_many_all_arrive() {
    let registry = open().await;
    Shop(&registry).create("configmaps/default", config("a")).await.unwrap();
    let mut tasks = Vec::new();
    for writer in 0..8 {
        let registry = registry.clone();
        tasks.push(tokio::spawn(async move {
            for i in 0..5 {
                let patch = json!({"data": {format!("k{writer}-{i}"): "x"}});
                // So many writers may lose twenty times in a row; then they are told, and try again as clients do.
                while let Err(failure) = Shop(&registry)
                    .patch("configmaps/default/a", PatchKind::Merge, patch.clone())
                    .await
                {
                    assert!(matches!(failure, Failure::Conflict { .. }), "{failure}");
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let value = Shop(&registry).get("configmaps/default/a").await.unwrap();
    assert_eq!(value["data"].as_object().unwrap().len(), 41);
}

#[tokio::test]
async fn a_dry_run_does_everything_but_write() {
    let registry = open().await;
    let shop = Shop(&registry);
    let dry = || WriteOptions {
        dry_run: true,
        ..WriteOptions::default()
    };
    let before = registry.revision().await.unwrap();
    let made = shop
        .with("configmaps/default", Action::Create(bytes(&config("a"))), dry())
        .await
        .unwrap();
    assert!(matches!(made.outcome, Outcome::Created(_)));
    assert_eq!(registry.revision().await.unwrap(), before);
    shop.create("configmaps/default", config("a")).await.unwrap();
    assert!(
        shop.with("configmaps/default", Action::Create(bytes(&config("a"))), dry())
            .await
            .is_err()
    );
    let gone = shop
        .with("configmaps/default/a", Action::Delete(DeleteOptions::default()), dry())
        .await
        .unwrap();
    assert!(matches!(gone.outcome, Outcome::Deleted(_)));
    assert!(shop.get("configmaps/default/a").await.is_ok());
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let registry = open().await;
    let shop = Shop(&registry);
    let mut held = config("a");
    held["metadata"]["finalizers"] = json!(["a.io/x", "a.io/y"]);
    shop.create("configmaps/default", held).await.unwrap();
    assert!(matches!(
        shop.delete("configmaps/default/a").await.unwrap(),
        Outcome::Changed(_)
    ));
    let dying = shop.get("configmaps/default/a").await.unwrap();
    assert_eq!(dying["metadata"]["deletionTimestamp"], "2026-01-02T12:00:00Z");
    assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 0);
    let more = json!({"metadata": {"finalizers": ["a.io/x", "a.io/y", "a.io/z"]}});
    let refused = shop
        .patch("configmaps/default/a", PatchKind::Merge, more)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("no new finalizers can be added if the object is being deleted"),
        "{refused}"
    );
    let fewer = json!({"metadata": {"finalizers": ["a.io/y"]}});
    shop.patch("configmaps/default/a", PatchKind::Merge, fewer)
        .await
        .unwrap();
    assert!(shop.get("configmaps/default/a").await.is_ok());
    shop.patch(
        "configmaps/default/a",
        PatchKind::Merge,
        json!({"metadata": {"finalizers": null}}),
    )
    .await
    .unwrap();
    assert!(matches!(
        shop.get("configmaps/default/a").await,
        Err(Failure::NotFound(_))
    ));
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let registry = open().await;
    let shop = Shop(&registry);
    for (propagation, finalizer) in [
        (Propagation::Foreground, "foregroundDeletion"),
        (Propagation::Orphan, "orphan"),
    ] {
        let name = format!("{propagation:?}").to_lowercase();
        shop.create("configmaps/default", config(&name)).await.unwrap();
        let delete = DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        let path = format!("configmaps/default/{name}");
        let outcome = shop.delete_with(&path, delete).await.unwrap();
        assert!(matches!(outcome, Outcome::Changed(_)));
        assert_eq!(
            shop.get(&path).await.unwrap()["metadata"]["finalizers"],
            json!([finalizer])
        );
        let background = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..DeleteOptions::default()
        };
        assert!(matches!(
            shop.delete_with(&path, background).await.unwrap(),
            Outcome::Deleted(_)
        ));
    }
}

#[tokio::test]
async fn deletes_keep_their_preconditions() {
    let registry = open().await;
    let shop = Shop(&registry);
    let made = shop.create("configmaps/default", config("a")).await.unwrap();
    let with = |preconditions| DeleteOptions {
        preconditions,
        ..DeleteOptions::default()
    };
    let other = Preconditions {
        uid: Some(Uid("other".into())),
        version: None,
    };
    let failure = shop.delete_with("configmaps/default/a", with(other)).await.unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("Precondition failed: UID in precondition: other"),
        "{failure}"
    );
    let old = Preconditions {
        uid: None,
        version: Some(model::ResourceVersion(made.version.0 - 1)),
    };
    assert!(matches!(
        shop.delete_with("configmaps/default/a", with(old)).await,
        Err(Failure::Conflict { .. })
    ));
    let right = Preconditions {
        uid: Some(made.uid.clone()),
        version: Some(made.version),
    };
    let gone = shop.delete_with("configmaps/default/a", with(right)).await.unwrap();
    assert!(
        gone.object().unwrap().version > made.version,
        "the last state is at the version of the deletion"
    );
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let registry = open().await;
    let shop = Shop(&registry);
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config(name);
        object["metadata"]["labels"] = json!({"l": label});
        shop.create("configmaps/default", object).await.unwrap();
    }
    let all = Action::DeleteCollection {
        delete: DeleteOptions::default(),
        labels: "l=x".into(),
        fields: String::new(),
    };
    let Outcome::DeletedMany(gone) = shop.act("configmaps/default", all).await.unwrap().outcome else {
        panic!()
    };
    assert_eq!(gone.len(), 2);
    assert_eq!(
        names(&shop.list("configmaps", ListOptions::default()).await.unwrap()),
        ["b"]
    );
}

#[tokio::test]
async fn lists_are_selected_and_paged_at_one_version() {
    let registry = open().await;
    let shop = Shop(&registry);
    for i in 0..10 {
        let mut object = config(&format!("c{i}"));
        object["metadata"]["labels"] = json!({"odd": (i % 2).to_string()});
        shop.create("configmaps/default", object).await.unwrap();
    }
    let page = |limit, token: &str| ListOptions {
        limit,
        continue_token: token.into(),
        ..ListOptions::default()
    };
    let first = shop.list("configmaps", page(4, "")).await.unwrap();
    assert_eq!(
        (names(&first), first.remaining),
        (vec!["c0".into(), "c1".into(), "c2".into(), "c3".into()], Some(6))
    );
    // Writes in between are not seen by later pages.
    shop.delete("configmaps/default/c5").await.unwrap();
    shop.create("configmaps/default", config("c55")).await.unwrap();
    let second = shop.list("configmaps", page(4, &first.continue_token)).await.unwrap();
    assert_eq!(
        (names(&second), second.version),
        (vec!["c4".into(), "c5".into(), "c6".into(), "c7".into()], first.version)
    );
    let third = shop.list("configmaps", page(4, &second.continue_token)).await.unwrap();
    assert_eq!(
        (names(&third), third.continue_token.as_str()),
        (vec!["c8".into(), "c9".into()], "")
    );

    let odd = ListOptions {
        labels: "odd=1".into(),
        limit: 2,
        ..ListOptions::default()
    };
    let odd = shop.list("configmaps", odd).await.unwrap();
    assert_eq!((names(&odd), odd.remaining), (vec!["c1".into(), "c3".into()], None));
    let one = ListOptions {
        fields: "metadata.name=c7".into(),
        ..ListOptions::default()
    };
    assert_eq!(names(&shop.list("configmaps", one).await.unwrap()), ["c7"]);
    let unknown = ListOptions {
        fields: "data.a=1".into(),
        ..ListOptions::default()
    };
    let failure = shop.list("configmaps", unknown).await.unwrap_err();
    assert!(
        failure
            .to_string()
            .contains(r#""data.a" is not a known field selector"#),
        "{failure}"
    );
    let future = ListOptions {
        version: ReadVersion::Exactly(first.version),
        ..ListOptions::default()
    };
    assert_eq!(shop.list("configmaps", future).await.unwrap().items.len(), 10);
    assert!(matches!(
        shop.list("configmaps", page(1, "nonsense")).await,
        Err(Failure::BadRequest(_))
    ));
}

#[tokio::test]
async fn a_namespace_goes_when_its_finalizer_does() {
    let registry = open().await;
    let shop = Shop(&registry);
    let made = shop
        .create(
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
        )
        .await
        .unwrap();
    assert_eq!(made.value()["status"]["phase"], "Active");
    assert_eq!(made.labels.get("kubernetes.io/metadata.name"), Some("a"));
    assert!(matches!(
        shop.delete("namespaces//a").await.unwrap(),
        Outcome::Changed(_)
    ));
    let mut dying = shop.get("namespaces//a").await.unwrap();
    assert_eq!(dying["status"]["phase"], "Terminating");
    // The front door does not take finalizers away.
    dying["spec"]["finalizers"] = json!([]);
    shop.update("namespaces//a", &dying).await.unwrap();
    let mut dying = shop.get("namespaces//a").await.unwrap();
    dying["spec"]["finalizers"] = json!([]);
    shop.update("namespaces//a/finalize", &dying).await.unwrap();
    assert!(matches!(shop.get("namespaces//a").await, Err(Failure::NotFound(_))));
}
