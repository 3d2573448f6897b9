//! Answers in Kubernetes' protobuf: an object's message is made once and shared, with an envelope around it for each who asks.

use bytes::{Bytes, BytesMut};
use model::{Failure, Gvk, Object};
use schema::protobuf::wire::{Fields, Wire, put_bytes, put_head, varint_length};
use schema::protobuf::{TAIL, head, schema_of};
use schema::{Schema, Table};
use serde_json::Value;

use crate::body::Joined;
use crate::negotiate::MetaVersion;

pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// Whether objects of a kind can be answered so. Custom ones cannot, but for their metadata.
pub(crate) fn has_form(gvk: &Gvk) -> bool {
    schema_of(gvk).is_ok()
}

/// The object's own message, from whoever asked for it first.
///
/// # Errors
/// `NotAcceptable` for a kind that has none.
pub(crate) fn message(object: &Object) -> Result<Bytes, Failure> {
    let make = || {
        let made = schema_of(&object.gvk).and_then(|schema| schema.encode_protobuf(&object.value()));
        match made {
            Ok(message) => Some(message.into()),
            Err(failure) => {
                tracing::error!(object = %object.key, %failure, "an object has no protobuf form");
                None
            }
        }
    };
    object.protobuf.get(make).ok_or_else(|| {
        Failure::NotAcceptable(format!(
            "{} {} has no protobuf form; ask for application/json",
            object.gvk, object.key
        ))
    })
}

/// The message of the object's `PartialObjectMetadata`.
///
/// # Errors
/// `Internal` if stored bytes are not what they ought to be.
pub(crate) fn metadata(object: &Object) -> Result<Bytes, Failure> {
    if has_form(&object.gvk) {
        // Metadata is field 1 of every kind, and of this one.
        let whole = message(object)?;
        let mut out = Vec::new();
        if let Some(Ok((1, Wire::Bytes(metadata)))) = Fields(&whole).next() {
            out.reserve(metadata.len() + 4);
            put_bytes(&mut out, 1, metadata);
        }
        return Ok(out.into());
    }
    let metadata: Value = crate::respond::raw_metadata(&object.json)
        .and_then(|metadata| serde_json::from_str(metadata).map_err(Failure::internal))?;
    let partial = partial(MetaVersion::V1, "PartialObjectMetadata");
    let message = schema_of(&partial)?.encode_protobuf(&serde_json::json!({"metadata": metadata}))?;
    Ok(message.into())
}

/// `PartialObjectMetadata` and its list, under the version that was asked for.
pub(crate) fn partial(version: MetaVersion, kind: &str) -> Gvk {
    Gvk::from_api_version(version.api_version(), kind)
}

/// A whole document: a message in its envelope.
pub(crate) fn enveloped(gvk: &Gvk, message: Bytes) -> Joined {
    let mut whole = Joined::default();
    whole.push(head(gvk, message.len()));
    whole.push(message);
    whole.push(Bytes::from_static(TAIL));
    whole
}

/// A list around messages that are there already.
///
/// # Errors
/// `Internal` if `list_meta` is not `ListMeta`.
pub(crate) fn list(gvk: &Gvk, list_meta: &Value, items: Vec<Bytes>) -> Result<Joined, Failure> {
    let meta = list_meta_schema()?.encode_protobuf(list_meta)?;
    let item_length = |item: &Bytes| 1 + varint_length(item.len() as u64) + item.len();
    let mut first = Vec::new();
    put_bytes(&mut first, 1, &meta);
    let length = first.len() + items.iter().map(item_length).sum::<usize>();
    let mut whole = Joined::default();
    whole.push(head(gvk, length));
    whole.push(first);
    for item in items {
        let mut tag = Vec::with_capacity(6);
        put_head(&mut tag, 2, item.len());
        whole.push(tag);
        whole.push(item);
    }
    whole.push(Bytes::from_static(TAIL));
    Ok(whole)
}

fn list_meta_schema() -> Result<Schema, Failure> {
    Table::builtin()
        .named("meta/v1.ListMeta", Gvk::new("meta.k8s.io", "v1", "ListMeta"))
        .ok_or_else(|| Failure::Internal("the table has no ListMeta".into()))
}

