//! `pods/exec` and `pods/attach` over WebSocket: kubectl's channel protocol, versions 4 and 5.
//!
//! Every message begins with the number of its channel: 0 input, 1 output, 2 errors, 3 the closing `Status`, 4 the size
//! of the terminal; in version 5 also 255, by which the client closes a channel (KEP-4006).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use client::Target;
use client::node::{ContainerRef, ExecRequest, NodeStreams, Session, TerminalSize};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{header, request};
use model::Failure;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Pod, Stream};
use crate::reject;
use crate::verbs::Doing;

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Newest first: the first one that the client offers too is taken.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// The largest message taken from a client.
const MESSAGE: usize = 1 << 20;

pub(super) async fn answer(
    doing: &Doing<'_>,
    stream: Stream,
    pod: &Pod,
    mut parts: request::Parts,
    _body: Body,
) -> Result<Response, Failure> {
    let query = &doing.query;
    let asked = ExecRequest {
        command: query.all("command").map(str::to_owned).collect(),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    if stream == Stream::Exec && asked.command.is_empty() {
        return Err(Failure::BadRequest(
            "you must specify at least one command for the container".into(),
        ));
    }
    if !(asked.stdin || asked.stdout || asked.stderr) {
        return Err(Failure::BadRequest(
            "you must specify at least 1 of stdin, stdout, stderr".into(),
        ));
    }
    let of = pod.reference(pod.container(query.get("container"))?);
    let node = pod
        .node(doing)?
        .ok_or_else(|| Failure::BadRequest(format!("pod {} does not have a host assigned", pod.name())))?;
    if matches!(pod.document.status.phase.as_str(), "Succeeded" | "Failed") {
        let phase = &pod.document.status.phase;
        return Err(Failure::BadRequest(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let at = doing.at;
    let target = Target::new(at.gvr.clone(), &at.namespace, &at.name).subresource(&at.subresource);
    doing
        .app
        .connections
        .admit(&doing.asked.caller, &target, &options(stream, &asked, &of))
        .await?;
    if parts
        .headers
        .get(header::UPGRADE)
        .is_some_and(|u| u.as_bytes().to_ascii_lowercase().starts_with(b"spdy"))
    {
        return Err(Failure::BadRequest(
            "SPDY streams are not served: use kubectl 1.30 or newer, or 1.29 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"
                .into(),
        ));
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|why| Failure::BadRequest(format!("Upgrade request required: {why}")))?;
    let upgrade = upgrade.protocols(PROTOCOLS).max_message_size(MESSAGE);
    let Some(protocol) = upgrade
        .selected_protocol()
        .map(|p| p.as_bytes() == PROTOCOLS[0].as_bytes())
    else {
        return Err(Failure::BadRequest(format!(
            "none of the WebSocket protocols offered is served; served are: {}",
            PROTOCOLS.join(", ")
        )));
    };
    let stop = doing.app.stop.clone();
    Ok(upgrade.on_upgrade(move |socket| async move {
        let work = run(socket, node, stream, of, asked, protocol);
        stop.run_until_cancelled(work).await;
    }))
}

/// `PodExecOptions`, for admission.
fn options(stream: Stream, asked: &ExecRequest, of: &ContainerRef) -> Value {
    let kind = if stream == Stream::Exec {
        "PodExecOptions"
    } else {
        "PodAttachOptions"
    };
    let mut options = json!({
        "apiVersion": "v1", "kind": kind, "container": of.container,
        "stdin": asked.stdin, "stdout": asked.stdout, "stderr": asked.stderr, "tty": asked.tty,
    });
    if stream == Stream::Exec {
        options["command"] = json!(asked.command);
    }
    options
}

type Sender = SplitSink<WebSocket, Message>;

async fn run(
    socket: WebSocket,
    node: Arc<dyn NodeStreams>,
    stream: Stream,
    of: ContainerRef,
    asked: ExecRequest,
    closes: bool,
) {
    let (mut out, input) = socket.split();
    // An empty message first: clients wait for it before they believe in the connection.
    if send(&mut out, OUTPUT, b"").await.is_err() {
        return;
    }
    let session = match stream {
        Stream::Attach => node.attach(&of, &asked).await,
        _ => node.exec(&of, &asked).await,
    };
    let status = match session {
        Ok(Session {
            stdin,
            stdout,
            stderr,
            resize,
            exit,
        }) => {
            let hear = hear(input, stdin, resize, closes);
            let say = async {
                say(&mut out, stdout, stderr).await?;
                Ok::<_, axum::Error>(exit.await)
            };
            tokio::select! {
                // The client is gone: dropping the session ends the command's side.
                () = hear => return,
                said = say => match said {
                    Ok(Ok(Ok(code))) => exited(code),
                    Ok(Ok(Err(failure))) => reject::status(&failure).1,
                    Ok(Err(_)) => reject::status(&Failure::Internal("the node lost the command".into())).1,
                    Err(_) => return,
                },
            }
        }
        Err(failure) => reject::status(&failure).1,
    };
    if send(&mut out, STATUS, status.to_string().as_bytes()).await.is_ok() {
        // With a code: clients take a close without one for a broken connection.
        let end = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        let _ = out.send(Message::Close(Some(end))).await;
    }
}

/// The `Status` that kubectl turns into its own exit code.
fn exited(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

async fn send(out: &mut Sender, channel: u8, data: &[u8]) -> Result<(), axum::Error> {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(data);
    out.send(Message::Binary(message.freeze())).await
}

/// Both outputs until both have ended.
async fn say(
    out: &mut Sender,
    mut stdout: mpsc::Receiver<Bytes>,
    mut stderr: mpsc::Receiver<Bytes>,
) -> Result<(), axum::Error> {
    let (mut outputs, mut errors) = (true, true);
    while outputs || errors {
        tokio::select! {
            data = stdout.recv(), if outputs => match data {
                Some(data) => send(out, OUTPUT, &data).await?,
                None => outputs = false,
            },
            data = stderr.recv(), if errors => match data {
                Some(data) => send(out, ERRORS, &data).await?,
                None => errors = false,
            },
        }
    }
    Ok(())
}

/// What the client sends, until it leaves. A full input waits here, and through TCP at the client.
async fn hear(
    mut input: SplitStream<WebSocket>,
    stdin: mpsc::Sender<Bytes>,
    resize: mpsc::Sender<TerminalSize>,
    closes: bool,
) {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let mut stdin = Some(stdin);
    while let Some(Ok(message)) = input.next().await {
        let Message::Binary(message) = message else {
            if matches!(message, Message::Close(_)) {
                return;
            }
            continue;
        };
        match message.first() {
            Some(&INPUT) if message.len() > 1 => {
                let gone = match &stdin {
                    Some(stdin) => stdin.send(message.slice(1..)).await.is_err(),
                    None => false,
                };
                if gone {
                    // The command does not read any more; its output may go on.
                    stdin = None;
                }
            }
            Some(&RESIZE) => {
                if let Ok(Size { width, height }) = serde_json::from_slice(&message[1..]) {
                    // A size that cannot be delivered is followed by a newer one.
                    let _ = resize.try_send(TerminalSize { width, height });
                }
            }
            Some(&CLOSE) if closes && message.get(1) == Some(&INPUT) => stdin = None,
            _ => {}
        }
    }
}
