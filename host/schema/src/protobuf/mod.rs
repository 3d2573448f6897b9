//! Kubernetes' protobuf, both ways, by the numbers of the table: what a client sends and reads, and what a stock
//! kube-apiserver leaves in etcd.
//!
//! A document is the four bytes `k8s\0` and a `runtime.Unknown` ([`Envelope`]), which says what kind it is and holds the
//! kind's own message
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>). Messages are proto2 as gogo-proto
//! writes it for Go structs: what is no pointer is always written, lists are not packed, fields stand in the order of
//! their numbers and map entries in that of their keys. So equal objects give equal bytes, here and in Kubernetes.

mod decode;
mod encode;
mod envelope;
pub mod wire;

use model::{Failure, Gvk};
use serde_json::Value;

use crate::{Schema, Table};

pub use envelope::{Envelope, MAGIC, TAIL, head, is_protobuf};

/// A document in its envelope, whatever built-in kind it is: the kind, and the same value that decoding its JSON gives.
///
/// # Errors
/// `BadRequest` for what is not well encoded, `UnsupportedMediaType` for a kind that has no protobuf.
pub fn decode(document: &[u8]) -> Result<(Gvk, Value), Failure> {
    let envelope = Envelope::open(document)?;
    let schema = schema_of(&envelope.gvk)?;
    let value = schema.decode_protobuf(envelope.raw)?;
    Ok((envelope.gvk, value))
}

/// The schema of a kind that has protobuf.
///
/// # Errors
/// `UnsupportedMediaType` if it has none.
pub fn schema_of(gvk: &Gvk) -> Result<Schema, Failure> {
    // Every group sends and answers these as its own.
    let shared = ["CreateOptions", "DeleteOptions", "PatchOptions", "UpdateOptions"];
    let found = match gvk.kind.as_str() {
        kind if shared.contains(&kind) => Table::builtin().named(&format!("meta/v1.{kind}"), gvk.clone()),
        _ => Table::builtin().schema(gvk),
    };
    found.filter(Schema::has_protobuf).ok_or_else(|| {
        Failure::UnsupportedMediaType(format!(
            "no protobuf form of {gvk} is known; send it as application/json"
        ))
    })
}

impl Schema {
    /// Built-in kinds have a protobuf form, but for a few that Kubernetes defines in JSON alone; custom kinds have none.
    pub fn has_protobuf(&self) -> bool {
        !self.root().wired().is_empty()
    }

    /// The kind's own message, out of its envelope, as the value that [`Schema::decode`] gives for the same object in
    /// JSON. Fields of newer versions are left out.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] for what is not well encoded, nested too deeply, or made of more values than any real
    /// object.
    pub fn decode_protobuf(&self, message: &[u8]) -> Result<Value, Failure> {
        let mut object = decode::message(self.root(), message).map_err(|why| self.refused(why))?;
        let gvk = self.gvk();
        object.insert("apiVersion".into(), gvk.api_version().into());
        object.insert("kind".into(), gvk.kind.as_str().into());
        let mut value = Value::Object(object);
        self.conform(&mut value)?;
        Ok(value)
    }

    /// The kind's own message for a value that was decoded (in either way). For an envelope see [`head`].
    ///
    /// # Errors
    /// [`Failure::Internal`] for a value that does not fit the schema, which decoding would have refused.
    pub fn encode_protobuf(&self, value: &Value) -> Result<Vec<u8>, Failure> {
        encode::message(self.root(), value)
            .map_err(|why| Failure::Internal(format!("{} cannot be encoded in protobuf: {why}", self.gvk())))
    }
}
