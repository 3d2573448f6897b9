//! The WebSocket wire: every message begins with the number of its channel.
//!
//! 0 input, 1 output, 2 errors, 3 the closing `Status`, 4 the size of the terminal; in version 5 also 255, by which the
//! client closes a channel (KEP-4006).

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{Bytes, BytesMut};
use client::node::{Session, TerminalSize};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;

use super::{Command, Outputs, Size, exited, lost, say};
use crate::streams::upgrade;

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Newest first: the first one that the client offers too is taken.
pub(super) const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

type Sender = SplitSink<WebSocket, Message>;

impl Outputs for Sender {
    type Error = axum::Error;

    async fn stdout(&mut self, data: Bytes) -> Result<(), axum::Error> {
        send(self, OUTPUT, &data).await
    }

    async fn stderr(&mut self, data: Bytes) -> Result<(), axum::Error> {
        send(self, ERRORS, &data).await
    }
}

pub(super) async fn run(socket: WebSocket, command: Command, protocol: &str) {
    let (mut out, input) = socket.split();
    // An empty message first: clients wait for it before they believe in the connection.
    if send(&mut out, OUTPUT, b"").await.is_err() {
        return;
    }
    let exit = match command.start().await {
        Ok(Session {
            stdin,
            stdout,
            stderr,
            resize,
            exit,
        }) => {
            let stdin = command.asked.stdin.then_some(stdin);
            let hear = hear(input, stdin, resize, protocol == PROTOCOLS[0]);
            let said = async {
                say(&mut out, stdout, stderr).await?;
                Ok::<_, axum::Error>(exit.await)
            };
            tokio::select! {
                // The client is gone: dropping the session ends the command's side.
                () = hear => return,
                said = said => match said {
                    Ok(exit) => exit.unwrap_or_else(|_| Err(lost())),
                    Err(_) => return,
                },
            }
        }
        Err(failure) => Err(failure),
    };
    if send(&mut out, STATUS, exited(exit).to_string().as_bytes())
        .await
        .is_ok()
    {
        // With a code: clients take a close without one for a broken connection.
        let end = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        let _ = out.send(Message::Close(Some(end))).await;
    }
}

async fn send(out: &mut Sender, channel: u8, data: &[u8]) -> Result<(), axum::Error> {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(data);
    out.send(Message::Binary(message.freeze())).await
}

/// What the client sends, until it leaves; `stdin` is there if it was asked for. A full input waits here, and through TCP at the client.
async fn hear(
    mut input: SplitStream<WebSocket>,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    resize: mpsc::Sender<TerminalSize>,
    closes: bool,
) {
    while let Some(Ok(message)) = input.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        let Some(message) = upgrade::said(message) else {
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
                if let Ok(size) = serde_json::from_slice::<Size>(&message[1..]) {
                    // A size that cannot be delivered is followed by a newer one.
                    let _ = resize.try_send(size.into());
                }
            }
            Some(&CLOSE) if closes && message.get(1) == Some(&INPUT) => stdin = None,
            _ => {}
        }
    }
}
