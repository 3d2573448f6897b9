//! Questions about rights and tokens that clients ask as objects: `authorization.k8s.io` and `authentication.k8s.io`.
//!
//! Each takes the object that was posted and gives it back with its `status`. Nothing is stored.

use std::collections::BTreeMap;

use model::{Cause, Failure, Gvk, UserInfo};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::authenticate::Authenticators;
use crate::rbac::{Ask, PolicyRule, Rbac, What};

/// The kinds answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Review {
    SelfSubjectAccess,
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectRules,
    SelfSubject,
    Token,
}

impl Review {
    pub const ALL: [Review; 6] = [
        Review::SelfSubject,
        Review::Token,
        Review::LocalSubjectAccess,
        Review::SelfSubjectAccess,
        Review::SelfSubjectRules,
        Review::SubjectAccess,
    ];

    pub fn gvk(self) -> Gvk {
        let (group, kind) = match self {
            Review::SelfSubjectAccess => ("authorization.k8s.io", "SelfSubjectAccessReview"),
            Review::SubjectAccess => ("authorization.k8s.io", "SubjectAccessReview"),
            Review::LocalSubjectAccess => ("authorization.k8s.io", "LocalSubjectAccessReview"),
            Review::SelfSubjectRules => ("authorization.k8s.io", "SelfSubjectRulesReview"),
            Review::SelfSubject => ("authentication.k8s.io", "SelfSubjectReview"),
            Review::Token => ("authentication.k8s.io", "TokenReview"),
        };
        Gvk::new(group, "v1", kind)
    }

    /// Whether the URL names a namespace.
    pub fn namespaced(self) -> bool {
        self == Review::LocalSubjectAccess
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenSpec {
    token: String,
    audiences: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RulesSpec {
    namespace: String,
}

/// Answers a review that `caller` posted (in `namespace`, for the local one).
///
/// # Errors
/// `Invalid` for a review that asks nothing or two things at once, `BadRequest` for one of another shape.
pub async fn answer(
    review: Review,
    mut document: Value,
    caller: &UserInfo,
    namespace: &str,
    rbac: &Rbac,
    authenticators: &Authenticators,
) -> Result<Value, Failure> {
    let status = match review {
        Review::SelfSubject => json!({"userInfo": caller}),
        Review::Token => token(read(review, &document)?, authenticators).await?,
        Review::SelfSubjectRules => rules(read(review, &document)?, caller, rbac)?,
        Review::SelfSubjectAccess => access(review, &read(review, &document)?, caller, rbac)?,
        Review::SubjectAccess | Review::LocalSubjectAccess => {
            let spec: AccessSpec = read(review, &document)?;
            if review == Review::LocalSubjectAccess {
                let asked = spec.resource_attributes.as_ref().map_or("", |a| &a.namespace);
                if asked != namespace {
                    let detail = format!("must match metadata.namespace (\"{namespace}\")");
                    return Err(invalid(
                        review,
                        Cause::invalid("spec.resourceAttributes.namespace", format!("\"{asked}\""), &detail),
                    ));
                }
            }
            if spec.user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) {
                return Err(invalid(
                    review,
                    Cause::required("spec.user", "at least one of user or group must be specified"),
                ));
            }
            let user = UserInfo {
                name: spec.user.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone().unwrap_or_default(),
                extra: spec.extra.clone().unwrap_or_default(),
            };
            access(review, &spec, &user, rbac)?
        }
    };
    document["status"] = status;
    Ok(document)
}

fn read<T: for<'de> Deserialize<'de> + Default>(review: Review, document: &Value) -> Result<T, Failure> {
    match document.get("spec") {
        None | Some(Value::Null) => Ok(T::default()),
        Some(spec) => T::deserialize(spec).map_err(|error| {
            let gvk = review.gvk();
            Failure::BadRequest(format!(
                "{} in version \"{}\" cannot be handled as a {}: {error}",
                gvk.kind, gvk.version, gvk.kind
            ))
        }),
    }
}

fn invalid(review: Review, cause: Cause) -> Failure {
    Failure::Invalid {
        kind: review.gvk(),
        name: String::new(),
        causes: vec![cause],
    }
}

fn access(review: Review, spec: &AccessSpec, user: &UserInfo, rbac: &Rbac) -> Result<Value, Failure> {
    let (verb, what) = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(a), None) => {
            let what = What::Resource {
                group: &a.group,
                resource: &a.resource,
                subresource: &a.subresource,
                namespace: &a.namespace,
                name: &a.name,
            };
            (&a.verb, what)
        }
        (None, Some(a)) => (&a.verb, What::Path(&a.path)),
        (Some(_), Some(_)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            return Err(invalid(
                review,
                Cause::invalid("spec.nonResourceAttributes", "object", detail),
            ));
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(invalid(
                review,
                Cause::invalid("spec.resourceAttributes", "null", detail),
            ));
        }
    };
    let ask = Ask { user, verb, what };
    Ok(match rbac.read(|policy| policy.explain(&ask)) {
        Some(reason) if reason.is_empty() => json!({"allowed": true}),
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    })
}

fn rules(spec: RulesSpec, caller: &UserInfo, rbac: &Rbac) -> Result<Value, Failure> {
    if spec.namespace.is_empty() {
        return Err(Failure::BadRequest("no namespace on request".into()));
    }
    let mut held = rbac.read(|policy| policy.rules_for(caller, &spec.namespace));
    held.sort();
    held.dedup();
    let (urls, resources): (Vec<PolicyRule>, Vec<PolicyRule>) =
        held.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    Ok(json!({"resourceRules": resources, "nonResourceRules": urls, "incomplete": false}))
}

async fn token(spec: TokenSpec, authenticators: &Authenticators) -> Result<Value, Failure> {
    if spec.token.is_empty() {
        return Err(Failure::BadRequest(
            "token is required for TokenReview in authentication".into(),
        ));
    }
    Ok(
        match authenticators
            .token(&spec.token, &spec.audiences.unwrap_or_default())
            .await
        {
            Ok(good) => {
                json!({"authenticated": true, "user": *good.user, "audiences": good.audiences})
            }
            Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
        },
    )
}
