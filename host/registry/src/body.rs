//! What the registry asks of `schema`: decoding, defaults, patches, and the books of who owns which field.

use bytes::Bytes;
use client::{FieldValidation, PatchKind};
use jiff::Timestamp;
use model::{Cause, Failure, Gvk, ObjectKey};
use schema::apply::Writer;
use schema::{Schema, Table};
use serde_json::{Map, Value};

use crate::meta;
use crate::resource::Resource;

/// A body of the resource's own kind: read, pruned, canonical, with the declared defaults.
pub(crate) fn decode(
    resource: &Resource,
    body: &Bytes,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Failure> {
    read(&resource.schema, body, validation, warnings)
}

/// A body of another built-in kind (`v1/Binding`, `autoscaling/v1/Scale`).
pub(crate) fn decode_as(
    gvk: &Gvk,
    body: &Bytes,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Failure> {
    read(&schema_of(gvk), body, validation, warnings)
}

pub(crate) fn schema_of(gvk: &Gvk) -> Schema {
    Table::builtin()
        .schema(gvk)
        .unwrap_or_else(|| Schema::untyped(gvk.clone()))
}

fn read(
    schema: &Schema,
    body: &Bytes,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Failure> {
    let decoded = schema.decode(body)?;
    if !decoded.value.is_object() {
        let kind = &schema.gvk().kind;
        return Err(Failure::BadRequest(format!(
            "the body of the request is not a {kind}: a JSON object is expected"
        )));
    }
    judge(decoded.problems, validation, warnings, |problems| {
        schema.strict(problems)
    })?;
    let mut value = decoded.value;
    schema.default(&mut value);
    Ok(value)
}

/// What the request wants done about unknown and doubled fields.
fn judge(
    problems: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
    refuse: impl FnOnce(&[String]) -> Failure,
) -> Result<(), Failure> {
    match validation {
        _ if problems.is_empty() => Ok(()),
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warnings.extend(problems);
            Ok(())
        }
        FieldValidation::Strict => Err(refuse(&problems)),
    }
}

pub(crate) fn default(resource: &Resource, new: &mut Value) {
    resource.schema.default(new);
}

/// What a custom kind's schema demands. An update is forgiven what it did not touch.
pub(crate) fn validate(resource: &Resource, new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    if !resource.checked {
        return;
    }
    wrong.extend(match old {
        Some(old) => resource.schema.validate_update(new, old),
        None => resource.schema.validate(new),
    });
}

/// Whether two states differ in nothing but bookkeeping.
pub(crate) fn same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return new == old;
    };
    let alike = |new: &Map<String, Value>, old: &Map<String, Value>, apart: &str| {
        let but = |m: &Map<String, Value>| m.len() - usize::from(m.contains_key(apart));
        but(new) == but(old) && new.iter().all(|(k, v)| k == apart || old.get(k) == Some(v))
    };
    if !alike(new, old, "metadata") {
        return false;
    }
    let empty = Map::new();
    let metadata = |m: &'_ Map<String, Value>| {
        m.get("metadata")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_else(|| empty.clone())
    };
    let (new, old) = (metadata(new), metadata(old));
    if !alike(&new, &old, "managedFields") {
        return false;
    }
    // The time of a manager's last write says nothing by itself.
    let books = |m: &Map<String, Value>| -> Vec<Value> {
        let mut entries = m
            .get("managedFields")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        for entry in &mut entries {
            meta::put(entry, "time", None);
        }
        entries
    };
    books(&new) == books(&old)
}

/// Who writes, through which door: what `managedFields` keeps the books by.
#[derive(Clone, Copy)]
pub(crate) struct Hand<'a> {
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

/// Paths that a door puts back to what they were: they never become the writer's.
fn resets(resource: &Resource, subresource: &str) -> &'static [&'static str] {
    match subresource {
        "" if resource.has_status() => &["status"],
        "status" => &["spec", "metadata"],
        "ephemeralcontainers" | "resize" => &["status", "metadata"],
        _ => &[],
    }
}

/// Notes in `metadata.managedFields` that the writer wrote what differs between the two states.
pub(crate) fn track(resource: &Resource, old: Option<&Value>, new: &mut Value, hand: Hand<'_>) -> Result<(), Failure> {
    let time = model::time::seconds(hand.now);
    let resets = resets(resource, hand.subresource);
    let writer = Writer {
        manager: hand.manager,
        subresource: hand.subresource,
        time: &time,
        resets,
    };
    schema::apply::track_update(&resource.schema, old, new, writer)
}

