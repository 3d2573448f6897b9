//! The gates: nobody passes without being asked, and everything asked is told to the audit.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use client::{Action, Cluster, Collection, DeleteOptions, ListOptions, PatchKind, ReadVersion, WatchOptions};
use model::{Failure, Object};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::support::*;
use crate::gates::{
    Admit, Attributes, Audit, AuditEvent, Authorize, Charge, Decision, Figures, Interest, Notes, Operation, Request,
    SignToken, SignedToken, TokenAsked,
};

/// Writes down what it is asked, and refuses what names `forbidden`.
#[derive(Default)]
struct Book(Mutex<Vec<String>>);

impl Book {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

#[async_trait]
impl Authorize for Book {
    async fn authorize(&self, what: &Attributes<'_>) -> Decision {
        if what.caller.user().name != "tester" {
            return Decision::Allow;
        }
        let sub = if what.subresource.is_empty() {
            String::new()
        } else {
            format!("/{}", what.subresource)
        };
        self.0.lock().push(format!(
            "{} {}{sub} {}/{}",
            what.verb, what.resource, what.namespace, what.name
        ));
        if what.name == "forbidden" {
            Decision::NoOpinion("no rule".into())
        } else {
            Decision::Allow
        }
    }
}

impl Audit for Book {
    fn record(&self, event: &AuditEvent<'_>) {
        if event.caller.user().name == "tester" {
            let outcome = event.outcome.as_ref().map_or_else(|f| format!("{f}"), |_| "ok".into());
            let notes: Vec<String> = event.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
            self.0.lock().push(format!(
                "{} {}: {outcome}{}",
                event.verb,
                event.target.name,
                notes.join(" ")
            ));
        }
    }
}

/// Adds a label, refuses objects labelled `bad`, and charges a quota for each ConfigMap.
struct Chain;

#[async_trait]
impl Admit for Chain {
    fn wants(&self, request: &Interest<'_>) -> bool {
        request.kind.plural == "configmaps"
    }

