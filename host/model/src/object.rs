//! One revision of one object, its JSON shared by everyone who holds it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use compact_str::CompactString;
use serde_json::Value;

use crate::{Failure, Gvk, ObjectKey, ResourceVersion, Uid};

/// Labels in key order, as selectors want them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(CompactString, CompactString)]>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        pairs.sort();
        pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        Self(pairs.into())
    }
}

/// One revision of one object. Never changes once made; hold it as `Arc<Object>`.
///
/// The document is encoded once, with its `metadata.resourceVersion` in place, and every watcher, list, view and plugin
/// reads those same bytes. What many need at every event (key, uid, version, labels) is picked out beside it.
#[derive(Debug, Clone)]
pub struct Object {
    pub gvk: Arc<Gvk>,
    pub key: ObjectKey,
    pub uid: Uid,
    pub version: ResourceVersion,
    pub labels: Labels,
    /// UTF-8 JSON of the whole object, `apiVersion` and `kind` included.
    pub json: Bytes,
    /// The kind's protobuf message of the same object, for those who ask for it.
    pub protobuf: MadeOnce,
}

/// Another encoding of an object, made when it is first asked for and shared from then on.
///
/// A copy begins empty: objects are copied to be changed.
#[derive(Debug, Default)]
pub struct MadeOnce(OnceLock<Option<Box<Bytes>>>);

impl MadeOnce {
    /// The bytes, from `make` if nobody has asked before; who asks meanwhile waits. `None`: they cannot be made.
    pub fn get(&self, make: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        self.0.get_or_init(|| make().map(Box::new)).as_deref().cloned()
    }
}

impl Clone for MadeOnce {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Object {
    /// From a document that says its own `apiVersion`, `kind` and `metadata`. `key` says where it lives.
    ///
    /// # Errors
    /// [`Failure::Internal`] if `metadata` is missing or misshapen: such a document should never have been stored.
    pub fn from_value(gvk: Arc<Gvk>, key: ObjectKey, value: &Value) -> Result<Self, Failure> {
        let json = serde_json::to_vec(value).map_err(Failure::internal)?;
        let meta = value.get("metadata").and_then(Value::as_object);
        let meta = meta.ok_or_else(|| Failure::Internal(format!("{key} was read without its metadata")))?;
        let text = |name: &str| meta.get(name).and_then(Value::as_str).unwrap_or_default();
        let labels = meta.get("labels").and_then(Value::as_object);
        let labels = labels
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
            .collect();
        let version = match text("resourceVersion") {
            "" => ResourceVersion::default(),
            version => version.parse()?,
        };
        Ok(Self {
            gvk,
            uid: Uid(text("uid").into()),
            version,
            labels,
            json: json.into(),
            protobuf: MadeOnce::default(),
            key,
        })
    }

    /// Parses the document. For writers and deciders of rare things; hot paths read single fields from the bytes.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).expect("an Object's bytes are JSON by construction")
    }

    /// The document as a typed Kubernetes object, or whatever the caller can deserialize.
    ///
    /// # Errors
    /// [`Failure::Internal`] when the document does not have that shape.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.json).map_err(Failure::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_encoding_is_made_once_and_not_copied() {
        let made = MadeOnce::default();
        assert_eq!(made.get(|| Some(Bytes::from_static(b"a"))).as_deref(), Some(&b"a"[..]));
        assert_eq!(made.get(|| unreachable!("made already")).as_deref(), Some(&b"a"[..]));
        assert_eq!(made.clone().get(|| None), None);
    }
}
