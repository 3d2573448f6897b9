//! Between the bytes that are stored and the [`Object`] that is shared.
//!
//! What is stored has no `metadata.resourceVersion`: the revision of the write is not known before the write. It is
//! spliced into the bytes, always as the first member of `metadata`, without parsing the rest of the document.
//!
//! Stored bytes are JSON, or protobuf as a stock kube-apiserver keeps built-in kinds. Either is read wherever it is found
//! ([`Media`] says only what is written), so that a store may be handed from one to the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use model::{Failure, FieldSet, Gvk, Object, ObjectKey, ResourceVersion, Uid};
use schema::protobuf;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::legacy;
use crate::resource::Selectable;

const FIELD: &[u8] = b"\"resourceVersion\":\"";

/// In which form built-in kinds are stored (kube-apiserver's `--storage-media-type`). Custom kinds are always JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Media {
    #[default]
    Json,
    /// What a stock kube-apiserver writes.
    Protobuf,
}

/// Kube-apiserver keeps the kinds of these groups as JSON whatever else it is told: its servers for them are apart.
const ALWAYS_JSON: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// kube-apiserver's encryption at rest.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// A document on its way into the store.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// What is stored.
    pub(crate) bytes: Bytes,
    /// The same as JSON, for [`stored`].
    pub(crate) json: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// An object from what the store holds of it.
///
/// # Errors
/// [`Failure::Internal`] for bytes that no registry wrote.
pub(crate) fn stored(
    gvk: &Arc<Gvk>,
    key: ObjectKey,
    bytes: &[u8],
    version: ResourceVersion,
) -> Result<Object, Failure> {
    let from_protobuf;
    let bytes = if protobuf::is_protobuf(bytes) {
        from_protobuf = json_of(&key, bytes)?;
        &from_protobuf[..]
    } else {
        bytes
    };
    let unreadable = |e: serde_json::Error| {
        if bytes.starts_with(ENCRYPTED) {
            return Failure::Internal(format!(
                "{key} is encrypted at rest: have kube-apiserver write it anew with the `identity` provider first"
            ));
        }
        Failure::Internal(format!("what is stored for {key} cannot be read: {e}"))
    };
    let mut head: Head<'_> = serde_json::from_slice(bytes).map_err(unreadable)?;
    let upgraded;
    let bytes = if legacy::is_old(&head.api_version) {
        let mut value: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
        legacy::upgrade(&mut value);
        upgraded = serde_json::to_vec(&value).map_err(Failure::internal)?;
        head = serde_json::from_slice(&upgraded).map_err(unreadable)?;
        &upgraded
    } else {
        bytes
    };
    let meta: Meta<'_> = serde_json::from_str(head.metadata.get()).map_err(unreadable)?;
    let labels = meta
        .labels
        .iter()
        .flatten()
        .map(|(k, v)| (k.as_ref(), v.as_ref()))
        .collect();
    let uid = Uid(meta.uid.as_ref().into());
    let json = if meta.resource_version.is_some() {
        // Written by somebody who stores the version too; rare, so the slow way will do.
        let mut value: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
        value["metadata"]["resourceVersion"] = version.to_string().into();
        serde_json::to_vec(&value).map_err(unreadable)?.into()
    } else {
        splice(bytes, within(bytes, head.metadata), version)
    };
    Ok(Object {
        gvk: gvk_of(gvk, &head.api_version),
        key,
        uid,
        version,
        labels,
        json,
        protobuf: Default::default(),
    })
}

/// The JSON of what a stock kube-apiserver stored.
fn json_of(key: &ObjectKey, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let (gvk, mut value) = protobuf::decode(bytes)
        .map_err(|failure| Failure::Internal(format!("what is stored for {key} cannot be read: {failure}")))?;
    // Protobuf has no place for the kind of what is inside another object. Only here clients see it all the same.
    if gvk.group == "apps" && gvk.kind == "StatefulSet" {
        let claims = value
            .pointer_mut("/spec/volumeClaimTemplates")
            .and_then(Value::as_array_mut);
        for claim in claims.into_iter().flatten() {
            claim["apiVersion"] = "v1".into();
            claim["kind"] = "PersistentVolumeClaim".into();
        }
    }
    serde_json::to_vec(&value).map_err(Failure::internal)
}

