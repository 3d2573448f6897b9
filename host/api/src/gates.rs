//! Where the house's traits meet: `auth` behind the registry's gates, the registry behind this door's.
//!
//! `auth` knows no registry and the registry no `auth`; this crate knows both. The wrappers carry no decision.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use auth::token::{Claim, Named, Tokens};
use auth::{Ask, Rbac, What, audit};
use client::Target;
use jiff::Timestamp;
use model::{Caller, Failure, Gvr, Object};
use registry::gates::{Attributes, Audit, AuditEvent, Authorize, Decision, SignToken, SignedToken, TokenAsked};
use registry::{Column, Registry};
use serde_json::{Value, json};

use crate::tables::{NameAndAge, Printer, Tables};

/// RBAC as the registry asks it.
pub struct RbacGate(pub Arc<Rbac>);

#[async_trait]
impl Authorize for RbacGate {
    async fn authorize(&self, what: &Attributes<'_>) -> Decision {
        let asked = What::Resource {
            group: what.group,
            resource: what.resource,
            subresource: what.subresource,
            namespace: what.namespace,
            name: what.name,
        };
        let ask = Ask {
            user: what.caller.user(),
            verb: what.verb,
            what: asked,
        };
        if self.0.allows(&ask) {
            Decision::Allow
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

/// Token signing as the registry asks for it.
pub struct TokenGate(pub Arc<Tokens>);

#[async_trait]
impl SignToken for TokenGate {
    async fn sign(&self, asked: &TokenAsked) -> Result<SignedToken, Failure> {
        let mut claim = Claim {
            namespace: asked.namespace.clone(),
            account: Named {
                name: asked.service_account.clone(),
                uid: asked.service_account_uid.clone(),
            },
            audiences: asked.audiences.clone(),
            lifetime: asked.lifetime,
            ..Claim::default()
        };
        if let Some(bound) = &asked.bound {
            let named = Some(Named {
                name: bound.name.clone(),
                uid: bound.uid.clone(),
            });
            match bound.kind.as_str() {
                "Pod" => {
                    claim.pod = named;
                    claim.node = bound.node.clone().map(|name| Named {
                        name,
                        uid: String::new(),
                    });
                }
                "Secret" => claim.secret = named,
                "Node" => claim.node = named,
                other => {
                    return Err(Failure::BadRequest(format!(
                        "cannot bind token for serviceaccount \"{}\" to a {other}",
                        asked.service_account
                    )));
                }
            }
        }
        let now = SystemTime::now();
        let signed = self.0.sign(&claim, now, crate::new_id())?;
        let expires = signed
            .expires
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let expires = Timestamp::from_second(expires.as_secs() as i64).map_err(Failure::internal)?;
        Ok(SignedToken {
            token: signed.token,
            audiences: signed.audiences,
            expires,
        })
    }
}

/// The audit log as the registry feeds it: every request that reached it, from any door.
pub struct AuditGate(pub Arc<dyn audit::Sink>);

impl Audit for AuditGate {
    fn record(&self, event: &AuditEvent<'_>) {
        let Target {
            gvr,
            namespace,
            name,
            subresource,
        } = event.target;
        let took = jiff::SignedDuration::try_from(event.took).unwrap_or(jiff::SignedDuration::ZERO);
        let code = match event.outcome {
            Ok(_) if event.verb == "create" => 201,
            Ok(_) => 200,
            Err(failure) => crate::reject::status(failure).0,
        };
        self.0.record(&audit::Event {
            audit_id: crate::new_id(),
            stage: "ResponseComplete",
            request_uri: uri(event.target),
            verb: event.verb.to_owned(),
            user: event.caller.user().clone(),
            impersonated_user: None,
            source_ips: Vec::new(),
            user_agent: event.caller.agent().to_owned(),
            object_ref: Some(audit::ObjectRef {
                resource: gvr.resource.to_string(),
                namespace: namespace.clone(),
                name: name.clone(),
                api_group: gvr.group.to_string(),
                api_version: gvr.version.to_string(),
                subresource: subresource.clone(),
            }),
            response_status: audit::ResponseStatus { code },
            request_received_timestamp: event.received,
            stage_timestamp: event.received.saturating_add(took).unwrap_or(event.received),
        });
    }
}

fn uri(target: &Target) -> String {
    let Target {
        gvr,
        namespace,
        name,
        subresource,
    } = target;
    let mut uri = match gvr.group.as_str() {
        "" => format!("/api/{}", gvr.version),
        group => format!("/apis/{group}/{}", gvr.version),
    };
    if !namespace.is_empty() {
        uri += &format!("/namespaces/{namespace}");
    }
    for part in [gvr.resource.as_str(), name, subresource] {
        if !part.is_empty() {
            uri.push('/');
            uri += part;
        }
    }
    uri
}

/// Admission of a connection to a node or into a pod.
#[async_trait]
pub trait AdmitConnection: Send + Sync + 'static {
    /// `verb` is what the caller has to be allowed. Returns warnings for the caller.
    ///
    /// # Errors
    /// Whatever admission refuses with.
    async fn admit(
        &self,
        caller: &Caller,
        verb: &str,
        target: &Target,
        options: &Value,
    ) -> Result<Vec<String>, Failure>;
}

/// Lets every connection through.
pub struct AnyConnection;

#[async_trait]
impl AdmitConnection for AnyConnection {
    async fn admit(&self, _: &Caller, _: &str, _: &Target, _: &Value) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl AdmitConnection for Registry {
    async fn admit(
        &self,
        caller: &Caller,
        verb: &str,
        target: &Target,
        options: &Value,
    ) -> Result<Vec<String>, Failure> {
        Ok(self.admit_connect(caller, verb, target, options).await?.warnings)
    }
}

impl Tables for Registry {
    fn printer(&self, of: &Gvr) -> Arc<dyn Printer> {
        match self.resource(of) {
            Some(resource) => Arc::new(Columns(resource.columns.clone())),
            None => NameAndAge.printer(of),
        }
    }

    fn scale(&self) -> Arc<dyn Printer> {
        Arc::new(Columns(registry::scale_columns()))
    }
}

/// A kind's own columns.
struct Columns(Vec<Column>);

impl Printer for Columns {
    fn definitions(&self) -> Vec<Value> {
        let definition = |column: &Column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        };
        self.0.iter().map(definition).collect()
    }

    fn row(&self, object: &Object) -> Vec<Value> {
        registry::table::row(&self.0, object, Timestamp::now())
    }
}
