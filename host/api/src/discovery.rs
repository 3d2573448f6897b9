//! Which groups, versions and kinds there are: `/api`, `/apis` and below, plain and aggregated (KEP-3352).

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use indexmap::IndexMap;
use model::{Failure, Gvk, Kind, Subresource, Verb};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::filters::Asked;
use crate::reject::Reject;
use crate::{App, negotiate};

/// All of discovery, encoded once per change of the kinds.
pub(crate) struct Documents {
    /// By path: `/api`, `/api/v1`, `/apis`, `/apis/apps`, `/apis/apps/v1`.
    plain: IndexMap<String, Bytes>,
    core: Aggregated,
    groups: Aggregated,
}

struct Aggregated {
    v2: Bytes,
    v2beta1: Bytes,
    /// Of the v2 bytes: clients that hold them already are told so (304).
    etag: String,
}

type Versions<'a> = IndexMap<&'a str, Vec<&'a Kind>>;

impl Documents {
    pub(crate) fn of(kinds: &[Arc<Kind>]) -> Self {
        let mut groups: IndexMap<&str, Versions<'_>> = IndexMap::new();
        groups.entry("").or_default().entry("v1").or_default();
        for kind in kinds {
            groups
                .entry(&kind.gvk.group)
                .or_default()
                .entry(&kind.gvk.version)
                .or_default()
                .push(kind);
        }
        for versions in groups.values_mut() {
            versions.sort_by(|a, _, b, _| by_preference(a, b));
        }
        let core = groups.shift_remove("").unwrap_or_default();

        let mut plain = IndexMap::new();
        let mut add = |path: String, document: Value| {
            plain.insert(path, Bytes::from(document.to_string()));
        };
        let versions: Vec<&&str> = core.keys().collect();
        add(
            "/api".into(),
            json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": []}),
        );
        for (version, kinds) in &core {
            add(format!("/api/{version}"), resource_list(version, kinds));
        }
        let list: Vec<Value> = groups.iter().map(|(name, versions)| group(name, versions)).collect();
        add(
            "/apis".into(),
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}),
        );
        for (name, versions) in &groups {
            let mut one = group(name, versions);
            one["kind"] = "APIGroup".into();
            one["apiVersion"] = "v1".into();
            add(format!("/apis/{name}"), one);
            for (version, kinds) in versions {
                let group_version = format!("{name}/{version}");
                add(format!("/apis/{group_version}"), resource_list(&group_version, kinds));
            }
        }
        let core = IndexMap::from([("", core)]);
        Self {
            plain,
            core: aggregated(&core),
            groups: aggregated(&groups),
        }
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, higher numbers first, anything else last by name.
fn by_preference(a: &str, b: &str) -> std::cmp::Ordering {
    let rank = |version: &str| {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let (stability, minor) = match &rest[digits..] {
            "" => (2, 0),
            beta if beta.starts_with("beta") => (1, beta[4..].parse().ok()?),
            alpha if alpha.starts_with("alpha") => (0, alpha[5..].parse().ok()?),
            _ => return None,
        };
        Some((stability, major, minor))
    };
    rank(b).cmp(&rank(a)).then_with(|| a.cmp(b))
}

