//! Bodies: requests read up to a limit, and answers made of pieces that are shared with everyone else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use model::Failure;
use serde_json::Value;

use crate::negotiate::Encoding;
use crate::yaml;

/// Kubernetes' own limit for a request body.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;

/// What is read of a body that is too long before the connection is cut: most clients look for the answer only when
/// they have sent all they have.
const PATIENCE: usize = 16 * 1024 * 1024;

/// Reads a whole body.
///
/// # Errors
/// `TooLarge`, or `BadRequest` if it broke off.
pub(crate) async fn read(mut body: Body) -> Result<Bytes, Failure> {
    let expected = usize::try_from(http_body::Body::size_hint(&body).lower()).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(expected.min(LIMIT));
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Failure::BadRequest(format!("the body could not be read to its end: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen += data.len();
        if seen > PATIENCE {
            break;
        }
        if seen <= LIMIT {
            whole.extend_from_slice(&data);
        }
    }
    if seen > LIMIT {
        Err(Failure::TooLarge { limit: LIMIT })
    } else {
        Ok(whole.freeze())
    }
}

/// A body as the registry takes it.
pub(crate) struct Text {
    pub(crate) json: Bytes,
    /// What is lost in `json`: keys that stood twice in YAML, told by their lines (`line 9: key "foo" already set in map`).
    pub(crate) doubled: Vec<String>,
}

/// A body as JSON. JSON stays as it is, to the byte: the registry reports what is wrong in it by its place.
///
/// # Errors
/// `BadRequest` for YAML or protobuf that cannot be read.
pub(crate) fn json(body: Bytes, encoding: Encoding) -> Result<Text, Failure> {
    let plain = |json| Text {
        json,
        doubled: Vec::new(),
    };
    match encoding {
        Encoding::Json => Ok(plain(body)),
        Encoding::Protobuf => {
            let (_, value) = schema::protobuf::decode(&body)?;
            Ok(plain(serde_json::to_vec(&value).map_err(Failure::internal)?.into()))
        }
        Encoding::Yaml => {
            // Apply patches are called YAML and are nearly always JSON.
            if body.first() == Some(&b'{')
                && let Some(doubled) = yaml::read_json(&body)
            {
                return Ok(Text { json: body, doubled });
            }
            let yaml::Read { value, doubled } = yaml::read(&body)
                .map_err(|error| Failure::BadRequest(format!("error converting YAML to JSON: yaml: {error}")))?;
            let json = serde_json::to_vec(&value).map_err(Failure::internal)?.into();
            Ok(Text { json, doubled })
        }
    }
}

/// JSON as YAML text.
///
/// # Errors
/// `Internal` if the bytes are not JSON.
pub(crate) fn yaml(json: &[u8]) -> Result<String, Failure> {
    let value: Value = serde_json::from_slice(json).map_err(Failure::internal)?;
    serde_yaml_ng::to_string(&value).map_err(Failure::internal)
}

/// Pieces sent one after the other, none copied. Its length is known, so clients get a `Content-Length`.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Joined {
    pub(crate) fn of(piece: impl Into<Bytes>) -> Self {
        let mut one = Self::default();
        one.push(piece);
        one
    }

    pub(crate) fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        if !piece.is_empty() {
            self.left += piece.len() as u64;
            self.pieces.push_back(piece);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.left as usize
    }

    pub(crate) fn append_to(&self, out: &mut BytesMut) {
        for piece in &self.pieces {
            out.extend_from_slice(piece);
        }
    }

    /// One buffer; for the few answers that must be rewritten.
    pub(crate) fn concat(self) -> Vec<u8> {
        self.pieces
            .into_iter()
            .fold(Vec::with_capacity(self.left as usize), |mut all, piece| {
                all.extend_from_slice(&piece);
                all
            })
    }
}

/// Small pieces are gathered into frames of about this size: a frame costs more than the copy of a few bytes.
const FRAME: usize = 64 * 1024;

impl http_body::Body for Joined {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.pieces.pop_front() else {
            return Poll::Ready(None);
        };
        let frame = if first.len() >= FRAME || self.pieces.is_empty() {
            first
        } else {
            let mut frame = Vec::with_capacity(FRAME);
            frame.extend_from_slice(&first);
            while let Some(next) = self.pieces.front() {
                if frame.len() + next.len() > FRAME {
                    break;
                }
                frame.extend_from_slice(next);
                self.pieces.pop_front();
            }
            frame.into()
        };
        self.left -= frame.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
