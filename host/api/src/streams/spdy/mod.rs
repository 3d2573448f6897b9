//! SPDY/3.1, the server's side, as far as Kubernetes' clients use it: many streams over one upgraded connection.
//!
//! exec, attach and port-forward of kubectl before 1.30 speak it directly, port-forward of newer ones inside a WebSocket.
//! There is no flow control per stream: neither end of Kubernetes' streams sends or obeys WINDOW_UPDATE. A stream whose
//! reader is slow holds back the connection once its queue is full.
//!
//! Source: the SPDY Protocol, Draft 3.1 (sections 2.2 and 2.6).

mod headers;

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use headers::{Deflate, Inflate};

pub(super) use headers::Headers;

/// Streams that one connection may hold open. A browser over port-forward opens a few dozen.
const STREAMS: usize = 1000;
/// Chunks that wait for a stream's reader, and frames that wait for the wire.
const QUEUE: usize = 16;
/// Data crosses in chunks of at most this size, however large the frames are.
const CHUNK: usize = 32 << 10;
/// A control frame larger than this is not of this protocol.
const CONTROL: usize = 64 << 10;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;

/// Status codes of RST_STREAM.
const PROTOCOL_ERROR: u32 = 1;
const REFUSED: u32 = 3;

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One connection. Dropping it ends all of its streams.
pub(super) struct Connection {
    opened: mpsc::Receiver<Stream>,
    over: CancellationToken,
    _end: DropGuard,
}

/// A stream that the client opened.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) headers: Headers,
    /// Ends when the client has ended its side, or the connection is lost.
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) output: Output,
}

/// Our side of a stream. Dropping it without [`Output::finish`] leaves it half open until the connection ends.
#[derive(Debug, Clone)]
pub(super) struct Output {
    id: u32,
    wire: mpsc::Sender<Frame>,
}

/// The connection is gone, so nobody will read what was to be sent.
#[derive(Debug, thiserror::Error)]
#[error("the client has left")]
pub(super) struct Gone;

impl Output {
    pub(super) async fn send(&self, data: Bytes) -> Result<(), Gone> {
        let frame = Frame::Data {
            id: self.id,
            data,
            fin: false,
        };
        self.wire.send(frame).await.map_err(|_| Gone)
    }

    /// Ends our side.
    pub(super) async fn finish(&self) -> Result<(), Gone> {
        let data = Bytes::new();
        let frame = Frame::Data {
            id: self.id,
            data,
            fin: true,
        };
        self.wire.send(frame).await.map_err(|_| Gone)
    }
}

/// What we send.
#[derive(Debug)]
enum Frame {
    Reply(u32),
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Pong(u32),
}

impl Connection {
    /// Serves `io` until the client closes it or the [`Connection`] is dropped.
    pub(super) fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> io::Result<Self> {
        let (read, write) = tokio::io::split(io);
        let (tell, opened) = mpsc::channel(QUEUE);
        let (wire, frames) = mpsc::channel(QUEUE);
        let over = CancellationToken::new();
        let (reading, writing, guard) = (over.clone(), over.clone(), over.clone());
        let deflate = Deflate::new()?;
        tokio::spawn(async move {
            // Whichever side fails first ends the other.
            let _ended = reading.clone().drop_guard();
            let reader = Reader {
                io: BufReader::new(read),
                inflate: Inflate::new(),
                open: HashMap::new(),
                newest: 0,
                tell,
                wire,
            };
            match reading.run_until_cancelled(reader.run()).await {
                Some(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%error, "a SPDY connection ended early");
                }
                _ => {}
            }
        });
        tokio::spawn(async move {
            let _ended = writing.clone().drop_guard();
            // What is queued still goes out after the reader has ended: `frames` ends when every `Output` is dropped.
            if let Err(error) = write_all(BufWriter::new(write), deflate, frames).await {
                tracing::debug!(%error, "a SPDY connection cannot be written to");
            }
        });
        Ok(Self {
            opened,
            over,
            _end: guard.drop_guard(),
        })
    }

    /// The next stream that the client opens; `None` when the connection is over.
    pub(super) async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// Returns when the client has left.
    pub(super) async fn closed(&self) {
        self.over.cancelled().await;
    }
}