/// The kind's own, unless the object was stored when another version was the stored one.
fn gvk_of(gvk: &Arc<Gvk>, api_version: &str) -> Arc<Gvk> {
    let same = match api_version.split_once('/') {
        Some((group, version)) => gvk.group == group && gvk.version == version,
        None => api_version.is_empty() || gvk.group.is_empty() && gvk.version == api_version,
    };
    if same {
        gvk.clone()
    } else {
        Arc::new(Gvk::from_api_version(api_version, &gvk.kind))
    }
}

/// The same object as of another version: the last state of a deleted one, at the version of its deletion.
pub(crate) fn at_version(object: &Object, version: ResourceVersion) -> Object {
    let mut object = object.clone();
    object.version = version;
    if let Ok(head) = serde_json::from_slice::<Head<'_>>(&object.json) {
        let meta = within(&object.json, head.metadata);
        let after = meta.start + 1;
        if object.json[after..].starts_with(FIELD) {
            let digits = after + FIELD.len();
            let end = digits + object.json[digits..].iter().position(|&b| b == b'"').unwrap_or(0);
            let mut json = Vec::with_capacity(object.json.len() + 4);
            json.extend_from_slice(&object.json[..digits]);
            json.extend_from_slice(version.to_string().as_bytes());
            json.extend_from_slice(&object.json[end..]);
            object.json = json.into();
        } else {
            let mut value = object.value();
            value["metadata"]["resourceVersion"] = version.to_string().into();
            object.json = value.to_string().into();
        }
    }
    object
}

/// What to store for a document of a kind: without its version.
///
/// # Errors
/// `Internal` for a value that does not fit its kind.
pub(crate) fn encode(media: Media, gvk: &Gvk, value: &mut Value) -> Result<Encoded, Failure> {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
    }
    let json = Bytes::from(serde_json::to_vec(value).map_err(Failure::internal)?);
    let bytes = match media {
        Media::Protobuf if !ALWAYS_JSON.contains(&gvk.group.as_str()) => match protobuf::schema_of(gvk) {
            Ok(schema) => {
                let message = schema.encode_protobuf(value)?;
                [&protobuf::head(gvk, message.len()), &message[..], protobuf::TAIL]
                    .concat()
                    .into()
            }
            // A custom kind.
            Err(_) => json.clone(),
        },
        _ => json.clone(),
    };
    Ok(Encoded { bytes, json })
}

fn within(bytes: &[u8], raw: &RawValue) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - bytes.as_ptr() as usize;
    start..start + raw.get().len()
}

fn splice(bytes: &[u8], meta: Range<usize>, version: ResourceVersion) -> Bytes {
    let digits = version.to_string();
    let mut json = Vec::with_capacity(bytes.len() + FIELD.len() + digits.len() + 2);
    json.extend_from_slice(&bytes[..=meta.start]);
    json.extend_from_slice(FIELD);
    json.extend_from_slice(digits.as_bytes());
    json.push(b'"');
    let rest = &bytes[meta.start + 1..];
    if rest.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'}') {
        json.push(b',');
    }
    json.extend_from_slice(rest);
    json.into()
}

/// Reads a kind's selectable fields out of a document's bytes, as text.
#[derive(Debug, Clone)]
pub(crate) struct Picker {
    fields: FieldSet,
    /// What its absence counts as, and how many places a field is read at.
    defaults: Vec<(CompactString, usize)>,
}

impl Picker {
    /// # Errors
    /// [`Failure::BadRequest`] for a text that is no path.
    pub(crate) fn new(selectable: &[Selectable]) -> Result<Self, Failure> {
        let mut paths = Vec::new();
        let mut defaults = Vec::new();
        for field in selectable {
            match field.places.as_slice() {
                [] => paths.push(field.path.as_str()),
                places => paths.extend(places.iter().map(String::as_str)),
            }
            defaults.push((field.default.into(), field.places.len().max(1)));
        }
        Ok(Self {
            fields: FieldSet::parse(&paths)?,
            defaults,
        })
    }

