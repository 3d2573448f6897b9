//! What the registry asks of `schema`: decoding, defaults, patches, and the books of who owns which field.

use bytes::Bytes;
use client::{FieldValidation, PatchKind};
use jiff::Timestamp;
use model::{Cause, Failure, Gvk};
use serde_json::Value;

use crate::resource::Resource;

pub(crate) fn decode(resource: &Resource, body: &Bytes, validation: FieldValidation, warnings: &mut Vec<String>) -> Result<Value, Failure> {
    decode_as(&resource.kind.gvk, body, validation, warnings)
}

pub(crate) fn decode_as(_gvk: &Gvk, body: &Bytes, _validation: FieldValidation, _warnings: &mut Vec<String>) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::BadRequest(e.to_string()))
}

pub(crate) fn default(_resource: &Resource, _new: &mut Value) {}

pub(crate) fn validate(_resource: &Resource, _new: &Value, _old: Option<&Value>, _wrong: &mut Vec<Cause>) {}

pub(crate) fn track(_resource: &Resource, _old: Option<&Value>, _new: &mut Value, _manager: &str, _subresource: &str, _now: Timestamp) -> Result<(), Failure> {
    Ok(())
}

/// Whether two states differ in nothing but bookkeeping.
pub(crate) fn same(new: &Value, old: &Value) -> bool {
    new == old
}

pub(crate) struct Patch {
    kind: PatchKind,
    body: Bytes,
}

impl Patch {
    pub(crate) fn read(_resource: &Resource, kind: PatchKind, body: &Bytes, _validation: FieldValidation, _warnings: &mut Vec<String>) -> Result<Self, Failure> {
        Ok(Self { kind, body: body.clone() })
    }

    pub(crate) fn read_as(_gvk: &Gvk, kind: PatchKind, body: &Bytes, _validation: FieldValidation, _warnings: &mut Vec<String>) -> Result<Self, Failure> {
        Ok(Self { kind, body: body.clone() })
    }

    pub(crate) fn apply(&self, old: &Value, _manager: &str, _subresource: &str, _now: Timestamp, _warnings: &mut Vec<String>) -> Result<Value, Failure> {
        let patch: Value = serde_json::from_slice(&self.body).map_err(|e| Failure::BadRequest(e.to_string()))?;
        let mut new = old.clone();
        match self.kind {
            PatchKind::Merge => merge(&mut new, &patch),
            _ => return Err(Failure::UnsupportedMediaType("not yet".into())),
        }
        Ok(new)
    }

    pub(crate) fn apply_to_nothing(&self, _manager: &str, _now: Timestamp) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|e| Failure::BadRequest(e.to_string()))
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().map(|t| t.remove(key))),
            value => merge(&mut target[key], value),
        }
    }
}
