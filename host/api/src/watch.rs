//! Watches: a JSON line or a protobuf frame per event, sent as they come, from bytes that all watchers share.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use client::WatchEvent;
use futures::{StreamExt, stream};
use model::{Failure, Kind, Object};
use serde_json::{Value, json};

use crate::body::Joined;
use crate::limits::{Limit, OpenWatch};
use crate::negotiate::{Accepted, Format, View};
use crate::options::Query;
use crate::{App, protobuf, reject, respond};

/// So many events that are ready at the same moment leave in one frame. One event never waits for another.
const TOGETHER: usize = 256;

/// Streams a watch until it ends, the client leaves or the server stops.
///
/// # Errors
/// `NotAcceptable` for YAML, which has no stream form.
pub(crate) fn stream(
    app: &Arc<App>,
    kind: &Arc<Kind>,
    open: OpenWatch,
    events: client::WatchStream,
    accepted: Accepted,
    query: Query,
) -> Result<Response, Failure> {
    let content = match accepted.format {
        Format::Json => "application/json",
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Format::Yaml => {
            return Err(Failure::NotAcceptable(
                "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch".into(),
            ));
        }
    };
    let mut writer = Writer {
        app: app.clone(),
        kind: kind.clone(),
        accepted,
        query,
        columns: true,
    };
    let stopped = app.stop.clone().cancelled_owned();
    let limits = app.limits.clone();
    let mut events = events.take_until(Box::pin(stopped)).ready_chunks(TOGETHER);
    let frames = stream::poll_fn(move |context| {
        open.taken();
        let Some(events) = ready!(events.poll_next_unpin(context)) else {
            return Poll::Ready(None);
        };
        let mut frame = BytesMut::new();
        for event in events {
            if matches!(event, Err(Failure::Expired(_))) {
                limits.reached(Limit::WatchBehind, open.user());
            }
            writer.write(event, &mut frame);
        }
        open.handed();
        Poll::Ready(Some(Ok::<Bytes, Infallible>(frame.freeze())))
    });
    // An empty frame first: the headers leave at once, even if nothing ever happens.
    let frames = stream::once(async { Ok(Bytes::new()) }).chain(frames);
    Ok(respond::typed(Body::from_stream(frames), content))
}

struct Writer {
    app: Arc<App>,
    kind: Arc<Kind>,
    accepted: Accepted,
    query: Query,
    /// Tables name their columns in the first frame only.
    columns: bool,
}

impl Writer {
    fn write(&mut self, event: Result<WatchEvent, Failure>, frame: &mut BytesMut) {
        let (kind, object) = match &event {
            Ok(WatchEvent::Added(object)) => ("ADDED", self.show(object)),
            Ok(WatchEvent::Modified(object)) => ("MODIFIED", self.show(object)),
            Ok(WatchEvent::Deleted(object)) => ("DELETED", self.show(object)),
            Ok(WatchEvent::Bookmark {
                version,
                initial_events_end,
            }) => (
                "BOOKMARK",
                self.document(self.bookmark(&version.to_string(), *initial_events_end)),
            ),
            Err(failure) => ("ERROR", self.document(reject::status(failure).1)),
        };
        let (kind, object) = match object {
            Ok(object) => (kind, object),
            Err(failure) => match self.document(reject::status(&failure).1) {
                Ok(status) => ("ERROR", status),
                Err(failure) => return tracing::error!(%failure, "a watch cannot say what went wrong"),
            },
        };
        if self.accepted.format == Format::Protobuf {
            return protobuf::frame(frame, kind, &object);
        }
        frame.extend_from_slice(b"{\"type\":\"");
        frame.extend_from_slice(kind.as_bytes());
        frame.extend_from_slice(b"\",\"object\":");
        object.append_to(frame);
        frame.extend_from_slice(b"}\n");
    }

    fn show(&mut self, object: &Arc<Object>) -> Result<Joined, Failure> {
        let wire = self.accepted.format == Format::Protobuf;
        Ok(match self.accepted.view {
            View::Whole if wire => protobuf::enveloped(&object.gvk, protobuf::message(object)?),
            View::Whole => Joined::of(object.json.clone()),
            View::Metadata(version) if wire => {
                let gvk = protobuf::partial(version, "PartialObjectMetadata");
                protobuf::enveloped(&gvk, protobuf::metadata(object)?)
            }
            View::Metadata(version) => Joined::of(respond::metadata(&object.json, version)?),
            View::Table(version) => {
                let head = json!({"resourceVersion": object.version.to_string()});
                let columns = std::mem::take(&mut self.columns);
                let objects = std::slice::from_ref(object);
                let table = respond::table(&self.app, &self.kind, objects, head, version, &self.query, columns)?;
                Joined::of(table)
            }
        })
    }

    /// A document of ours in the watch's form.
    fn document(&self, document: Value) -> Result<Joined, Failure> {
        let json = document.to_string();
        if self.accepted.format == Format::Protobuf
            && let Some(whole) = protobuf::document(json.as_bytes())?
        {
            return Ok(whole);
        }
        Ok(Joined::of(json))
    }

    fn bookmark(&self, version: &str, initial_events_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": version, "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.accepted.view {
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
        }
    }
}
