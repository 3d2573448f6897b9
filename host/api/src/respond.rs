//! Objects and lists on their way out: whole, as metadata only, or as a table; JSON, YAML or protobuf.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use client::List;
use http::{HeaderValue, StatusCode, header};
use model::{Failure, Gvk, Kind, Object, ResourceVersion};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::body::{self, Joined};
use crate::negotiate::{Accepted, Format, MetaVersion, View};
use crate::options::Query;
use crate::{App, computed, protobuf};

/// One object, or what a subresource answers.
///
/// # Errors
/// `Internal` if stored bytes are not what they ought to be.
pub(crate) fn object(
    app: &App,
    kind: &Kind,
    object: &Arc<Object>,
    accepted: Accepted,
    query: &Query,
) -> Result<Response, Failure> {
    match accepted.view {
        View::Whole if accepted.format == Format::Protobuf => Ok(as_protobuf(protobuf::enveloped(
            &object.gvk,
            protobuf::message(object)?,
        ))),
        View::Metadata(version) if accepted.format == Format::Protobuf => {
            let gvk = protobuf::partial(version, "PartialObjectMetadata");
            Ok(as_protobuf(protobuf::enveloped(&gvk, protobuf::metadata(object)?)))
        }
        View::Whole => document(accepted.format, object.json.clone()),
        View::Metadata(version) => document(accepted.format, metadata(&object.json, version)?.into()),
        View::Table(version) => {
            let head = head(object.version);
            let table = table(app, kind, std::slice::from_ref(object), head, version, query, true)?;
            document(accepted.format, table.into())
        }
    }
}

/// `ListMeta`. What was never stored has no version.
fn head(version: ResourceVersion) -> Value {
    if version == ResourceVersion::default() {
        return json!({});
    }
    json!({"resourceVersion": version.to_string()})
}

/// Longer lists than this are put together off the runtime's threads, where that means work for each item.
const FEW: usize = 256;

/// A list. Whole items are sent as they are stored: an envelope around their bytes.
///
/// # Errors
/// As [`object`].
pub(crate) async fn list(
    app: &Arc<App>,
    kind: &Arc<Kind>,
    list: List,
    accepted: Accepted,
    query: &Query,
) -> Result<Response, Failure> {
    if accepted == Accepted::default() || list.items.len() <= FEW {
        return list_now(app, kind, &list, accepted, query);
    }
    let (app, kind, query) = (app.clone(), kind.clone(), query.clone());
    let work = move || list_now(&app, &kind, &list, accepted, &query);
    tokio::task::spawn_blocking(work).await.map_err(Failure::internal)?
}

fn list_now(app: &App, kind: &Kind, list: &List, accepted: Accepted, query: &Query) -> Result<Response, Failure> {
    let mut head = head(list.version);
    if !list.continue_token.is_empty() {
        head["continue"] = list.continue_token.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        head["remainingItemCount"] = remaining.into();
    }
    if let View::Table(version) = accepted.view {
        return document(
            accepted.format,
            table(app, kind, &list.items, head, version, query, true)?.into(),
        );
    }
    let (kind, api_version) = match accepted.view {
        View::Metadata(version) => ("PartialObjectMetadataList".to_owned(), version.api_version().to_owned()),
        _ => (kind.list_kind(), kind.gvk.api_version()),
    };
    if accepted.format == Format::Protobuf {
        let message = |item: &Arc<Object>| match accepted.view {
            View::Metadata(_) => protobuf::metadata(item),
            _ => protobuf::message(item),
        };
        let items = list.items.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        let gvk = Gvk::from_api_version(&api_version, &kind);
        return Ok(as_protobuf(protobuf::list(&gvk, &head, items)?));
    }
    let mut whole = Joined::default();
    whole.push(format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{head},\"items\":[",
        json!(kind),
        json!(api_version)
    ));
    for (i, item) in list.items.iter().enumerate() {
        if i > 0 {
            whole.push(Bytes::from_static(b","));
        }
        match accepted.view {
            View::Metadata(version) => whole.push(metadata(&item.json, version)?),
            _ => whole.push(item.json.clone()),
        }
    }
    whole.push(Bytes::from_static(b"]}"));
    match accepted.format {
        Format::Json | Format::Protobuf => Ok(as_json(Body::new(whole))),
        Format::Yaml => document(Format::Yaml, whole.concat().into()),
    }
}

