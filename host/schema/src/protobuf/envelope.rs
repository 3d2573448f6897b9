//! `runtime.Unknown`: what kind a message is of, and the message.

use model::{Failure, Gvk};

use super::wire::{Fields, Wire, put_bytes, put_head};

/// What every document begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// What follows the message in an envelope: content encoding and content type, both empty.
pub const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// An envelope, opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    pub gvk: Gvk,
    /// The kind's own message.
    pub raw: &'a [u8],
}

/// Whether bytes claim to be Kubernetes' protobuf. JSON never does.
pub fn is_protobuf(document: &[u8]) -> bool {
    document.starts_with(MAGIC)
}

impl<'a> Envelope<'a> {
    /// # Errors
    /// `BadRequest` for anything that is no envelope or does not say its kind.
    pub fn open(document: &'a [u8]) -> Result<Self, Failure> {
        Self::read(document).map_err(|why| Failure::BadRequest(format!("the protobuf body cannot be read: {why}")))
    }

    fn read(document: &'a [u8]) -> Result<Self, String> {
        let envelope = document
            .strip_prefix(MAGIC)
            .ok_or("it does not begin with the bytes k8s\\0")?;
        let (mut api_version, mut kind, mut raw) = ("", "", &[][..]);
        for field in Fields(envelope) {
            match field? {
                (1, Wire::Bytes(meta)) => {
                    for field in Fields(meta) {
                        match field? {
                            (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                            (2, Wire::Bytes(text)) => kind = utf8(text)?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(message)) => raw = message,
                (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                    return Err(format!("its content encoding is {:?}; none is known", utf8(encoding)?));
                }
                (4, Wire::Bytes(content)) if !matches!(content, b"" | b"application/vnd.kubernetes.protobuf") => {
                    return Err(format!("its content type is {:?}, not protobuf", utf8(content)?));
                }
                _ => {}
            }
        }
        if kind.is_empty() || api_version.is_empty() {
            return Err("its envelope does not say apiVersion and kind".into());
        }
        Ok(Self {
            gvk: Gvk::from_api_version(api_version, kind),
            raw,
        })
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8")
}

/// All of an envelope that comes before a message of so many bytes; [`TAIL`] comes after it. So that messages that are
/// shared need not be copied.
pub fn head(gvk: &Gvk, length: usize) -> Vec<u8> {
    let mut meta = Vec::with_capacity(64);
    put_bytes(&mut meta, 1, gvk.api_version().as_bytes());
    put_bytes(&mut meta, 2, gvk.kind.as_bytes());
    let mut head = MAGIC.to_vec();
    put_bytes(&mut head, 1, &meta);
    put_head(&mut head, 2, length);
    head
}