    async fn mutate(
        &self,
        request: &Request<'_>,
        object: Option<&mut Value>,
        notes: &mut Notes,
    ) -> Result<(), Failure> {
        let Some(object) = object else { return Ok(()) };
        assert!(!request.target.name.is_empty(), "the name is known by now");
        object["metadata"]["labels"]["seen"] = request.operation.as_str().into();
        object["metadata"]["uid"] = "of the plugin's own choice".into();
        notes.annotations.insert("chain/seen".into(), "yes".into());
        if request.operation == Operation::Create {
            let add = BTreeMap::from([("configmaps".to_owned(), "1".to_owned())]);
            notes.charges.push(Charge {
                namespace: request.target.namespace.clone(),
                quota: "q".into(),
                add,
            });
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, object: Option<&Value>, notes: &mut Notes) -> Result<(), Failure> {
        let Some(object) = object.or(request.old) else {
            return Ok(());
        };
        if object["metadata"]["labels"]["bad"] == "yes" && request.operation != Operation::Create {
            let reason = "admission \"chain\" denied the request".to_owned();
            let key = model::ObjectKey::new(
                request.kind.group_resource(),
                &request.target.namespace,
                &request.target.name,
            );
            return Err(Failure::Denied {
                by: "chain".into(),
                object: key,
                reason,
                code: 403,
            });
        }
        notes.warnings.push("looked at".into());
        Ok(())
    }
}

fn config(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
}

#[tokio::test]
async fn every_door_asks_and_is_recorded() {
    let (asked, told) = (Arc::new(Book::default()), Arc::new(Book::default()));
    let mut options = options();
    options.authorize = asked.clone();
    options.audit = told.clone();
    let registry = open_with(options).await;
    let shop = Shop(&registry);
    asked.take();
    told.take();
    let deployments = gvr("apps/v1/deployments");
    let caller = caller();
    let _ = shop.get("pods/default/forbidden").await;
    let _ = registry
        .list(&caller, &Collection::all(deployments.clone()), &ListOptions::default())
        .await
        .unwrap();
    let _ = registry
        .watch(&caller, &Collection::all(deployments), &WatchOptions::default())
        .await
        .unwrap();
    let _ = shop
        .act("pods/default/forbidden/binding", Action::Create(bytes(&json!({}))))
        .await;
    let _ = shop.delete("pods/default/forbidden").await;
    let _ = shop
        .patch("pods/default/forbidden/status", PatchKind::Merge, json!({}))
        .await;
    let all = Action::DeleteCollection {
        delete: DeleteOptions::default(),
        labels: String::new(),
        fields: String::new(),
    };
    let _ = shop.act("pods/default", all).await.unwrap();
    let apply = json!({"apiVersion": "v1", "kind": "Pod"});
    let _ = shop
        .patch("pods/default/forbidden", PatchKind::Apply { force: false }, apply)
        .await;
    assert_eq!(
        asked.take(),
        [
            "get pods default/forbidden",
            "list deployments /",
            "watch deployments /",
            "create pods/binding default/forbidden",
            "delete pods default/forbidden",
            "patch pods/status default/forbidden",
            "deletecollection pods default/",
            "patch pods default/forbidden",
        ]
    );
    let told = told.take();
    assert_eq!(told.len(), 8);
    assert_eq!(
        told[0],
        "get forbidden: pods \"forbidden\" is forbidden: User \"tester\" cannot get resource \"pods\" in API group \"\" in the namespace \"default\": no rule"
    );
}

#[tokio::test]
async fn admission_changes_refuses_warns_and_charges() {
    let told = Arc::new(Book::default());
    let mut options = options();
    options.admit = Arc::new(Chain);
    options.audit = told.clone();
    let registry = open_with(options).await;
    let shop = Shop(&registry);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "2"}}});
    shop.create("resourcequotas/default", quota).await.unwrap();
    let status = json!({"status": {"hard": {"configmaps": "2"}, "used": {"configmaps": "0"}}});
    shop.patch("resourcequotas/default/q/status", PatchKind::Merge, status)
        .await
        .unwrap();
    told.take();

    let create = |name: &str, labels| Action::Create(bytes(&config(name, labels)));
    let done = shop
        .act("configmaps/default", create("a", json!({"bad": "yes"})))
        .await
        .unwrap();
    let made = done.outcome.object().unwrap().value();
    assert_eq!(
        (&made["metadata"]["labels"]["seen"], done.warnings),
        (&json!("CREATE"), vec!["looked at".to_owned()])
    );
    assert!(
        made["metadata"]["uid"].as_str().unwrap().starts_with("uid-"),
        "the uid is the registry's"
    );
    assert_eq!(told.take(), ["create : okchain/seen=yes"]);
    let refused = shop
        .patch("configmaps/default/a", PatchKind::Merge, json!({"data": {"a": "b"}}))
        .await
        .unwrap_err();
    assert!(matches!(&refused, Failure::Denied { code: 403, .. }), "{refused}");
    assert!(shop.delete("configmaps/default/a").await.is_err());

    // A create that fails after the charge gives it back; a dry run takes nothing.
    let used = || async { shop.get("resourcequotas/default/q").await.unwrap()["status"]["used"]["configmaps"].clone() };
    assert_eq!(used().await, "1");
    assert!(matches!(
        shop.act("configmaps/default", create("a", json!({}))).await,
        Err(Failure::AlreadyExists(_))
    ));
    assert_eq!(used().await, "1");
    shop.act("configmaps/default", create("b", json!({}))).await.unwrap();
    let over = shop
        .act("configmaps/default", create("c", json!({})))
        .await
        .unwrap_err();
    assert!(
        over.to_string()
            .ends_with("exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"),
        "{over}"
    );
    assert!(shop.get("configmaps/default/c").await.is_err());
}

struct Signer;