    /// The values as text, in the order of the fields.
    pub(crate) fn pick(&self, json: &[u8]) -> Box<[CompactString]> {
        if self.defaults.is_empty() {
            return Box::default();
        }
        let mut values = self.fields.read(json).into_iter();
        let pick = |(default, places): &(CompactString, usize)| {
            let found = values
                .by_ref()
                .take(*places)
                .fold(None, |found: Option<CompactString>, value| {
                    let text = value.to_text();
                    found.or_else(|| (!text.is_empty()).then(|| text.as_ref().into()))
                });
            found.unwrap_or_else(|| default.clone())
        };
        self.defaults.iter().map(pick).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::GroupResource;
    use serde_json::json;

    fn key() -> ObjectKey {
        ObjectKey::new(GroupResource::new("", "pods"), "default", "a")
    }

    #[test]
    fn the_version_is_spliced_in_and_moved() {
        let gvk = Arc::new(Gvk::new("", "v1", "Pod"));
        for value in [
            json!({"apiVersion": "v1", "metadata": {"uid": "u", "labels": {"a": "b"}}, "spec": {"metadata": {}}}),
            json!({"metadata": {}, "z": 1}),
        ] {
            let object = stored(&gvk, key(), value.to_string().as_bytes(), ResourceVersion(7)).unwrap();
            let mut expected = value.clone();
            expected["metadata"]["resourceVersion"] = "7".into();
            assert_eq!(object.value(), expected);
            let later = at_version(&object, ResourceVersion(1234));
            expected["metadata"]["resourceVersion"] = "1234".into();
            assert_eq!(
                (later.value(), later.version),
                (expected.clone(), ResourceVersion(1234))
            );
            for media in [Media::Json, Media::Protobuf] {
                let again = encode(media, &gvk, &mut later.value()).unwrap();
                assert_eq!(protobuf::is_protobuf(&again.bytes), media == Media::Protobuf);
                for bytes in [again.bytes, again.json] {
                    let again = stored(&gvk, key(), &bytes, ResourceVersion(9)).unwrap();
                    assert_eq!((&again.uid, &again.labels), (&object.uid, &object.labels));
                    assert_eq!(again.value()["metadata"]["resourceVersion"], "9");
                }
            }
        }
        for bad in [&b"{}"[..], b"k8s\0\x0a\x7f", b"k8s:enc:aescbc:v1:key1:..."] {
            let failure = stored(&gvk, key(), bad, ResourceVersion(1)).unwrap_err().to_string();
            assert!(failure.contains("pods \"a\""), "{failure}");
        }
    }

    #[test]
    fn custom_kinds_and_their_definitions_are_always_json() {
        for gvk in [
            Gvk::new("x.example.com", "v1", "Pet"),
            Gvk::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            Gvk::new("apiregistration.k8s.io", "v1", "APIService"),
        ] {
            let encoded = encode(Media::Protobuf, &gvk, &mut json!({"metadata": {"name": "a"}})).unwrap();
            assert_eq!(encoded.bytes, encoded.json);
        }
    }

    #[test]
    fn a_stored_version_is_overruled() {
        let gvk = Arc::new(Gvk::new("", "v1", "Pod"));
        let object = stored(
            &gvk,
            key(),
            br#"{"metadata":{"resourceVersion":"3"}}"#,
            ResourceVersion(7),
        )
        .unwrap();
        assert_eq!(object.value()["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn fields_are_picked_without_parsing_the_rest() {
        let field = |path: &str, default, places: &[&str]| Selectable {
            path: path.into(),
            default,
            places: places.iter().map(|&place| place.into()).collect(),
        };
        let picker = Picker::new(&[
            field("spec.nodeName", "", &[]),
            field("status.phase", "Pending", &[]),
            field("spec.hostNetwork", "false", &[]),
            field("source", "", &["spec.nothing", "spec.nodeName"]),
        ])
        .unwrap();
        let json =
            br#"{"spec":{"containers":[{"nodeName":"x"}],"nodeName":"n\u0031","hostNetwork":true},"other":null}"#;
        assert_eq!(&*picker.pick(json), ["n1", "Pending", "true", "n1"]);
        assert_eq!(&*picker.pick(b"{}"), ["", "Pending", "false", ""]);
    }
}
