//! Watches: one JSON line per event, sent as they come, from bytes that all watchers share.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use client::WatchEvent;
use futures::{StreamExt, stream};
use model::{Failure, Kind, Object};
use serde_json::{Value, json};

use crate::negotiate::{Accepted, Format, View};
use crate::options::Query;
use crate::{App, reject, respond};

/// So many events that are ready at the same moment leave in one frame. One event never waits for another.
const TOGETHER: usize = 256;

/// Streams a watch until it ends, the client leaves or the server stops.
///
/// # Errors
/// `NotAcceptable` for YAML, which has no stream form.
pub(crate) fn stream(
    app: &Arc<App>,
    kind: &Arc<Kind>,
    events: client::WatchStream,
    accepted: Accepted,
    query: Query,
) -> Result<Response, Failure> {
    if accepted.format != Format::Json {
        return Err(Failure::NotAcceptable(
            "only the following media types are accepted for a watch: application/json;stream=watch".into(),
        ));
    }
    let mut line = Lines {
        app: app.clone(),
        kind: kind.clone(),
        view: accepted.view,
        query,
        columns: true,
    };
    let stopped = app.stop.clone().cancelled_owned();
    let open = app.metrics.watch_opened();
    let frames = events.take_until(stopped).ready_chunks(TOGETHER).map(move |events| {
        let _open = &open;
        let mut frame = BytesMut::new();
        for event in events {
            line.write(event, &mut frame);
        }
        Ok::<Bytes, std::convert::Infallible>(frame.freeze())
    });
    // An empty frame first: the headers leave at once, even if nothing ever happens.
    let frames = stream::once(async { Ok(Bytes::new()) }).chain(frames);
    Ok(respond::as_json(Body::from_stream(frames)))
}

struct Lines {
    app: Arc<App>,
    kind: Arc<Kind>,
    view: View,
    query: Query,
    /// Tables name their columns in the first frame only.
    columns: bool,
}

impl Lines {
    fn write(&mut self, event: Result<WatchEvent, Failure>, frame: &mut BytesMut) {
        let (kind, object) = match &event {
            Ok(WatchEvent::Added(object)) => ("ADDED", self.show(object)),
            Ok(WatchEvent::Modified(object)) => ("MODIFIED", self.show(object)),
            Ok(WatchEvent::Deleted(object)) => ("DELETED", self.show(object)),
            Ok(WatchEvent::Bookmark {
                version,
                initial_events_end,
            }) => ("BOOKMARK", self.bookmark(&version.to_string(), *initial_events_end)),
            Err(failure) => ("ERROR", Err(reject::status(failure).1)),
        };
        let (kind, object) = match object {
            Ok(bytes) => (kind, bytes),
            Err(status) => ("ERROR", status.to_string().into()),
        };
        frame.extend_from_slice(b"{\"type\":\"");
        frame.extend_from_slice(kind.as_bytes());
        frame.extend_from_slice(b"\",\"object\":");
        frame.extend_from_slice(&object);
        frame.extend_from_slice(b"}\n");
    }

    fn show(&mut self, object: &Arc<Object>) -> Result<Bytes, Value> {
        match self.view {
            View::Whole => Ok(object.json.clone()),
            View::Metadata(version) => respond::metadata(&object.json, version).map(Bytes::from),
            View::Table(version) => {
                let head = json!({"resourceVersion": object.version.to_string()});
                let columns = std::mem::take(&mut self.columns);
                let objects = std::slice::from_ref(object);
                respond::table(&self.app, &self.kind, objects, head, version, &self.query, columns).map(Bytes::from)
            }
        }
        .map_err(|failure| reject::status(&failure).1)
    }

    fn bookmark(&mut self, version: &str, initial_events_end: bool) -> Result<Bytes, Value> {
        let mut metadata = json!({"resourceVersion": version, "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let document = match self.view {
            View::Whole => {
                json!({"kind": self.kind.gvk.kind, "apiVersion": self.kind.gvk.api_version(), "metadata": metadata})
            }
            View::Metadata(meta) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": meta.api_version(), "metadata": metadata})
            }
            View::Table(meta) => {
                let object =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": meta.api_version(), "metadata": metadata});
                json!({
                    "kind": "Table", "apiVersion": meta.api_version(), "metadata": {"resourceVersion": version},
                    "columnDefinitions": null, "rows": [{"cells": [], "object": object}],
                })
            }
        };
        Ok(document.to_string().into())
    }
}