/// `PartialObjectMetadata` around an object's own metadata bytes.
///
/// # Errors
/// `Internal` if the document has no metadata.
pub(crate) fn metadata(object: &[u8], version: MetaVersion) -> Result<String, Failure> {
    let metadata = raw_metadata(object)?;
    let version = version.api_version();
    Ok(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{version}\",\"metadata\":{metadata}}}"
    ))
}

/// The bytes of an object's metadata.
///
/// # Errors
/// `Internal` if it has none.
pub(crate) fn raw_metadata(object: &[u8]) -> Result<&str, Failure> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let head: Head<'_> = serde_json::from_slice(object).map_err(Failure::internal)?;
    Ok(head.metadata.get())
}

/// `meta.k8s.io Table`. `columns` is false in the later frames of a watch.
///
/// # Errors
/// `BadRequest` for an `includeObject` that does not exist.
pub(crate) fn table(
    app: &App,
    kind: &Kind,
    objects: &[Arc<Object>],
    head: Value,
    version: MetaVersion,
    query: &Query,
    columns: bool,
) -> Result<String, Failure> {
    let printer = match objects {
        [scale] if *scale.gvk == Gvk::new("autoscaling", "v1", "Scale") => app.tables.scale(),
        _ => computed::printer(app, &kind.gvr()),
    };
    let definitions = if columns { printer.definitions() } else { Vec::new() };
    let api_version = version.api_version();
    let mut text =
        format!("{{\"kind\":\"Table\",\"apiVersion\":\"{api_version}\",\"metadata\":{head},\"columnDefinitions\":");
    text += &if columns {
        Value::from(definitions).to_string()
    } else {
        "null".into()
    };
    text += ",\"rows\":[";
    for (i, object) in objects.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let cells = Value::from(printer.row(object));
        text += &format!("{comma}{{\"cells\":{cells},\"object\":");
        match query.get("includeObject") {
            "" | "Metadata" => text += &metadata(&object.json, version)?,
            "Object" => text += std::str::from_utf8(&object.json).map_err(Failure::internal)?,
            "None" => text += "null",
            other => {
                return Err(Failure::BadRequest(format!(
                    "unrecognized includeObject value: \"{other}\""
                )));
            }
        }
        text.push('}');
    }
    text += "]}";
    Ok(text)
}

/// A JSON document in the form that was asked for, 200. One whose kind has no protobuf goes out as JSON.
///
/// # Errors
/// `Internal` if the bytes are not JSON.
pub(crate) fn document(format: Format, json: Bytes) -> Result<Response, Failure> {
    Ok(match format {
        Format::Json => as_json(Body::from(json)),
        Format::Yaml => typed(Body::from(body::yaml(&json)?), "application/yaml"),
        Format::Protobuf => match protobuf::document(&json)? {
            Some(whole) => as_protobuf(whole),
            None => as_json(Body::from(json)),
        },
    })
}

fn as_protobuf(whole: Joined) -> Response {
    typed(Body::new(whole), protobuf::MEDIA)
}

pub(crate) fn as_json(body: Body) -> Response {
    typed(body, "application/json")
}

/// 200 with a content type, not to be kept by anyone.
pub(crate) fn typed(body: Body, content: &'static str) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Adds `Warning: 299 - "…"` headers (RFC 7234 section 5.5): kubectl prints each once.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                if matches!(c, '"' | '\\') {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

pub(crate) fn with_code(mut response: Response, code: StatusCode) -> Response {
    *response.status_mut() = code;
    response
}

pub(crate) fn plain_text(text: String) -> Response {
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