#[async_trait]
impl SignToken for Signer {
    async fn sign(&self, asked: &TokenAsked) -> Result<SignedToken, Failure> {
        Ok(SignedToken {
            token: format!(
                "{}:{}:{:?}",
                asked.namespace,
                asked.service_account,
                asked.bound.as_ref().map(|b| &b.name)
            ),
            audiences: vec!["api".into()],
            expires: "2026-01-02T13:00:00Z".parse().unwrap(),
        })
    }
}

#[tokio::test]
async fn tokens_are_signed_and_bound() {
    let mut options = options();
    options.sign_token = Some(Arc::new(Signer));
    let registry = open_with(options).await;
    let shop = Shop(&registry);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    shop.create("serviceaccounts/default", account).await.unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "a", "containers": [{"name": "c", "image": "i"}]}});
    shop.create("pods/default", pod).await.unwrap();
    let ask = |spec: Value| {
        Action::Create(bytes(
            &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}),
        ))
    };
    let bound = json!({"audiences": [], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
    let done = shop.act("serviceaccounts/default/a/token", ask(bound)).await.unwrap();
    let client::Outcome::Document { json, .. } = done.outcome else {
        panic!()
    };
    let token: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        token["status"],
        json!({"token": "default:a:Some(\"p\")", "expirationTimestamp": "2026-01-02T13:00:00Z"})
    );
    let short = shop
        .act(
            "serviceaccounts/default/a/token",
            ask(json!({"audiences": [], "expirationSeconds": 5})),
        )
        .await
        .unwrap_err();
    assert!(
        short
            .to_string()
            .contains("may not specify a duration less than 10 minutes"),
        "{short}"
    );
    let wrong =
        json!({"audiences": [], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "other"}});
    assert!(matches!(
        shop.act("serviceaccounts/default/a/token", ask(wrong)).await,
        Err(Failure::Conflict { .. })
    ));
}

struct Counted;

impl Figures for Counted {
    fn of(&self, _object: &Object) -> Option<serde_json::Map<String, Value>> {
        json!({"calls": 7, "p99Nanos": 1500}).as_object().cloned()
    }
}

#[tokio::test]
async fn figures_are_laid_over_what_is_read_and_never_stored() {
    let mut options = options();
    let plugins = gvr("plugins.pilotis.dev/v1alpha1/plugins");
    options.figures.insert(plugins.group_resource(), Arc::new(Counted));
    let registry = open_with(options).await;
    let shop = Shop(&registry);
    let plugin = json!({"apiVersion": "plugins.pilotis.dev/v1alpha1", "kind": "Plugin", "metadata": {"name": "p"},
        "spec": {"source": {"embedded": "scheduler-default"}}});
    let made = shop
        .create("plugins.pilotis.dev/v1alpha1/plugins", plugin.clone())
        .await
        .unwrap();
    assert_eq!(made.value()["status"], json!({"state": "Pending"}));
    let target = target("plugins.pilotis.dev/v1alpha1/plugins//p");
    let read = registry.get(&caller(), &target, ReadVersion::Latest).await.unwrap();
    assert_eq!(
        (&read.value()["status"]["calls"], read.version),
        (&json!(7), made.version)
    );
    let row = registry.resource(&plugins).unwrap().table(&read, registry.now());
    assert_eq!(
        row[..7],
        [
            json!("p"),
            json!(""),
            json!(""),
            json!("Pending"),
            json!(7),
            json!(0),
            json!("1.5µs")
        ]
    );
    let list = shop
        .list("plugins.pilotis.dev/v1alpha1/plugins", ListOptions::default())
        .await
        .unwrap();
    assert_eq!(list.items[0].value()["status"]["calls"], 7);
    let mut two = plugin;
    two["spec"]["source"]["file"] = "/x.wasm".into();
    two["metadata"]["name"] = "q".into();
    let failure = shop
        .create("plugins.pilotis.dev/v1alpha1/plugins", two)
        .await
        .unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("only one of embedded, file and oci may be given"),
        "{failure}"
    );
}
