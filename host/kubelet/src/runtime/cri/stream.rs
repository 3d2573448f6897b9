//! The runtime's own streaming server: `exec` and `attach` over a WebSocket, a channel a byte (`vN.channel.k8s.io`).
//!
//! Version 5 can end standard input; version 4, all that containerd before 2.0 speaks, cannot: there a command that reads
//! to the end of its input waits until the session is dropped.

use bytes::Bytes;
use client::node::{SESSION_BUFFER, Session, TerminalSize};
use futures::{SinkExt, StreamExt};
use model::Failure;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// `url` is what the CRI's `Exec` or `Attach` answered: a one-time address on this machine.
pub(super) async fn session(url: &str, stdin_wanted: bool) -> Result<Session, Failure> {
    let lost = |e: &dyn std::fmt::Display| Failure::Internal(format!("the runtime's streaming server at {url}: {e}"));
    let url_of_socket = url.replacen("http", "ws", 1);
    let mut request = url_of_socket.into_client_request().map_err(|e| lost(&e))?;
    let offer = HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io");
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let uri = request.uri();
    let address = format!("{}:{}", uri.host().unwrap_or("127.0.0.1"), uri.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(|e| lost(&e))?;
    let (socket, answer) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(|e| lost(&e))?;
    let chosen = answer.headers().get("sec-websocket-protocol");
    let can_close = chosen.is_some_and(|p| p == "v5.channel.k8s.io");
    let (mut to, mut from) = socket.split();
    let (stdin, mut input) = mpsc::channel::<Bytes>(SESSION_BUFFER);
    let (out, stdout) = mpsc::channel(SESSION_BUFFER);
    let (err, stderr) = mpsc::channel(SESSION_BUFFER);
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
    let (told, exit) = oneshot::channel();
    let (over, mut done) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut feeding, mut sizing) = (true, true);
        loop {
            let frame = tokio::select! {
                bytes = input.recv(), if feeding => match bytes {
                    Some(bytes) => framed(STDIN, &bytes),
                    None => {
                        feeding = false;
                        if !(stdin_wanted && can_close) {
                            continue;
                        }
                        vec![CLOSE, STDIN]
                    }
                },
                size = sizes.recv(), if sizing => match size {
                    Some(size) => framed(RESIZE, json!({"Width": size.width, "Height": size.height}).to_string().as_bytes()),
                    None => {
                        sizing = false;
                        continue;
                    }
                },
                _ = &mut done => break,
            };
            if to.send(Message::Binary(frame.into())).await.is_err() {
                break;
            }
        }
        let _ = to.close().await;
    });
    tokio::spawn(async move {
        let mut code = None;
        while let Some(Ok(message)) = from.next().await {
            let Message::Binary(frame) = message else {
                continue;
            };
            let Some((channel, rest)) = frame.split_first() else {
                continue;
            };
            let bytes = Bytes::copy_from_slice(rest);
            let sent = match *channel {
                // Empty frames open the channels.
                STDOUT | STDERR if bytes.is_empty() => Ok(()),
                STDOUT => out.send(bytes).await,
                STDERR => err.send(bytes).await,
                STATUS => {
                    code = Some(exit_code(rest));
                    break;
                }
                _ => Ok(()),
            };
            if sent.is_err() {
                break; // Nobody reads any more: the session was dropped.
            }
        }
        drop((out, err, over));
        let _ = told.send(code.unwrap_or_else(|| Err(Failure::Internal("the command was lost".into()))));
    });
    Ok(Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    })
}

fn framed(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    frame
}

/// From the `Status` of channel 3: success, an exit code among its causes, or a failure to run.
fn exit_code(status: &[u8]) -> Result<i32, Failure> {
    let status: Value = serde_json::from_slice(status).map_err(Failure::internal)?;
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes
        .filter(|c| c["reason"] == "ExitCode")
        .find_map(|c| c["message"].as_str()?.parse().ok());
    code.ok_or_else(|| Failure::Internal(status["message"].as_str().unwrap_or("the command failed").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_tell_exit_codes() {
        let failed =
            br#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(exit_code(failed).unwrap(), 3);
        assert_eq!(exit_code(br#"{"status":"Success"}"#).unwrap(), 0);
        assert!(exit_code(br#"{"status":"Failure","message":"no such file"}"#).is_err());
    }
}
