//! A WebSocket as a plain stream of bytes: what port-forward of kubectl 1.31 and newer carries its SPDY frames in (KEP-4006).

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Bytes that wait in each direction, and the largest message sent.
const BUFFER: usize = 32 << 10;

/// The near end of the tunnel. It is closed when the client closes the socket; the socket is closed when it is dropped.
pub(super) fn open(socket: WebSocket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        let (mut to, mut from) = socket.split();
        let (mut read, mut write) = tokio::io::split(far);
        let inward = async {
            while let Some(Ok(message)) = from.next().await {
                match message {
                    Message::Binary(bytes) if write.write_all(&bytes).await.is_err() => break,
                    Message::Close(_) => break,
                    _ => {}
                }
            }
        };
        let outward = async {
            let mut buffer = BytesMut::with_capacity(BUFFER);
            while let Ok(1..) = read.read_buf(&mut buffer).await {
                if to.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                    return;
                }
                buffer.reserve(BUFFER);
            }
            let end = CloseFrame {
                code: close_code::NORMAL,
                reason: "".into(),
            };
            let _ = to.send(Message::Close(Some(end))).await;
        };
        // Either side's end is the tunnel's: SPDY inside has told both what there was to tell.
        tokio::select! {
            () = inward => {}
            () = outward => {}
        }
    });
    near
}
