//! From an HTTP request to a connection of its own: which of the wires a client offers is taken, and the 101 answer.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::Failure;
use tokio::io::{AsyncRead, AsyncWrite};

/// The largest message taken from a client.
const MESSAGE: usize = 1 << 20;

pub(super) fn wants_spdy(headers: &HeaderMap) -> bool {
    let asked = headers.get(header::UPGRADE).and_then(|u| u.to_str().ok());
    asked.is_some_and(|u| u.eq_ignore_ascii_case(spdy::UPGRADE))
}

/// Takes the first of `served` that the client offers too.
///
/// # Errors
/// `BadRequest` if the request is no WebSocket handshake, or offers nothing that is served.
pub(super) async fn websocket(
    parts: &mut request::Parts,
    served: &'static [&'static str],
) -> Result<(WebSocketUpgrade, &'static str), Failure> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let upgrade = upgrade.map_err(|why| Failure::BadRequest(format!("Upgrade request required: {why}")))?;
    let upgrade = upgrade.protocols(served.iter().copied()).max_message_size(MESSAGE);
    let chosen = upgrade.selected_protocol().and_then(|p| p.to_str().ok());
    match served.iter().find(|p| Some(**p) == chosen) {
        Some(protocol) => Ok((upgrade, protocol)),
        None => Err(Failure::BadRequest(format!(
            "none of the WebSocket protocols offered is served; served are: {}",
            served.join(", ")
        ))),
    }
}

/// What a message says, in bytes or in text: the Python client writes input as text. `None` of what only holds or ends the
/// connection.
pub(super) fn said(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    }
}

/// A connection that waits for the 101 answer to be sent.
pub(super) struct Spdy {
    upgrade: OnUpgrade,
    pub(super) protocol: &'static str,
}

/// Takes the first of `served` that the client offers too.
///
/// # Errors
/// `BadRequest` if the connection cannot be upgraded (HTTP/2), or nothing that is served is offered.
pub(super) fn spdy(parts: &mut request::Parts, served: &'static [&'static str]) -> Result<Spdy, Failure> {
    // A line each, or one line with commas.
    let lines = parts
        .headers
        .get_all(spdy::INSIDE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let offered: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let Some(protocol) = served.iter().find(|p| offered.contains(p)) else {
        return Err(Failure::BadRequest(format!(
            "unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            served.join(" ")
        )));
    };
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| Failure::BadRequest("SPDY needs a connection of HTTP/1.1".into()))?;
    Ok(Spdy { upgrade, protocol })
}

impl Spdy {
    /// The 101 answer. Once it is sent `work` has the connection.
    pub(super) fn answer<F>(self, work: impl FnOnce(Box<dyn Wire>) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(spdy::UPGRADE));
        headers.insert(spdy::INSIDE, HeaderValue::from_static(self.protocol));
        tokio::spawn(async move {
            match self.upgrade.await {
                Ok(upgraded) => work(Box::new(TokioIo::new(upgraded))).await,
                Err(error) => tracing::debug!(%error, "a client left before its connection was upgraded"),
            }
        });
        response
    }
}

/// An upgraded connection.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_speak_in_bytes_and_in_text() {
        let input = Bytes::from_static(b"\0hello\n");
        assert_eq!(said(Message::Binary(input.clone())), Some(input.clone()));
        assert_eq!(said(Message::Text("\0hello\n".into())), Some(input.clone()));
        assert_eq!(said(Message::Ping(input)), None);
        assert_eq!(said(Message::Close(None)), None);
    }
}
