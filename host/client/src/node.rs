//! `NodeStreams`: what the API server asks of a node beside objects: logs, exec, attach, port-forward, its own pages.
//!
//! The kubelet implements it; the API server turns each channel into WebSocket or SPDY frames. Both hold only this trait.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{Failure, Uid};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// The streams of the pods on one node, and what it says of itself. The API server has authorised the caller before it calls.
///
/// Failures that say what a person did wrong (no such container, container not started) are `BadRequest` with
/// the sentence kubectl prints; a pod this node does not hold is `NotFound`.
#[async_trait]
pub trait NodeStreams: Send + Sync + 'static {
    /// A container's output in the order it was written, cut anywhere (not at lines). Ends at the end of the log, or
    /// with `follow` when the container has ended and everything was sent.
    async fn logs(&self, of: &ContainerRef, options: &LogOptions) -> Result<LogStream, Failure>;

    /// Runs a command in a running container.
    async fn exec(&self, of: &ContainerRef, request: &ExecRequest) -> Result<Session, Failure>;

    /// Joins the streams of a running container's first process; `request.command` is not looked at.
    async fn attach(&self, of: &ContainerRef, request: &ExecRequest) -> Result<Session, Failure>;

    /// A connection to a TCP port of the pod; `of.container` is not looked at.
    async fn port_forward(&self, of: &ContainerRef, port: u16) -> Result<Box<dyn Duplex>, Failure>;

    /// What the node says of itself at a path of a stock kubelet's (`/healthz`, `/stats/summary`); `NoSuchResource` where
    /// it has nothing to say.
    async fn page(&self, path: &str) -> Result<Page, Failure>;
}

/// Finds the streams of a node by its name.
pub trait Nodes: Send + Sync + 'static {
    fn streams(&self, node: &str) -> Option<Arc<dyn NodeStreams>>;
}

/// A cluster whose nodes are not reachable from here.
pub struct NoNodes;

impl Nodes for NoNodes {
    fn streams(&self, _node: &str) -> Option<Arc<dyn NodeStreams>> {
        None
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub content_type: &'static str,
    pub text: String,
}

impl Page {
    pub fn text(text: String) -> Self {
        Self {
            content_type: "text/plain; charset=utf-8",
            text,
        }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self {
            content_type: "application/json",
            text: value.to_string(),
        }
    }
}

/// Both directions of one connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A container of a pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    pub namespace: String,
    pub pod: String,
    /// When empty, whichever pod has the name now.
    pub uid: Uid,
    /// Never empty for logs, exec and attach: the API server has chosen the default container.
    pub container: String,
}

/// `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as the container writes.
    pub follow: bool,
    /// The instance before the present one.
    pub previous: bool,
    /// Begin each line with its RFC 3339 time and a space.
    pub timestamps: bool,
    /// Only lines written at or after this time, in nanoseconds of Unix time (from `sinceSeconds` or `sinceTime`).
    pub since: Option<i64>,
    /// Only the last so many lines; 0 gives none (and with `follow` only new ones).
    pub tail_lines: Option<u64>,
    /// Ends after this many bytes, within a line if need be.
    pub limit_bytes: Option<u64>,
}

/// Ends with an `Err` when the log could not be read to its end.
pub type LogStream = BoxStream<'static, Result<Bytes, Failure>>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; no shell is put between.
    pub command: Vec<String>,
    /// Which streams the caller will use; the others are closed from the start.
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// A terminal: stderr comes through stdout, and `Session::resize` is heard.
    pub tty: bool,
}

/// A running exec or attach. Dropping it ends the caller's side; every channel is bounded.
#[derive(Debug)]
pub struct Session {
    /// Dropping it closes the command's standard input.
    pub stdin: mpsc::Sender<Bytes>,
    pub stdout: mpsc::Receiver<Bytes>,
    pub stderr: mpsc::Receiver<Bytes>,
    pub resize: mpsc::Sender<TerminalSize>,
    /// The exit code (0–255), after both outputs have ended; a `Failure` if the command could not be run or was lost.
    pub exit: oneshot::Receiver<Result<i32, Failure>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// How many chunks each channel of a [`Session`] holds. Whoever writes waits for whoever reads.
pub const SESSION_BUFFER: usize = 16;
