//! What arrives: frames of the other end, each to the stream it is for. Nothing it says is believed unseen.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::{mpsc, oneshot};

use crate::frame::{
    FIN, Frame, GOAWAY, HEADERS, PING, PROTOCOL_ERROR, REFUSED, RST_STREAM, SYN_REPLY, SYN_STREAM, VERSION,
};
use crate::headers::{Headers, Inflate};
use crate::{CHUNK, Gone, Output, QUEUE, Stream};

/// Streams that one connection may hold open. A browser over port-forward opens a few dozen.
const STREAMS: usize = 1000;
/// A control frame larger than this is not of this protocol.
const CONTROL: usize = 64 << 10;

pub(crate) fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Streams whose other side is open. A stream nobody reads any more keeps its place, so that its data is known.
#[derive(Debug)]
pub(crate) struct Table(Mutex<Option<HashMap<u32, Entry>>>);

#[derive(Debug)]
struct Entry {
    feed: mpsc::Sender<Bytes>,
    /// Of a stream that we opened and the other end has not answered: whether it takes it.
    answer: Option<oneshot::Sender<bool>>,
}

impl Default for Table {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Table {
    pub(crate) fn open(
        &self,
        id: u32,
        feed: mpsc::Sender<Bytes>,
        answer: Option<oneshot::Sender<bool>>,
    ) -> Result<(), Gone> {
        self.0.lock().as_mut().ok_or(Gone)?.insert(id, Entry { feed, answer });
        Ok(())
    }

    fn answered(&self, id: u32, taken: bool) {
        let mut streams = self.0.lock();
        let entry = streams.as_mut().and_then(|streams| streams.get_mut(&id));
        if let Some(answer) = entry.and_then(|entry| entry.answer.take()) {
            let _ = answer.send(taken);
        }
    }

    fn feed(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        Some(self.0.lock().as_ref()?.get(&id)?.feed.clone())
    }

    fn end(&self, id: u32) {
        if let Some(streams) = self.0.lock().as_mut() {
            streams.remove(&id);
        }
    }

    fn is_full(&self) -> bool {
        self.0.lock().as_mut().is_none_or(|streams| {
            streams.retain(|_, entry| !entry.feed.is_closed());
            streams.len() >= STREAMS
        })
    }
}

pub(crate) struct Reader<R> {
    pub(crate) io: BufReader<R>,
    pub(crate) inflate: Inflate,
    pub(crate) table: Arc<Table>,
    pub(crate) newest: u32,
    pub(crate) tell: Option<mpsc::Sender<Stream>>,
    pub(crate) wire: mpsc::Sender<Frame>,
}

impl<R> Drop for Reader<R> {
    /// Nothing will arrive any more: every input ends, and nobody waits for an answer.
    fn drop(&mut self) {
        *self.table.0.lock() = None;
    }
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) async fn run(mut self) -> io::Result<()> {
        loop {
            let head = self.io.read_u32().await?;
            let flags_and_length = self.io.read_u32().await?;
            let (flags, length) = (
                (flags_and_length >> 24) as u8,
                (flags_and_length & 0x00ff_ffff) as usize,
            );
            if head & 0x8000_0000 == 0 {
                self.data(head, flags & FIN != 0, length).await?;
                continue;
            }
            if (head >> 16) as u16 & 0x7fff != VERSION {
                return Err(wrong("a frame that is not of SPDY 3"));
            }
            if length > CONTROL {
                return Err(wrong("a control frame of more than 64 KiB"));
            }
            let mut body = vec![0; length];
            self.io.read_exact(&mut body).await?;
            if !self.control(head as u16, flags & FIN != 0, &body).await? {
                return Ok(());
            }
        }
    }

    /// A data frame's bytes, chunk by chunk, to whoever reads the stream.
    async fn data(&mut self, id: u32, fin: bool, mut length: usize) -> io::Result<()> {
        let feed = self.table.feed(id);
        while length > 0 {
            let mut chunk = BytesMut::zeroed(length.min(CHUNK));
            self.io.read_exact(&mut chunk).await?;
            length -= chunk.len();
            if let Some(feed) = &feed {
                // Nobody reads it any more: the rest of the stream is dropped here.
                let _ = feed.send(chunk.freeze()).await;
            }
        }
        if fin {
            self.table.end(id);
        }
        Ok(())
    }

    /// Answers whether the connection goes on.
    async fn control(&mut self, kind: u16, fin: bool, body: &[u8]) -> io::Result<bool> {
        match kind {
            SYN_STREAM => {
                let (id, rest) = number(body)?;
                // The associated stream, the priority and the slot mean nothing here.
                let block = rest.get(6..).ok_or_else(|| wrong("a SYN_STREAM that is cut"))?;
                // Before anything is refused: the block belongs to the deflate stream of all blocks.
                let headers = self.inflate.block(block)?;
                self.opened(id, headers, fin).await?;
            }
            SYN_REPLY | HEADERS => {
                let (id, block) = number(body)?;
                self.inflate.block(block)?;
                if kind == SYN_REPLY {
                    self.table.answered(id, true);
                }
                if fin {
                    self.table.end(id);
                }
            }
            RST_STREAM => {
                let (id, _) = number(body)?;
                self.table.answered(id, false);
                self.table.end(id);
            }
            PING => self.send(Frame::Pong(number(body)?.0)).await?,
            GOAWAY => return Ok(false),
            // SETTINGS, WINDOW_UPDATE and what later drafts add ask for nothing.
            _ => {}
        }
        Ok(true)
    }

    async fn opened(&mut self, id: u32, headers: Headers, fin: bool) -> io::Result<()> {
        let Some(tell) = self.tell.clone() else {
            return self.send(Frame::Reset { id, status: REFUSED }).await;
        };
        // Clients' streams are odd and rise (section 2.3.2).
        if id.is_multiple_of(2) || id <= self.newest {
            let status = PROTOCOL_ERROR;
            return self.send(Frame::Reset { id, status }).await;
        }
        self.newest = id;
        if self.table.is_full() {
            return self.send(Frame::Reset { id, status: REFUSED }).await;
        }
        let (feed, input) = mpsc::channel(QUEUE);
        if !fin {
            let open = self.table.open(id, feed, None);
            open.map_err(|Gone| io::ErrorKind::UnexpectedEof)?;
        }
        self.send(Frame::Reply(id)).await?;
        let output = Output {
            id,
            wire: self.wire.clone(),
        };
        let stream = Stream {
            id,
            headers,
            input,
            output,
        };
        tell.send(stream).await.map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.wire
            .send(frame)
            .await
            .map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }
}

fn number(body: &[u8]) -> io::Result<(u32, &[u8])> {
    let (head, rest) = body
        .split_first_chunk()
        .ok_or_else(|| wrong("a control frame that is cut"))?;
    Ok((u32::from_be_bytes(*head), rest))
}
