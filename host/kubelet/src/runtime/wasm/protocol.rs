//! What kubelet and shim say to each other over the shim's socket: a JSON line each way, then frames for `exec`.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::runtime::{ContainerConfig, ContainerFacts, PodRef, SandboxFacts};

/// `DIR/sandbox.json`, written by the kubelet before it starts the shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub pod: PodRef,
    pub id: String,
    pub log_dir: PathBuf,
    /// Use this address (host network); otherwise the shim claims one of its own.
    pub ip: Option<String>,
    /// Where to begin looking for a free address.
    pub hint: u32,
}

/// The shim's only line on its standard output, once its socket listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub ip: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    Start(Box<Start>),
    Stop {
        id: String,
        grace_ms: u64,
    },
    Remove {
        id: String,
    },
    /// Answered by a [`State`] now and after each change.
    Watch,
    /// Answered by `Ok`, then frames.
    Exec {
        id: String,
        command: Vec<String>,
        stdin: bool,
        /// Both outputs are one. (A shim of an earlier version keeps them apart.)
        #[serde(default)]
        tty: bool,
    },
    /// The shim ends, and all in it.
    End,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub id: String,
    pub config: ContainerConfig,
    pub code: PathBuf,
    /// SHA-256 of the code in hex: it is not mapped unless it has this.
    pub digest: String,
    pub serves: bool,
}

pub(crate) type Answer = Result<(), Refused>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refused {
    /// The compiled code is not what was compiled: it was not mapped, and has to be made again.
    Damaged,
    Because(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Refused::Because(why)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub pod: PodRef,
    pub sandbox: SandboxFacts,
    pub containers: Vec<ContainerFacts>,
    /// When the shim looked. What it started after that is not in here, however late this is read.
    #[serde(default)]
    pub observed: Timestamp,
}

/// Channels of frames: `[channel u8][length u32 big-endian][bytes]`. No bytes on a stream channel: its end.
pub(crate) mod channel {
    pub(crate) const STDIN: u8 = 0;
    pub(crate) const STDOUT: u8 = 1;
    pub(crate) const STDERR: u8 = 2;
    /// Four bytes: the exit code, big-endian. The last frame.
    pub(crate) const EXIT: u8 = 3;
}

/// Longer lines and frames are refused: neither side trusts the other with its memory.
const MOST: usize = 4 << 20;

pub(crate) async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line).await
}

pub(crate) async fn receive<T: for<'a> Deserialize<'a>>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = from.take(MOST as u64).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::other("a message was cut or is too long"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

pub(crate) async fn send_frame(to: &mut (impl AsyncWrite + Unpin), channel: u8, bytes: &[u8]) -> io::Result<()> {
    let mut head = [channel, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    to.write_all(&head).await?;
    to.write_all(bytes).await
}

pub(crate) async fn receive_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Bytes)>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MOST {
        return Err(io::Error::other("a frame is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some((head[0], bytes.into())))
}

/// The socket in a shim's folder, by a path that fits into a socket address however deep the folder lies.
pub(crate) struct Door {
    _dir: std::fs::File,
    pub path: PathBuf,
}

pub(crate) fn door(dir: &std::path::Path) -> io::Result<Door> {
    use std::os::fd::AsRawFd;
    let held = std::fs::File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/shim.sock", held.as_raw_fd()));
    Ok(Door { _dir: held, path })
}
