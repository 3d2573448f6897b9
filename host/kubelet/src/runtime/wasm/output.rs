//! A guest's standard output and error: lines of the container's log, or bytes of an `exec`.
//!
//! Writes go to the file at once and on the guest's own thread: a shim serves one pod, and a guest that floods its log
//! should wait for the disk. Logs are cut at 10 MiB, one older half is kept.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use crate::log::{MAX_ENTRY, Stream, entry};

const ROTATE_AT: u64 = 10 << 20;

/// One container's log file.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    file: File,
    written: u64,
    /// Lines begun, one a stream.
    open: [Vec<u8>; 2],
}

impl Log {
    pub fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner {
            path,
            file,
            written,
            open: Default::default(),
        }))))
    }

    pub fn write(&self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let open = &mut inner.open[stream as usize];
        let now = Timestamp::now();
        for &byte in bytes {
            if byte == b'\n' {
                out.extend(entry(now, stream, false, open));
                open.clear();
            } else {
                open.push(byte);
                if open.len() == MAX_ENTRY {
                    out.extend(entry(now, stream, true, open));
                    open.clear();
                }
            }
        }
        inner.append(&out)
    }

    /// The guest has ended: what it began is a line.
    pub fn finish(&self) {
        let mut inner = self.0.lock().unwrap_or_else(|e| e.into_inner());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut inner.open[stream as usize]);
            if !rest.is_empty() {
                let line = entry(Timestamp::now(), stream, false, &rest);
                let _ = inner.append(&line);
            }
        }
    }

    pub fn stream(&self, stream: Stream) -> Output {
        Output(Sink::Log(self.clone(), stream))
    }
}

impl Inner {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.written + lines.len() as u64 > ROTATE_AT && self.written > 0 {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.written = 0;
        }
        self.file.write_all(lines)?;
        self.written += lines.len() as u64;
        Ok(())
    }
}

/// Where a guest's output goes.
#[derive(Clone)]
pub(crate) struct Output(Sink);

#[derive(Clone)]
enum Sink {
    Log(Log, Stream),
    Channel(mpsc::Sender<Bytes>),
}

impl Output {
    pub fn channel(send: mpsc::Sender<Bytes>) -> Self {
        Self(Sink::Channel(send))
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(match &self.0 {
            Sink::Log(log, stream) => Async::Log(log.clone(), *stream),
            Sink::Channel(send) => Async::Channel(PollSender::new(send.clone())),
        })
    }
}

/// Most bytes a guest may write in one call.
const PERMIT: usize = 64 * 1024;

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if let Sink::Channel(send) = &self.0 {
            let _ = send.reserve().await;
        }
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        match &self.0 {
            Sink::Log(log, stream) => log
                .write(*stream, &bytes)
                .map_err(|e| StreamError::LastOperationFailed(wasmtime::Error::new(e))),
            Sink::Channel(send) => match send.try_send(bytes) {
                Ok(()) => Ok(()),
                // Only with a permit from `check_write`, so there was room; the other side has gone.
                Err(_) => Err(StreamError::Closed),
            },
        }
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        match &self.0 {
            Sink::Log(..) => Ok(PERMIT),
            Sink::Channel(send) if send.is_closed() => Err(StreamError::Closed),
            Sink::Channel(send) => Ok(if send.capacity() > 0 { PERMIT } else { 0 }),
        }
    }
}

enum Async {
    Log(Log, Stream),
    Channel(PollSender<Bytes>),
}

impl AsyncWrite for Async {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Async::Log(log, stream) => Poll::Ready(log.write(*stream, bytes).map(|()| bytes.len())),
            Async::Channel(send) => {
                let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
                std::task::ready!(send.poll_reserve(cx)).map_err(gone)?;
                Poll::Ready(
                    send.send_item(Bytes::copy_from_slice(bytes))
                        .map(|()| bytes.len())
                        .map_err(gone),
                )
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