/// A JSON document of a kind that has protobuf (a `Status`, a `Scale`), in it. `None`: its kind has none.
///
/// # Errors
/// `Internal` if the document is not of its kind.
pub(crate) fn document(json: &[u8]) -> Result<Option<Joined>, Failure> {
    let value: Value = serde_json::from_slice(json).map_err(Failure::internal)?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let gvk = Gvk::from_api_version(text("apiVersion"), text("kind"));
    match schema_of(&gvk) {
        Ok(schema) => Ok(Some(enveloped(&gvk, schema.encode_protobuf(&value)?.into()))),
        Err(_) => Ok(None),
    }
}

/// Appends one frame of a watch: four bytes of length and a `WatchEvent` that holds a document.
pub(crate) fn frame(out: &mut BytesMut, event: &str, document: &Joined) {
    let length = document.len();
    let raw = 1 + varint_length(length as u64) + length;
    let mut begin = Vec::with_capacity(32);
    put_bytes(&mut begin, 1, event.as_bytes());
    put_head(&mut begin, 2, raw);
    put_head(&mut begin, 1, length);
    out.reserve(4 + begin.len() + length);
    out.extend_from_slice(&((begin.len() + length) as u32).to_be_bytes());
    out.extend_from_slice(&begin);
    document.append_to(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{GroupResource, ObjectKey};
    use serde_json::json;
    use std::sync::Arc;

    fn object(gvk: Gvk, name: &str) -> Object {
        let key = ObjectKey::new(GroupResource::new(&gvk.group, "x"), "default", name);
        let value = json!({
            "apiVersion": gvk.api_version(), "kind": gvk.kind,
            "metadata": {"name": name, "resourceVersion": "7", "labels": {"app": "web"}},
        });
        Object::from_value(Arc::new(gvk), key, &value).unwrap()
    }

    fn read(whole: Joined) -> (Gvk, Value) {
        let length = whole.len();
        let bytes = whole.concat();
        assert_eq!(bytes.len(), length);
        schema::protobuf::decode(&bytes).unwrap()
    }

    #[test]
    fn lists_are_read_as_what_was_put_in() {
        let names = ["a", "b", "c"];
        let pods = names.map(|name| message(&object(Gvk::new("", "v1", "Pod"), name)).unwrap());
        let meta = json!({"resourceVersion": "9", "continue": "x", "remainingItemCount": 4});
        let (gvk, read) = read(list(&Gvk::new("", "v1", "PodList"), &meta, pods.to_vec()).unwrap());
        assert_eq!(gvk.kind, "PodList");
        assert_eq!(read["metadata"], meta);
        let read: Vec<_> = read["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["metadata"]["name"])
            .collect();
        assert_eq!(read, names);
    }

    #[test]
    fn metadata_of_built_in_and_custom_kinds_is_alike() {
        for gvk in [Gvk::new("", "v1", "Pod"), Gvk::new("x.example.com", "v1", "Pet")] {
            let partial = partial(MetaVersion::V1, "PartialObjectMetadata");
            let object = object(gvk, "a");
            let (_, read) = read(enveloped(&partial, metadata(&object).unwrap()));
            assert_eq!(read["metadata"], object.value()["metadata"]);
        }
        assert!(!has_form(&Gvk::new("x.example.com", "v1", "Pet")));
        assert!(message(&object(Gvk::new("x.example.com", "v1", "Pet"), "a")).is_err());
    }

    #[test]
    fn a_frame_holds_an_event_that_holds_a_document() {
        let pod = object(Gvk::new("", "v1", "Pod"), "a");
        let mut out = BytesMut::new();
        frame(&mut out, "ADDED", &enveloped(&pod.gvk, message(&pod).unwrap()));
        let length = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
        assert_eq!(length, out.len() - 4);
        let mut fields = Fields(&out[4..]);
        assert_eq!(fields.next(), Some(Ok((1, Wire::Bytes(b"ADDED")))));
        let Some(Ok((2, Wire::Bytes(raw)))) = fields.next() else {
            panic!("no object")
        };
        let Some(Ok((1, Wire::Bytes(document)))) = Fields(raw).next() else {
            panic!("nothing raw")
        };
        assert_eq!(schema::protobuf::decode(document).unwrap().1["metadata"]["name"], "a");
    }
}
