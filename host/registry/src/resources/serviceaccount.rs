//! ServiceAccount: who the processes in a pod are. `token` gives out short-lived tokens, bound to the pod that asks.

use client::{Outcome, ReadVersion};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Cause, Failure, Gvk, Gvr};
use serde_json::{Value, json};
use std::time::Duration;

use crate::Registry;
use crate::gates::{BoundObject, TokenAsked};
use crate::read;
use crate::resource::{Acting, Resource};
use crate::table::{Column, list_at, plain, text_at};

/// Tokens live at least this long, in seconds.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
const USUAL: i64 = 3600;

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .no_generation()
        .columns(vec![Column::age()])
        .act("token", Gvk::new("authentication.k8s.io", "v1", "TokenRequest"), token)
}

fn token<'a>(registry: &'a Registry, acting: Acting<'a>) -> BoxFuture<'a, Result<Outcome, Failure>> {
    async move {
        let Acting {
            job, target, mut body, ..
        } = acting;
        let Some(signer) = &registry.inner.options.sign_token else {
            return Err(Failure::Internal(
                "no key is configured to sign service-account tokens with".into(),
            ));
        };
        let account = read::find(
            registry,
            job.resource,
            &target.namespace,
            &target.name,
            ReadVersion::Latest,
        )
        .await?;
        let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or(USUAL);
        let mut wrong = Vec::new();
        let field = "spec.expirationSeconds";
        if seconds < SHORTEST {
            wrong.push(Cause::invalid(
                field,
                seconds,
                "may not specify a duration less than 10 minutes",
            ));
        } else if seconds > LONGEST {
            wrong.push(Cause::invalid(
                field,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
        if !wrong.is_empty() {
            let kind = Gvk::new("authentication.k8s.io", "v1", "TokenRequest");
            return Err(Failure::Invalid {
                kind,
                name: String::new(),
                causes: wrong,
            });
        }
        let asked = TokenAsked {
            namespace: target.namespace.clone(),
            service_account: target.name.clone(),
            service_account_uid: account.uid.to_string(),
            audiences: list_at(&body, "spec.audiences").iter().map(plain).collect(),
            lifetime: Duration::from_secs(seconds as u64),
            bound: bound(
                registry,
                &target.namespace,
                &target.name,
                &body["spec"]["boundObjectRef"],
            )
            .await?,
        };
        if job.options.dry_run {
            return Ok(Outcome::Document {
                json: body.to_string().into(),
                created: true,
            });
        }
        let signed = signer.sign(&asked).await?;
        body["spec"]["audiences"] = signed.audiences.into();
        body["spec"]["expirationSeconds"] = seconds.into();
        body["status"] = json!({"token": signed.token, "expirationTimestamp": model::time::seconds(signed.expires)});
        Ok(Outcome::Document {
            json: body.to_string().into(),
            created: true,
        })
    }
    .boxed()
}

/// The object that the token is to die with, found and compared.
async fn bound(
    registry: &Registry,
    namespace: &str,
    account: &str,
    reference: &Value,
) -> Result<Option<BoundObject>, Failure> {
    if reference.is_null() {
        return Ok(None);
    }
    let (kind, name, uid) = (
        text_at(reference, "kind"),
        text_at(reference, "name"),
        text_at(reference, "uid"),
    );
    let (plural, namespace) = match kind {
        "Pod" => ("pods", namespace),
        "Secret" => ("secrets", namespace),
        "Node" => ("nodes", ""),
        _ => {
            let says = format!("cannot bind token to object of type {kind:?}");
            return Err(Failure::BadRequest(says));
        }
    };
    let resource = registry.find(&Gvr::new("", "v1", plural))?;
    let object = read::find(registry, &resource, namespace, name, ReadVersion::Latest).await?;
    if !uid.is_empty() && object.uid.0 != uid {
        let reason = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Failure::Conflict {
            object: object.key.clone(),
            reason,
            causes: Vec::new(),
        });
    }
    let value = object.value();
    if kind == "Pod" && text_at(&value, "spec.serviceAccountName") != account {
        let says = format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        );
        return Err(Failure::BadRequest(says));
    }
    let node = text_at(&value, "spec.nodeName");
    Ok(Some(BoundObject {
        kind: kind.into(),
        api_version: "v1".into(),
        name: name.into(),
        uid: object.uid.to_string(),
        node: (kind == "Pod" && !node.is_empty()).then(|| node.into()),
    }))
}
