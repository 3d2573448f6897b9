//! `pods/exec` and `pods/attach`: what is asked, and the two wires that carry it.
//!
//! [`channels`] is the WebSocket wire (kubectl 1.30 and newer, other clients), [`frames`] the SPDY wire (older kubectl).

mod channels;
mod frames;

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use client::Target;
use client::node::{ContainerRef, ExecRequest, NodeStreams, Session, TerminalSize};
use http::request;
use model::Failure;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Pod, Stream, upgrade};
use crate::reject;
use crate::verbs::Doing;

pub(super) async fn answer(
    doing: &Doing<'_>,
    stream: Stream,
    pod: &Pod,
    mut parts: request::Parts,
) -> Result<Response, Failure> {
    let query = &doing.query;
    let asked = ExecRequest {
        command: query.all("command").map(str::to_owned).collect(),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // A terminal has one output.
        stderr: query.flag("stderr") && !query.flag("tty"),
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
    let node = pod.running_on(doing)?;
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
        .admit(&doing.asked.caller, "create", &target, &options(stream, &asked, &of))
        .await?;
    let stop = doing.app.stop.clone();
    let command = Command {
        node,
        stream,
        of,
        asked,
    };
    if upgrade::wants_spdy(&parts.headers) {
        let spdy = upgrade::spdy(&mut parts, frames::PROTOCOLS)?;
        let protocol = spdy.protocol;
        return Ok(spdy.answer(async move |wire| {
            stop.run_until_cancelled(frames::run(wire, command, protocol)).await;
        }));
    }
    let (upgrade, protocol) = upgrade::websocket(&mut parts, channels::PROTOCOLS).await?;
    Ok(upgrade.on_upgrade(async move |socket| {
        stop.run_until_cancelled(channels::run(socket, command, protocol)).await;
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

/// An exec or attach that was admitted and waits for its wire.
struct Command {
    node: Arc<dyn NodeStreams>,
    stream: Stream,
    of: ContainerRef,
    asked: ExecRequest,
}

impl Command {
    async fn start(&self) -> Result<Session, Failure> {
        match self.stream {
            Stream::Attach => self.node.attach(&self.of, &self.asked).await,
            _ => self.node.exec(&self.of, &self.asked).await,
        }
    }
}

/// A wire's way to the client, for each output.
trait Outputs {
    type Error;
    async fn stdout(&mut self, data: Bytes) -> Result<(), Self::Error>;
    async fn stderr(&mut self, data: Bytes) -> Result<(), Self::Error>;
}

/// Both outputs until both have ended.
async fn say<O: Outputs>(
    to: &mut O,
    mut stdout: mpsc::Receiver<Bytes>,
    mut stderr: mpsc::Receiver<Bytes>,
) -> Result<(), O::Error> {
    let (mut outputs, mut errors) = (true, true);
    while outputs || errors {
        tokio::select! {
            data = stdout.recv(), if outputs => match data {
                Some(data) => to.stdout(data).await?,
                None => outputs = false,
            },
            data = stderr.recv(), if errors => match data {
                Some(data) => to.stderr(data).await?,
                None => errors = false,
            },
        }
    }
    Ok(())
}

/// The `Status` that kubectl turns into its own exit code.
fn exited(exit: Result<i32, Failure>) -> Value {
    match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(failure) => reject::status(&failure).1,
    }
}

fn lost() -> Failure {
    Failure::Internal("the node lost the command".into())
}

/// A terminal's size as clients write it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

impl From<Size> for TerminalSize {
    fn from(Size { width, height }: Size) -> Self {
        Self { width, height }
    }
}
