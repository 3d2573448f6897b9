//! A connection to a shim: requests and their answers, and the streams of a command.

use bytes::{Bytes, BytesMut};
use client::node::{ExecRequest, SESSION_BUFFER, Session};
use model::Failure;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::protocol::{self, Answer, Refused, Request, channel};

pub(super) struct Connection {
    pub(super) read: BufReader<OwnedReadHalf>,
    pub(super) write: OwnedWriteHalf,
}

impl Connection {
    pub(super) async fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        protocol::send(&mut self.write, request).await.map_err(gone)?;
        let answer: Option<Answer> = protocol::receive(&mut self.read).await.map_err(gone)?;
        match answer {
            Some(answer) => answer.map_err(|refused| match refused {
                Refused::Damaged => Failure::Internal(DAMAGED.into()),
                Refused::Because(why) => Failure::Internal(why),
            }),
            None => Err(gone("it closed the connection")),
        }
    }
}

/// Told only when making the code again did not help.
pub(super) const DAMAGED: &str = "the compiled code in the image store is damaged";

pub(super) fn gone(why: impl Into<model::BoxError>) -> Failure {
    Failure::Unavailable {
        what: "the pod's shim",
        source: why.into(),
    }
}

pub(super) async fn gather(from: &mut mpsc::Receiver<Bytes>) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(bytes) = from.recv().await {
        let room = (16 << 10) - all.len().min(16 << 10);
        all.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    all.freeze()
}

/// Frames of a connection as the channels of a session.
pub(super) fn session(line: Connection, asked: &ExecRequest) -> Session {
    let (stdin, mut input) = mpsc::channel::<Bytes>(SESSION_BUFFER);
    let (out, stdout) = mpsc::channel(SESSION_BUFFER);
    let (err, stderr) = mpsc::channel(SESSION_BUFFER);
    let (resize, _) = mpsc::channel(1);
    let (told, exit) = oneshot::channel();
    let Connection { mut read, mut write } = line;
    let (over, done) = oneshot::channel::<()>();
    let stdin_wanted = asked.stdin;
    let (out, err) = (asked.stdout.then_some(out), asked.stderr.then_some(err));
    tokio::spawn(async move {
        let forward = async {
            while let Some(bytes) = input.recv().await {
                if !bytes.is_empty() && protocol::send_frame(&mut write, channel::STDIN, &bytes).await.is_err() {
                    return;
                }
            }
            if stdin_wanted {
                let _ = protocol::send_frame(&mut write, channel::STDIN, &[]).await;
            }
        };
        tokio::pin!(done);
        tokio::select! {
            () = forward => { let _ = done.await; }
            _ = &mut done => {}
        }
        let _ = write.shutdown().await;
    });
    tokio::spawn(async move {
        let mut code = None;
        while let Ok(Some((channel, bytes))) = protocol::receive_frame(&mut read).await {
            let sent = match (channel, &out, &err) {
                (channel::STDOUT, Some(out), _) => out.send(bytes).await,
                (channel::STDERR, _, Some(err)) => err.send(bytes).await,
                (channel::EXIT, ..) => {
                    code = bytes.first_chunk::<4>().map(|b| i32::from_be_bytes(*b));
                    break;
                }
                _ => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
        drop((out, err, over));
        let _ = told.send(code.ok_or_else(|| gone("the command was lost")));
    });
    Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    }
}