fn group(name: &str, versions: &Versions<'_>) -> Value {
    let of = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<Value> = versions.keys().map(of).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn resource_list(group_version: &str, kinds: &[&Kind]) -> Value {
    let mut resources = Vec::new();
    for kind in kinds {
        let mut one = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced(),
            "kind": kind.gvk.kind,
            "verbs": verbs(&kind.verbs),
        });
        if !kind.short_names.is_empty() {
            one["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            one["categories"] = json!(kind.categories);
        }
        if let Some(stored) = &kind.stored {
            one["storageVersionHash"] = storage_version_hash(stored).into();
        }
        resources.push(one);
        for sub in &kind.subresources {
            let mut one = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced(),
                "kind": sub_kind(kind, sub),
                "verbs": verbs(&sub.verbs),
            });
            if let Some(gvk) = sub.kind.as_ref().filter(|gvk| gvk.api_version() != group_version) {
                one["group"] = gvk.group.as_str().into();
                one["version"] = gvk.version.as_str().into();
            }
            resources.push(one);
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// Changes when objects begin to be stored as another version (KEP-2339, the storage version API, has the rule).
fn storage_version_hash(stored: &Gvk) -> String {
    let hash = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

fn sub_kind<'a>(kind: &'a Kind, sub: &'a Subresource) -> &'a str {
    sub.kind.as_ref().map_or(&kind.gvk.kind, |gvk| &gvk.kind)
}

fn aggregated(groups: &IndexMap<&str, Versions<'_>>) -> Aggregated {
    let document = |api_version: &str| {
        let items: Vec<Value> = groups
            .iter()
            .map(|(name, versions)| {
                let metadata = if name.is_empty() {
                    json!({})
                } else {
                    json!({"name": name})
                };
                let version = |(version, kinds): (&&str, &Vec<&Kind>)| {
                    let resources: Vec<Value> = kinds.iter().map(|kind| aggregated_kind(kind)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                };
                json!({"metadata": metadata, "versions": versions.iter().map(version).collect::<Vec<_>>()})
            })
            .collect();
        let api_version = format!("apidiscovery.k8s.io/{api_version}");
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}).to_string()
    };
    let v2 = document("v2");
    let etag = format!("\"{:X}\"", Sha256::digest(&v2));
    Aggregated {
        v2: v2.into(),
        v2beta1: document("v2beta1").into(),
        etag,
    }
}

fn aggregated_kind(kind: &Kind) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut one = json!({
        "resource": kind.plural,
        "responseKind": response(&kind.gvk.group, &kind.gvk.version, &kind.gvk.kind),
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(&kind.verbs),
    });
    if !kind.short_names.is_empty() {
        one["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        one["categories"] = json!(kind.categories);
    }
    let sub = |sub: &Subresource| {
        let gvk = sub.kind.as_ref().unwrap_or(&kind.gvk);
        json!({
            "subresource": sub.name,
            "responseKind": response(&gvk.group, &gvk.version, &gvk.kind),
            "verbs": verbs(&sub.verbs),
        })
    };
    if !kind.subresources.is_empty() {
        one["subresources"] = kind.subresources.iter().map(sub).collect();
    }
    one
}

/// Answers a discovery path.
///
/// # Errors
/// `NoSuchResource` for a group or version that is not served.
pub(crate) async fn answer(
    State(app): State<Arc<App>>,
    Extension(_): Extension<Asked>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    let served = app.served();
    let documents = &served.documents;
    let path = uri.path().trim_end_matches('/');
    let whole = match path {
        "/api" => Some(&documents.core),
        "/apis" => Some(&documents.groups),
        _ => None,
    };
    if let (Some(whole), Some(version)) = (whole, negotiate::aggregated_discovery(&headers)) {
        return Ok(aggregated_answer(whole, version, &headers));
    }
    let document = documents
        .plain
        .get(path)
        .ok_or_else(|| Failure::NoSuchResource { asked: path.to_owned() })?;
    let accepted = negotiate::accepted(&headers, true)?;
    let mut response = crate::respond::document(accepted.format, document.clone())?;
    vary(&mut response);
    Ok(response)
}

/// `/`: what there is to read, as `kubectl get --raw /` shows it.
pub(crate) async fn paths(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Reject> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/version",
    ];
    let mut paths: Vec<String> = fixed.map(String::from).into();
    paths.extend(app.served().documents.plain.keys().cloned());
    for page in ["/healthz", "/livez", "/readyz"] {
        paths.push(page.into());
        let checks = app.checks.iter().filter(|check| !check.ready_only || page == "/readyz");
        paths.extend(checks.map(|check| format!("{page}/{}", check.name)));
    }
    paths.sort();
    let accepted = negotiate::accepted(&headers, false)?;
    Ok(crate::respond::document(
        accepted.format,
        json!({"paths": paths}).to_string().into(),
    )?)
}

fn aggregated_answer(whole: &Aggregated, version: &str, headers: &HeaderMap) -> Response {
    let body = if version == "v2" {
        whole.v2.clone()
    } else {
        whole.v2beta1.clone()
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == whole.etag.as_bytes());
    let mut response = Response::new(if known { axum::body::Body::empty() } else { body.into() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let content = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::try_from(content).expect("ASCII"));
    answer.insert(
        header::ETAG,
        HeaderValue::try_from(whole.etag.as_str()).expect("hexadecimal"),
    );
    vary(&mut response);
    response
}

fn vary(response: &mut Response) {
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("Accept"));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_order_of_preference() {
        let mut versions = [
            "v1alpha1", "v2beta1", "v1", "nightly", "v2", "v10", "v1beta2", "v2beta2",
        ];
        versions.sort_by(|a, b| by_preference(a, b));
        assert_eq!(
            versions,
            [
                "v10", "v2", "v1", "v2beta2", "v2beta1", "v1beta2", "v1alpha1", "nightly"
            ]
        );
    }
}