/// `unknown field "[0].colour"`: what an operation of a JSON patch has no use for (RFC 6902).
fn unknown_in_operations(patch: &Value) -> Vec<String> {
    let known = |key: &str| matches!(key, "op" | "path" | "from" | "value");
    let operations = patch.as_array().into_iter().flatten().enumerate();
    operations
        .flat_map(|(at, operation)| {
            operation
                .as_object()
                .into_iter()
                .flatten()
                .map(move |(key, _)| (at, key))
        })
        .filter(|(_, key)| !known(key))
        .map(|(at, key)| format!("unknown field \"[{at}].{key}\""))
        .collect()
}

/// A patch as it was read, to be put on as many old states as it takes.
pub(crate) struct Patch {
    schema: Schema,
    kind: PatchKind,
    patch: Value,
    /// Problems of the patch's own text.
    problems: Vec<String>,
    validation: FieldValidation,
    resets: &'static [&'static str],
}

impl Patch {
    /// # Errors
    /// `BadRequest` for what is no JSON, `UnsupportedMediaType` for a strategic merge of a custom kind.
    pub(crate) fn read(
        resource: &Resource,
        subresource: &str,
        kind: PatchKind,
        body: &Bytes,
        validation: FieldValidation,
    ) -> Result<Self, Failure> {
        if resource.custom && kind == PatchKind::Strategic {
            return Err(Failure::UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml".into(),
            ));
        }
        Ok(Self {
            resets: resets(resource, subresource),
            ..Self::with(resource.schema.clone(), kind, body, validation)?
        })
    }

    pub(crate) fn read_as(
        gvk: &Gvk,
        kind: PatchKind,
        body: &Bytes,
        validation: FieldValidation,
    ) -> Result<Self, Failure> {
        Self::with(schema_of(gvk), kind, body, validation)
    }

    fn with(schema: Schema, kind: PatchKind, body: &Bytes, validation: FieldValidation) -> Result<Self, Failure> {
        let (patch, mut problems) =
            schema::parse(body).map_err(|error| Failure::BadRequest(format!("error decoding patch: {error}")))?;
        if kind == PatchKind::Json {
            problems.extend(unknown_in_operations(&patch));
            problems = problems.iter().map(|says| format!("json patch {says}")).collect();
        }
        Ok(Self {
            schema,
            kind,
            patch,
            problems,
            validation,
            resets: &[],
        })
    }

    /// The new state for an old one.
    pub(crate) fn apply(
        &self,
        old: &Value,
        key: &ObjectKey,
        hand: Hand<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Failure> {
        let mut new = match self.kind {
            PatchKind::Apply { force } => return self.merge(Some(old), key, hand, force),
            PatchKind::Json | PatchKind::Merge | PatchKind::Strategic => old.clone(),
        };
        match self.kind {
            PatchKind::Json => schema::json_patch(&mut new, &self.patch, self.schema.gvk(), &key.name)?,
            PatchKind::Merge => schema::json_merge(&mut new, &self.patch),
            PatchKind::Strategic => schema::strategic::merge(&self.schema, &mut new, &self.patch)?,
            PatchKind::Apply { .. } => {}
        }
        self.finish(&mut new, warnings)?;
        Ok(new)
    }

    /// The object that an apply makes where there is none.
    pub(crate) fn apply_to_nothing(&self, key: &ObjectKey, hand: Hand<'_>) -> Result<Value, Failure> {
        self.merge(None, key, hand, true)
    }

    /// Apply forgives no unknown field, whatever the request's `fieldValidation` says.
    fn merge(&self, old: Option<&Value>, key: &ObjectKey, hand: Hand<'_>, force: bool) -> Result<Value, Failure> {
        if !self.patch.is_object() {
            return Err(Failure::BadRequest("the applied configuration is not an object".into()));
        }
        let time = model::time::seconds(hand.now);
        let writer = Writer {
            manager: hand.manager,
            subresource: hand.subresource,
            time: &time,
            resets: self.resets,
        };
        let mut new = schema::apply::apply(&self.schema, old, &self.patch, writer, force, key)?;
        self.schema.conform(&mut new)?;
        self.schema.default(&mut new);
        Ok(new)
    }

    fn finish(&self, new: &mut Value, warnings: &mut Vec<String>) -> Result<(), Failure> {
        if !new.is_object() {
            return Err(Failure::BadRequest("the patch leaves no object".into()));
        }
        let found = self.schema.conform(new)?;
        let problems: Vec<String> = self.problems.iter().cloned().chain(found).collect();
        judge(problems, self.validation, warnings, |problems| Failure::Invalid {
            kind: Gvk::new("", "", ""),
            name: String::new(),
            causes: vec![Cause::invalid(
                "patch",
                Value::from(new.to_string()),
                &format!("strict decoding error: {}", problems.join(", ")),
            )],
        })?;
        self.schema.default(new);
        Ok(())
    }
}
