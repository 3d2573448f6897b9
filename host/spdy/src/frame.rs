//! What leaves: frames, in the order they were queued.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;

use crate::CHUNK;
use crate::headers::{Deflate, Headers};

pub(crate) const VERSION: u16 = 3;
pub(crate) const SYN_STREAM: u16 = 1;
pub(crate) const SYN_REPLY: u16 = 2;
pub(crate) const RST_STREAM: u16 = 3;
pub(crate) const PING: u16 = 6;
pub(crate) const GOAWAY: u16 = 7;
pub(crate) const HEADERS: u16 = 8;
pub(crate) const FIN: u8 = 1;

/// Status codes of RST_STREAM.
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED: u32 = 3;

#[derive(Debug)]
pub(crate) enum Frame {
    Open { id: u32, headers: Headers },
    Reply(u32),
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Pong(u32),
}

/// Until the last sender of `frames` is dropped. Blocks of headers are deflated here, where their order is that of the wire.
pub(crate) async fn write_all(
    mut io: BufWriter<impl AsyncWrite + Unpin>,
    mut deflate: Deflate,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Open { id, headers } => {
                let block = deflate.block(&headers)?;
                // No associated stream, the highest priority, no slot.
                control(&mut io, SYN_STREAM, &[&id.to_be_bytes(), &[0; 6], &block]).await?;
            }
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
