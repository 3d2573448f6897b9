//! Recordings: what a call asked and what it was told, so that it can be run again anywhere.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{Failure, Gvk};
use serde::{Deserialize, Serialize};

use crate::question::Ask;

/// One read as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Read {
    Get {
        kind: Gvk,
        namespace: String,
        name: String,
        fields: String,
    },
    /// `find`, `tally` and `changes`; `limit` and `cursor` where they have one.
    Ask {
        kind: Gvk,
        ask: Ask,
        limit: u32,
        cursor: u64,
    },
    /// Past the view; not a reason to run again.
    Live {
        kind: Gvk,
        namespace: String,
        name: String,
        fields: String,
    },
    Scale {
        kind: Gvk,
        namespace: String,
        name: String,
    },
    Kinds,
    Reached(i64),
    /// An answer of the host that is no read of the view: chance, a metric.
    Noted(String),
}

/// What came back. A failure is an answer too; the guest sees its sentence.
pub type Answer = Result<Bytes, Refused>;

/// A failed read, as it crosses to a plugin and into a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Kubernetes' `Status.reason`, in lower case: `forbidden`.
    pub reason: String,
    pub message: String,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let reason = match &failure {
            Failure::NotFound(_) | Failure::NoSuchResource { .. } => "not-found",
            Failure::Forbidden { .. } | Failure::Unauthorized(_) | Failure::Denied { .. } => "forbidden",
            Failure::BadRequest(_) => "bad-request",
            Failure::Expired(_) | Failure::TooLargeVersion { .. } => "expired",
            Failure::TooManyRequests { .. } => "too-many-requests",
            Failure::Timeout(_) => "timeout",
            Failure::Unavailable { .. } | Failure::Unreached(_) | Failure::Plugin { .. } => "unavailable",
            Failure::AlreadyExists(_) => "already-exists",
            Failure::Conflict { .. } => "conflict",
            Failure::Invalid { .. } => "invalid",
            Failure::MethodNotAllowed { .. }
            | Failure::NotAcceptable(_)
            | Failure::UnsupportedMediaType(_)
            | Failure::TooLarge { .. } => "bad-request",
            Failure::Internal(_) => "internal",
        };
        Self {
            reason: reason.into(),
            message: failure.to_string(),
        }
    }
}

impl From<Refused> for Failure {
    /// As near as a sentence comes: what a guest is told of it stays the same.
    fn from(refused: Refused) -> Self {
        let Refused { reason, message } = refused;
        match reason.as_str() {
            "not-found" => Failure::NoSuchResource { asked: message },
            "forbidden" => Failure::Unauthorized(message),
            "bad-request" | "invalid" => Failure::BadRequest(message),
            "expired" => Failure::Expired(message),
            "timeout" => Failure::Timeout(message),
            "too-many-requests" => Failure::TooManyRequests {
                reason: message,
                retry_after: std::time::Duration::from_secs(1),
                causes: Vec::new(),
            },
            _ => Failure::Internal(message),
        }
    }
}

/// A call: what it was given, what it asked in which order, what it was told.
///
/// As bytes: `"rec1"`, then the request, the time (i64), the number of reads (u32), and for each the question as JSON, a
/// byte that is 1 for an answer, and the answer's bytes or the failure as JSON. Each of variable length has its length
/// (u32) before it; numbers are little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Whatever the host hands to the plugin, in the host's own form.
    pub request: Bytes,
    /// Milliseconds since 1970.
    pub now: i64,
    pub reads: Vec<(Read, Answer)>,
}

impl Recording {
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::from(&b"rec1"[..]);
        let put = |out: &mut BytesMut, bytes: &[u8]| {
            out.put_u32_le(bytes.len() as u32);
            out.put_slice(bytes);
        };
        put(&mut out, &self.request);
        out.put_i64_le(self.now);
        out.put_u32_le(self.reads.len() as u32);
        for (read, answer) in &self.reads {
            put(&mut out, &serde_json::to_vec(read).expect("plain data"));
            out.put_u8(answer.is_ok().into());
            match answer {
                Ok(bytes) => put(&mut out, bytes),
                Err(refused) => put(&mut out, &serde_json::to_vec(refused).expect("plain data")),
            }
        }
        out.freeze()
    }

    /// # Errors
    /// [`Failure::BadRequest`] if the bytes are no recording, or one that was cut off.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, Failure> {
        Self::read(bytes).ok_or_else(|| Failure::BadRequest("these bytes are not a whole recording of a call".into()))
    }

    fn read(mut bytes: Bytes) -> Option<Self> {
        fn take(bytes: &mut Bytes) -> Option<Bytes> {
            let length = bytes.try_get_u32_le().ok()? as usize;
            (length <= bytes.len()).then(|| bytes.split_to(length))
        }
        if bytes.len() < 4 || bytes.split_to(4) != b"rec1"[..] {
            return None;
        }
        let request = take(&mut bytes)?;
        let now = bytes.try_get_i64_le().ok()?;
        let count = bytes.try_get_u32_le().ok()?;
        let mut reads = Vec::new();
        for _ in 0..count {
            let read = serde_json::from_slice(&take(&mut bytes)?).ok()?;
            let ok = bytes.try_get_u8().ok()?;
            let answer = take(&mut bytes)?;
            reads.push((
                read,
                if ok == 1 {
                    Ok(answer)
                } else {
                    Err(serde_json::from_slice(&answer).ok()?)
                },
            ));
        }
        bytes.is_empty().then_some(Self { request, now, reads })
    }
}
