//! Event: what happened to an object, for an hour. One storage, two faces: `v1` and `events.k8s.io/v1`.

use std::time::Duration;

use model::Cause;
use serde_json::Value;

use crate::meta;
use crate::resource::Resource;
use crate::table::{Column, at, int_at, since, text_at};

/// How long an event is kept after its last write.
const KEPT: Duration = Duration::from_secs(3600);

/// Fields of `v1` and what `events.k8s.io/v1` calls them.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(crate) fn resource() -> Resource {
    with_columns(Resource::namespaced("", "v1", "Event", "events"))
        .selectable(&[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ])
        .selectable_at("source", &["source.component", "reportingComponent"])
        .create_on_update()
        .validate(|new, _, wrong| validate(new, "involvedObject", wrong))
}

pub(crate) fn new_face() -> Resource {
    let stored = resource();
    with_columns(Resource::namespaced("events.k8s.io", "v1", "Event", "events"))
        .served_from(&stored, RENAMED)
        .create_on_update()
        .validate(|new, _, wrong| {
            validate(new, "regarding", wrong);
            validate_new(new, wrong);
        })
}

fn with_columns(resource: Resource) -> Resource {
    resource.short(&["ev"]).no_generation().ttl(KEPT).only_columns(vec![
        Column::computed("Last Seen", |e, now| since(last(e), now).into()).about("Time the event was last seen"),
        Column::text_or("Type", "type", "").about("The type of the event"),
        Column::text_or("Reason", "reason", "").about("Why it came about"),
        Column::computed("Object", |e, _| object(e).into()).about("The object that this event is about."),
        Column::computed("Subobject", |e, _| {
            either(e, "involvedObject.fieldPath", "regarding.fieldPath").into()
        })
        .wide(),
        Column::computed("Source", |e, _| source(e).into())
            .wide()
            .about("The component reporting this event."),
        Column::computed("Message", |e, _| either(e, "message", "note").trim().to_owned().into())
            .about("What happened."),
        Column::computed("First Seen", |e, now| since(first(e), now).into()).wide(),
        Column::counted("Count", |e, _| count(e).into())
            .wide()
            .about("How often this event has occurred."),
        name(),
    ])
}

fn name() -> Column {
    let mut name = Column::name().wide();
    name.format = "name".into();
    name
}

fn either<'a>(event: &'a Value, old: &str, new: &str) -> &'a str {
    let text = text_at(event, old);
    if text.is_empty() { text_at(event, new) } else { text }
}

fn find<'a>(event: &'a Value, paths: &[&str]) -> Option<&'a Value> {
    paths.iter().find_map(|path| at(event, path).filter(|v| !v.is_null()))
}

fn last(event: &Value) -> Option<&Value> {
    find(
        event,
        &[
            "series.lastObservedTime",
            "lastTimestamp",
            "deprecatedLastTimestamp",
            "eventTime",
        ],
    )
}

fn first(event: &Value) -> Option<&Value> {
    find(event, &["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"])
}

fn count(event: &Value) -> i64 {
    match int_at(event, "series.count") {
        0 => int_at(event, "count").max(int_at(event, "deprecatedCount")).max(1),
        count => count,
    }
}

fn object(event: &Value) -> String {
    let kind = either(event, "involvedObject.kind", "regarding.kind").to_lowercase();
    let name = either(event, "involvedObject.name", "regarding.name");
    if name.is_empty() {
        kind
    } else {
        format!("{kind}/{name}")
    }
}

fn source(event: &Value) -> String {
    let component = match either(event, "source.component", "deprecatedSource.component") {
        "" => either(event, "reportingComponent", "reportingController"),
        component => component,
    };
    let host = match either(event, "source.host", "deprecatedSource.host") {
        "" => text_at(event, "reportingInstance"),
        host => host,
    };
    match host {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

fn validate(new: &Value, object: &str, wrong: &mut Vec<Cause>) {
    let about = text_at(new, &format!("{object}.namespace"));
    let namespace = meta::text(new, "namespace");
    let fits = if about.is_empty() {
        matches!(namespace, "default" | "kube-system")
    } else {
        about == namespace
    };
    if !fits {
        let says = "does not match event.namespace";
        wrong.push(Cause::invalid(
            format!("{object}.namespace"),
            format!("{about:?}"),
            says,
        ));
    }
}

/// What only the new face demands.
fn validate_new(new: &Value, wrong: &mut Vec<Cause>) {
    for (key, limit) in [
        ("reason", 128),
        ("action", 128),
        ("reportingController", 0),
        ("reportingInstance", 128),
    ] {
        let text = text_at(new, key);
        if text.is_empty() {
            wrong.push(Cause::required(key, ""));
        } else if limit > 0 && text.len() > limit {
            wrong.push(Cause::invalid(
                key,
                "\"\"",
                &format!("can have at most {limit} characters"),
            ));
        }
    }
    if new["eventTime"].is_null() {
        wrong.push(Cause::required("eventTime", ""));
    }
    let kind = text_at(new, "type");
    if !matches!(kind, "Normal" | "Warning") {
        let says = format!("has invalid value: {kind}");
        wrong.push(Cause::invalid("type", "\"\"", &says));
    }
}
