//! What the served kinds are made of, for machines: `/openapi/v2` and `/openapi/v3`, from the schema table and the CRDs.

mod custom;
mod definitions;
mod paths;
mod prose;
mod proto;
mod structural;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use model::{Failure, Gvk, Kind};
use schema::Table;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use self::definitions::Definitions;
use crate::kinds::Served;
use crate::reject::Reject;
use crate::{App, GIT_VERSION, negotiate, respond};

/// Documents by path. What is built in never changes while the program runs; a CRD's document is kept under the hash of
/// the CRDs it came from.
#[derive(Default)]
pub(crate) struct Cache(Mutex<HashMap<String, (String, Bytes)>>);

impl Cache {
    fn get(&self, path: &str, hash: &str) -> Option<Bytes> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(path)
            .filter(|(kept, _)| kept == hash)
            .map(|(_, bytes)| bytes.clone())
    }

    fn put(&self, path: &str, hash: &str, bytes: Bytes) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(path.to_owned(), (hash.to_owned(), bytes));
    }
}

/// The references to other definitions, and the few spellings in which versions 2 and 3 differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

/// One group and version: its kinds, and what the CRDs among them say.
struct Group {
    kinds: Vec<Arc<Kind>>,
    hash: String,
}

/// By path below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
fn groups(served: &Served, custom: &custom::Schemas) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Vec<Arc<Kind>>> = BTreeMap::new();
    for kind in &served.kinds {
        groups.entry(path_of(&kind.gvk)).or_default().push(kind.clone());
    }
    let hashed = |(path, kinds): (String, Vec<Arc<Kind>>)| {
        let mut hash = Sha256::new();
        hash.update(GIT_VERSION);
        for kind in &kinds {
            hash.update(format!("{kind:?}"));
            if let Some(fingerprint) = custom.fingerprint(kind) {
                hash.update(fingerprint);
            }
        }
        (
            path,
            Group {
                kinds,
                hash: format!("{:X}", hash.finalize()),
            },
        )
    };
    groups.into_iter().map(hashed).collect()
}

fn path_of(gvk: &Gvk) -> String {
    match gvk.group.as_str() {
        "" => format!("api/{}", gvk.version),
        group => format!("apis/{group}/{}", gvk.version),
    }
}

/// Definitions of kinds, built in or custom, and of all that they are made of.
fn components(kinds: &[Arc<Kind>], custom: &custom::Schemas, dialect: Dialect) -> Map<String, Value> {
    let mut definitions = Definitions::new(dialect);
    for kind in kinds {
        if let Some(schema) = Table::builtin().schema(&kind.gvk) {
            definitions.add_kind(&schema, kind);
        } else {
            definitions.add_custom(kind, custom.schema(kind));
        }
    }
    definitions.finish()
}

fn document(kinds: &[Arc<Kind>], custom: &custom::Schemas, dialect: Dialect) -> Value {
    let info = json!({"title": "Kubernetes", "version": GIT_VERSION});
    let paths: Map<String, Value> = kinds.iter().flat_map(|kind| paths::of(kind, dialect)).collect();
    let components = components(kinds, custom, dialect);
    match dialect {
        Dialect::V2 => {
            json!({"swagger": "2.0", "info": info, "paths": paths, "definitions": components})
        }
        Dialect::V3 => {
            json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": components}})
        }
    }
}

/// `/openapi/v3`: which documents there are.
pub(crate) async fn v3_index(State(app): State<Arc<App>>) -> Result<Response, Reject> {
    let custom = custom::read(&app).await?;
    let groups = groups(&app.served(), &custom);
    let paths: Map<String, Value> = groups
        .into_iter()
        .map(|(path, group)| {
            let url = format!("/openapi/v3/{path}?hash={}", group.hash);
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    Ok(respond::as_json(json!({"paths": paths}).to_string().into()))
}

/// `/openapi/v3/apis/apps/v1`: one group and version.
pub(crate) async fn v3(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Reject> {
    negotiate::accepted(&headers, false)?;
    let path = uri
        .path()
        .trim_start_matches("/openapi/v3/")
        .trim_end_matches('/')
        .to_owned();
    let custom = custom::read(&app).await?;
    let mut groups = groups(&app.served(), &custom);
    let no_such = || Failure::NoSuchResource {
        asked: uri.path().to_owned(),
    };
    let group = groups.remove(&path).ok_or_else(no_such)?;
    let bytes = match app.openapi.get(&path, &group.hash) {
        Some(bytes) => bytes,
        None => {
            let bytes = Bytes::from(document(&group.kinds, &custom, Dialect::V3).to_string());
            app.openapi.put(&path, &group.hash, bytes.clone());
            bytes
        }
    };
    let mut response = tagged(bytes, &group.hash, &headers);
    if uri.query().is_some_and(|query| query.contains(&group.hash)) {
        // The address names the content, so it never changes.
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    Ok(response)
}

/// `/openapi/v2`: everything in one document, as JSON or, as client-go asks for it, as protobuf.
pub(crate) async fn v2(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Reject> {
    let accept = negotiate::text(&headers, header::ACCEPT);
    let protobuf = proto::MEDIA.into_iter().any(|media| accept.contains(media));
    if !protobuf {
        negotiate::accepted(&headers, false)?;
    }
    let custom = custom::read(&app).await?;
    let served = app.served();
    let all = groups(&served, &custom);
    let hash = format!(
        "{:X}",
        all.values()
            .fold(Sha256::new(), |hash, group| hash.chain_update(&group.hash))
            .finalize()
    );
    let key = if protobuf { "v2 protobuf" } else { "v2" };
    let bytes = match app.openapi.get(key, &hash) {
        Some(bytes) => bytes,
        None => {
            let document = document(&served.kinds, &custom, Dialect::V2);
            let bytes = if protobuf {
                proto::document(&document)
            } else {
                document.to_string().into_bytes()
            };
            let bytes = Bytes::from(bytes);
            app.openapi.put(key, &hash, bytes.clone());
            bytes
        }
    };
    let mut response = tagged(bytes, &hash, &headers);
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("Accept"));
    if protobuf {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(proto::ANSWERED));
    }
    Ok(response)
}

fn tagged(bytes: Bytes, hash: &str, headers: &HeaderMap) -> Response {
    let etag = format!("\"{hash}\"");
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == etag.as_bytes());
    let mut response = respond::as_json(if known { axum::body::Body::empty() } else { bytes.into() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
