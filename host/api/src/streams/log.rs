//! `pods/log`, and `containerLogs` of a node: a container's output as plain text, as it comes.

use axum::body::Body;
use axum::response::Response;
use client::node::{ContainerRef, LogOptions, NodeStreams};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use model::{Cause, Failure, Gvk};

use super::Pod;
use crate::options::Query;
use crate::respond;
use crate::verbs::Doing;

pub(super) async fn answer(doing: &Doing<'_>, pod: &Pod) -> Result<Response, Failure> {
    // What is wrong with the request is told before what is wrong with the pod.
    let options = options(&doing.query, Timestamp::now())?;
    let container = pod.container(doing.query.get("container"))?;
    let Some(node) = pod.node(doing)? else {
        // Nothing has run yet, so nothing has been written: kube-apiserver answers an empty log too.
        return Ok(respond::plain_text(String::new()));
    };
    of_container(doing, &*node, &pod.reference(container), &options).await
}

pub(super) async fn of_container(
    doing: &Doing<'_>,
    node: &dyn NodeStreams,
    of: &ContainerRef,
    options: &LogOptions,
) -> Result<Response, Failure> {
    let log = node.logs(of, options).await?;
    let stopped = doing.app.stop.clone().cancelled_owned();
    let body = Body::from_stream(log.take_until(stopped));
    let mut response = respond::plain_text(String::new());
    *response.body_mut() = body;
    Ok(response)
}

/// `PodLogOptions` of a request that came `now`.
pub(super) fn options(query: &Query, now: Timestamp) -> Result<LogOptions, Failure> {
    let invalid = |cause| {
        Err(Failure::Invalid {
            kind: Gvk::new("", "v1", "PodLogOptions"),
            name: String::new(),
            causes: vec![cause],
        })
    };
    let since = match (query.get("sinceSeconds"), query.get("sinceTime")) {
        ("", "") => None,
        ("", time) => match time.parse::<Timestamp>() {
            Ok(time) => Some(time),
            Err(error) => {
                return Err(Failure::BadRequest(format!(
                    "sinceTime \"{time}\" is not an RFC 3339 time: {error}"
                )));
            }
        },
        (_, "") => match query.number("sinceSeconds")? {
            Some(0) | None => {
                return invalid(Cause::invalid("sinceSeconds", 0, "must be greater than 0"));
            }
            Some(seconds) => now
                .checked_sub(SignedDuration::from_secs(seconds.min(i64::MAX as u64) as i64))
                .ok(),
        },
        _ => {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            return invalid(Cause::forbidden("", detail));
        }
    };
    let limit_bytes = query.number("limitBytes")?;
    if limit_bytes == Some(0) {
        return invalid(Cause::invalid("limitBytes", 0, "must be greater than 0"));
    }
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since: since.and_then(|t| i64::try_from(t.as_nanosecond()).ok()),
        tail_lines: query.number("tailLines")?,
        limit_bytes,
    })
}
