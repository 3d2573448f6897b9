//! SPDY/3.1 as far as Kubernetes' streams use it: many streams over one upgraded connection, from either end.
//!
//! exec, attach and port-forward of kubectl before 1.30 speak it directly, port-forward of newer ones inside a WebSocket;
//! container runtimes' streaming servers speak it. Start at [`Server`], which is given streams, and [`Client`], which opens
//! them; `reader.rs` is what arrives, `frame.rs` what leaves.
//!
//! There is no flow control per stream: neither end of Kubernetes' streams sends or obeys WINDOW_UPDATE. A stream whose
//! reader is slow holds back the connection once its queue is full.
//!
//! Source: the SPDY Protocol, Draft 3.1 (sections 2.2 and 2.6).
//!
//! Does not know: HTTP (who calls it has upgraded the connection), and what the streams carry.

mod frame;
mod headers;
mod reader;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, BufWriter};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use frame::Frame;
use headers::{Deflate, Inflate};
use reader::{Reader, Table};

pub use headers::Headers;

/// What the HTTP header `Upgrade` says of it.
pub const UPGRADE: &str = "SPDY/3.1";
/// The HTTP header in which Kubernetes' clients say what they speak inside, best first, and servers what they have chosen.
pub const INSIDE: &str = "x-stream-protocol-version";

/// Chunks that wait for a stream's reader, and frames that wait for the wire.
const QUEUE: usize = 16;
/// Data crosses in chunks of at most this size, however large the frames are.
const CHUNK: usize = 32 << 10;
/// What was queued when a connection ended still goes out within this time: the other end may have stopped reading.
const FAREWELL: Duration = Duration::from_secs(30);

/// The end that is given streams. Dropping it ends all of them.
pub struct Server {
    opened: mpsc::Receiver<Stream>,
    link: Link,
}

/// The end that opens streams. Dropping it ends all of them.
pub struct Client {
    next: u32,
    table: Arc<Table>,
    wire: mpsc::Sender<Frame>,
    _link: Link,
}

/// One stream; which end opened it makes no difference to its use.
#[derive(Debug)]
pub struct Stream {
    pub id: u32,
    /// Those it was opened with.
    pub headers: Headers,
    /// Ends when the other end has ended its side, or the connection is over.
    pub input: mpsc::Receiver<Bytes>,
    pub output: Output,
}

/// Our side of a stream. Dropping it without [`Output::finish`] leaves it half open until the connection ends.
#[derive(Debug, Clone)]
pub struct Output {
    id: u32,
    wire: mpsc::Sender<Frame>,
}

/// The connection is over, so nobody will read what was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other end has left")]
pub struct Gone;

/// Why there is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("the other end refused the stream")]
    Refused,
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl Output {
    /// Returns when the frame is queued; waits while the wire is full.
    pub async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.queue(data, false).await
    }

    /// Ends our side: the other end reads to the end of what was sent. (It may still send.)
    pub async fn finish(&self) -> Result<(), Gone> {
        self.queue(Bytes::new(), true).await
    }

    async fn queue(&self, data: Bytes, fin: bool) -> Result<(), Gone> {
        let frame = Frame::Data { id: self.id, data, fin };
        self.wire.send(frame).await.map_err(|_| Gone)
    }
}

impl Server {
    /// Serves `io` until the client closes it or the [`Server`] is dropped.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> io::Result<Self> {
        let (tell, opened) = mpsc::channel(QUEUE);
        let (link, _, _) = Link::start(io, Some(tell))?;
        Ok(Self { opened, link })
    }

    /// The next stream that the client opens; `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// Returns when the client has left.
    pub async fn closed(&self) {
        self.link.over.cancelled().await;
    }
}

impl Client {
    /// Speaks on `io` until the server closes it or the [`Client`] is dropped.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> io::Result<Self> {
        let (link, table, wire) = Link::start(io, None)?;
        Ok(Self {
            // Clients' streams are odd and rise (section 2.3.2).
            next: 1,
            table,
            wire,
            _link: link,
        })
    }

    /// Opens a stream, and returns when the server has taken it: however long that lasts.
    pub async fn open(&mut self, headers: Headers) -> Result<Stream, NotOpened> {
        let id = self.next;
        self.next += 2;
        let (feed, input) = mpsc::channel(QUEUE);
        let (answer, answered) = oneshot::channel();
        // Before the frame leaves: its answer must find the stream.
        self.table.open(id, feed, Some(answer))?;
        let frame = Frame::Open {
            id,
            headers: headers.clone(),
        };
        self.wire.send(frame).await.map_err(|_| Gone)?;
        match answered.await {
            Ok(true) => Ok(Stream {
                id,
                headers,
                input,
                output: Output {
                    id,
                    wire: self.wire.clone(),
                },
            }),
            Ok(false) => Err(NotOpened::Refused),
            Err(_) => Err(Gone.into()),
        }
    }
}

/// The two tasks of a connection, which end when it is dropped.
struct Link {
    over: CancellationToken,
    _end: DropGuard,
}

impl Link {
    /// `tell` hears of streams that the other end opens; without it they are refused.
    fn start(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        tell: Option<mpsc::Sender<Stream>>,
    ) -> io::Result<(Self, Arc<Table>, mpsc::Sender<Frame>)> {
        let (read, write) = tokio::io::split(io);
        let (wire, frames) = mpsc::channel(QUEUE);
        let over = CancellationToken::new();
        let table = Arc::new(Table::default());
        let deflate = Deflate::new()?;
        let reader = Reader {
            io: BufReader::new(read),
            inflate: Inflate::new(),
            table: table.clone(),
            newest: 0,
            tell,
            wire: wire.clone(),
        };
        let reading = over.clone();
        tokio::spawn(async move {
            // Whichever side fails first ends the other.
            let _ended = reading.clone().drop_guard();
            match reading.run_until_cancelled(reader.run()).await {
                Some(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%error, "a SPDY connection ended early");
                }
                _ => {}
            }
        });
        let writing = over.clone();
        tokio::spawn(async move {
            let _ended = writing.clone().drop_guard();
            let late = async {
                writing.cancelled().await;
                tokio::time::sleep(FAREWELL).await;
            };
            // What is queued still goes out after the reader has ended: `frames` ends when every `Output` is dropped.
            let written = tokio::select! {
                written = frame::write_all(BufWriter::new(write), deflate, frames) => written,
                () = late => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = written {
                tracing::debug!(%error, "a SPDY connection cannot be written to");
            }
        });
        let link = Self {
            over: over.clone(),
            _end: over.drop_guard(),
        };
        Ok((link, table, wire))
    }
}
