//! The SPDY wire: the client opens a stream for each of input, output, errors, size and the closing `Status`.

use std::time::Duration;

use bytes::Bytes;
use client::node::{Session, TerminalSize};
use model::Failure;
use serde_json::Deserializer;
use spdy::{Gone, Output, Server, Stream};
use tokio::sync::mpsc;

use super::{Command, Outputs, Size, exited, lost, say};
use crate::streams::upgrade::Wire;

/// Newest first. Version 4 closes with a `Status`, 3 with a sentence, 2 knows no sizes. (5 differs from 4 on WebSockets only.)
pub(super) const PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
];

/// For the client to open its streams (kubelet's `streamCreationTimeout`).
const OPENING: Duration = Duration::from_secs(30);

/// A size is some thirty bytes; sizes that do not parse by then never will.
const SIZE: usize = 1 << 10;

/// Those the request asked for; the last is there always.
#[derive(Default)]
struct Streams {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
    error: Option<Stream>,
}

struct Both {
    stdout: Option<Output>,
    stderr: Option<Output>,
}

impl Outputs for Both {
    type Error = Gone;

    async fn stdout(&mut self, data: Bytes) -> Result<(), Gone> {
        send(self.stdout.as_ref(), data).await
    }

    async fn stderr(&mut self, data: Bytes) -> Result<(), Gone> {
        send(self.stderr.as_ref(), data).await
    }
}

/// What nobody asked to see is dropped.
async fn send(to: Option<&Output>, data: Bytes) -> Result<(), Gone> {
    match to {
        Some(output) => output.send(data).await,
        None => Ok(()),
    }
}

pub(super) async fn run(wire: Box<dyn Wire>, command: Command, protocol: &str) {
    let sizes = !matches!(protocol, "v2.channel.k8s.io");
    let plain = matches!(protocol, "v2.channel.k8s.io" | "v3.channel.k8s.io");
    let Ok(mut connection) = Server::start(wire) else {
        return;
    };
    let opening = tokio::time::timeout(OPENING, streams(&mut connection, &command, sizes)).await;
    let Ok(Some(streams)) = opening else {
        tracing::debug!("a client opened no streams for its command");
        return;
    };
    let Some(error) = &streams.error else {
        return;
    };
    let error = error.output.clone();
    let mut outputs = Both {
        stdout: streams.stdout.map(|s| s.output),
        stderr: streams.stderr.map(|s| s.output),
    };
    let exit = match command.start().await {
        Ok(Session {
            stdin,
            stdout,
            stderr,
            resize,
            exit,
        }) => {
            let said = async {
                say(&mut outputs, stdout, stderr).await?;
                Ok::<_, Gone>(exit.await)
            };
            let heard = async {
                tokio::join!(
                    input(streams.stdin.map(|s| s.input), stdin),
                    resizes(streams.resize.map(|s| s.input), resize)
                );
                connection.closed().await;
            };
            tokio::select! {
                // The client is gone: dropping the session ends the command's side.
                () = heard => return,
                said = said => match said {
                    Ok(exit) => exit.unwrap_or_else(|_| Err(lost())),
                    Err(Gone) => return,
                },
            }
        }
        Err(failure) => Err(failure),
    };
    for output in [&outputs.stdout, &outputs.stderr].into_iter().flatten() {
        let _ = output.finish().await;
    }
    let told = closing(exit, plain);
    if told.is_empty() || error.send(told.into()).await.is_ok() {
        let _ = error.finish().await;
    }
    // The client reads to the ends of its streams and then leaves; it is not waited for longer than for their opening.
    let _ = tokio::time::timeout(OPENING, connection.closed()).await;
}

/// As many streams as were asked for; `None` if the client leaves before.
async fn streams(connection: &mut Server, command: &Command, sizes: bool) -> Option<Streams> {
    let asked = &command.asked;
    let wanted = [true, asked.stdin, asked.stdout, asked.stderr, asked.tty && sizes];
    let mut missing = wanted.into_iter().filter(|w| *w).count();
    let mut streams = Streams::default();
    while missing > 0 {
        let stream = connection.accept().await?;
        let place = match stream.headers.get("streamtype") {
            "stdin" => &mut streams.stdin,
            "stdout" => &mut streams.stdout,
            "stderr" => &mut streams.stderr,
            "resize" => &mut streams.resize,
            "error" => &mut streams.error,
            _ => continue,
        };
        if place.replace(stream).is_none() {
            missing -= 1;
        }
    }
    streams.error.is_some().then_some(streams)
}

/// What the error stream says at the end: nothing, a sentence, or a `Status`.
fn closing(exit: Result<i32, Failure>, plain: bool) -> String {
    let status = exited(exit);
    match (plain, status["message"].as_str()) {
        (false, _) => status.to_string(),
        (true, Some(message)) => format!("error executing command in container: {message}"),
        (true, None) => String::new(),
    }
}

/// Ends the command's input when the client ends its stream, or when there is none.
async fn input(from: Option<mpsc::Receiver<Bytes>>, stdin: mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    while let Some(data) = from.recv().await {
        if stdin.send(data).await.is_err() {
            // The command does not read any more; its output may go on.
            return;
        }
    }
}

/// One JSON document after the other, cut anywhere.
async fn resizes(from: Option<mpsc::Receiver<Bytes>>, resize: mpsc::Sender<TerminalSize>) {
    let Some(mut from) = from else { return };
    let mut text = Vec::new();
    while let Some(data) = from.recv().await {
        text.extend_from_slice(&data);
        let mut sizes = Deserializer::from_slice(&text).into_iter::<Size>();
        // A size that cannot be delivered is followed by a newer one.
        while let Some(Ok(size)) = sizes.next() {
            let _ = resize.try_send(size.into());
        }
        let read = sizes.byte_offset();
        text.drain(..read);
        if text.len() > SIZE {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sizes_are_read_however_they_are_cut() {
        let (feed, from) = mpsc::channel(8);
        let (resize, mut sizes) = mpsc::channel(8);
        for part in [r#"{"Width":80,"He"#, r#"ight":24}"#, "\n{\"Width\":1,\"Height\":2}\n"] {
            feed.send(Bytes::from_static(part.as_bytes())).await.unwrap();
        }
        drop(feed);
        resizes(Some(from), resize).await;
        let mut got = Vec::new();
        while let Some(size) = sizes.recv().await {
            got.push((size.width, size.height));
        }
        assert_eq!(got, [(80, 24), (1, 2)]);
    }

    #[test]
    fn older_clients_are_told_in_a_sentence() {
        assert_eq!(closing(Ok(0), true), "");
        assert!(closing(Ok(3), true).contains("exit status 3"));
        assert!(closing(Ok(0), false).contains("Success"));
    }
}