struct Reader<R> {
    io: BufReader<R>,
    inflate: Inflate,
    /// Streams whose client side is open. A stream nobody reads any more keeps its place, so that its data is known.
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    newest: u32,
    tell: mpsc::Sender<Stream>,
    wire: mpsc::Sender<Frame>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) -> io::Result<()> {
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
            if !self.control(head as u16, flags, &body).await? {
                return Ok(());
            }
        }
    }

    /// A data frame's bytes, chunk by chunk, to whoever reads the stream.
    async fn data(&mut self, id: u32, fin: bool, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let mut chunk = BytesMut::zeroed(length.min(CHUNK));
            self.io.read_exact(&mut chunk).await?;
            length -= chunk.len();
            if let Some(stream) = self.open.get(&id) {
                // Nobody reads it any more: the rest of the stream is dropped here.
                let _ = stream.send(chunk.freeze()).await;
            }
        }
        if fin {
            self.open.remove(&id);
        }
        Ok(())
    }

    /// Answers whether the connection goes on.
    async fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> io::Result<bool> {
        match kind {
            SYN_STREAM => {
                let (id, rest) = number(body)?;
                // The associated stream, the priority and the slot mean nothing here.
                let block = rest.get(6..).ok_or_else(|| wrong("a SYN_STREAM that is cut"))?;
                // Before anything is refused: the block belongs to the deflate stream of all blocks.
                let headers = self.inflate.block(block)?;
                self.opened(id, headers, flags & FIN != 0).await?;
            }
            HEADERS => {
                let (_, block) = number(body)?;
                self.inflate.block(block)?;
            }
            RST_STREAM => {
                self.open.remove(&number(body)?.0);
            }
            PING => self.send(Frame::Pong(number(body)?.0)).await?,
            GOAWAY => return Ok(false),
            // SETTINGS, WINDOW_UPDATE and what later drafts add ask for nothing.
            _ => {}
        }
        Ok(true)
    }

    async fn opened(&mut self, id: u32, headers: Headers, fin: bool) -> io::Result<()> {
        // Clients' streams are odd and rise (section 2.3.2).
        if id.is_multiple_of(2) || id <= self.newest {
            return self
                .send(Frame::Reset {
                    id,
                    status: PROTOCOL_ERROR,
                })
                .await;
        }
        self.newest = id;
        self.open.retain(|_, stream| !stream.is_closed());
        if self.open.len() >= STREAMS {
            return self.send(Frame::Reset { id, status: REFUSED }).await;
        }
        let (feed, input) = mpsc::channel(QUEUE);
        if !fin {
            self.open.insert(id, feed);
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
        self.tell
            .send(stream)
            .await
            .map_err(|_| io::ErrorKind::UnexpectedEof.into())
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

async fn write_all(
    mut io: BufWriter<impl AsyncWrite + Unpin>,
    mut deflate: Deflate,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Reply(id) => {
                let block = deflate.block(&Headers::default())?;
                control(&mut io, SYN_REPLY, &[&id.to_be_bytes(), &block]).await?;
            }
            Frame::Reset { id, status } => {
                control(&mut io, RST_STREAM, &[&id.to_be_bytes(), &status.to_be_bytes()]).await?;
            }
            Frame::Pong(id) => control(&mut io, PING, &[&id.to_be_bytes()]).await?,
            Frame::Data { id, data, fin } => {
                let mut rest = &data[..];
                loop {
                    let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
                    rest = after;
                    let flags = if fin && rest.is_empty() { FIN } else { 0 };
                    io.write_u32(id).await?;
                    io.write_u32((u32::from(flags) << 24) | chunk.len() as u32).await?;
                    io.write_all(chunk).await?;
                    if rest.is_empty() {
                        break;
                    }
                }
            }
        }
        if frames.is_empty() {
            io.flush().await?;
        }
    }
    io.shutdown().await
}

async fn control(io: &mut BufWriter<impl AsyncWrite + Unpin>, kind: u16, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    io.write_u16(0x8000 | VERSION).await?;
    io.write_u16(kind).await?;
    io.write_u32(length as u32).await?;
    for part in parts {
        io.write_all(part).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(deflate: &mut Deflate, id: u32, headers: Headers) -> Vec<u8> {
        let block = deflate.block(&headers).unwrap();
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend_from_slice(&(block.len() as u32 + 10).to_be_bytes());
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&block);
        frame
    }

    fn data(id: u32, bytes: &[u8], fin: bool) -> Vec<u8> {
        let mut frame = id.to_be_bytes().to_vec();
        frame.extend_from_slice(&((u32::from(fin) << 24) | bytes.len() as u32).to_be_bytes());
        frame.extend_from_slice(bytes);
        frame
    }

    #[tokio::test]
    async fn a_stream_is_answered_read_and_written() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut connection = Connection::start(server).unwrap();
        let mut deflate = Deflate::new().unwrap();
        let opening = syn(&mut deflate, 1, Headers::from([("streamType", "data"), ("port", "80")]));
        client.write_all(&opening).await.unwrap();
        // Larger than a chunk: it arrives in several.
        let sent = vec![7; CHUNK * 2 + 5];
        client.write_all(&data(1, &sent, true)).await.unwrap();
        let mut stream = connection.accept().await.unwrap();
        assert_eq!(
            (stream.id, stream.headers.get("streamtype"), stream.headers.get("port")),
            (1, "data", "80")
        );
        let mut got = Vec::new();
        while let Some(chunk) = stream.input.recv().await {
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, sent);
        stream.output.send(Bytes::from_static(b"answer")).await.unwrap();
        stream.output.finish().await.unwrap();

        assert_eq!(client.read_u32().await.unwrap(), 0x8003_0002, "SYN_REPLY");
        let length = client.read_u32().await.unwrap() as usize;
        let mut reply = vec![0; length];
        client.read_exact(&mut reply).await.unwrap();
        assert_eq!(Inflate::new().block(&reply[4..]).unwrap(), Headers::default());
        let mut answer = vec![0; 14 + 8];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [data(1, b"answer", false), data(1, b"", true)].concat());
    }

    #[tokio::test]
    async fn pings_come_back_and_wrong_ids_are_reset() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut connection = Connection::start(server).unwrap();
        let mut deflate = Deflate::new().unwrap();
        let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9];
        client.write_all(&ping).await.unwrap();
        let mut pong = [0; 12];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, ping);
        client
            .write_all(&syn(&mut deflate, 2, Headers::default()))
            .await
            .unwrap();
        let mut reset = [0; 16];
        client.read_exact(&mut reset).await.unwrap();
        assert_eq!(reset, [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 1]);
        drop(client);
        assert!(connection.accept().await.is_none());
        connection.closed().await;
    }

    #[tokio::test]
    async fn rubbish_ends_the_connection() {
        for rubbish in [
            &b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n"[..],
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
        ] {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let mut connection = Connection::start(server).unwrap();
            client.write_all(rubbish).await.unwrap();
            if rubbish[0] & 0x80 == 0 {
                // It reads as a data frame of a stream that does not exist; the rest of it never comes.
                client.shutdown().await.unwrap();
            }
            assert!(connection.accept().await.is_none());
        }
    }
}
