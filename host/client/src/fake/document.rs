//! Merging, patching and selecting documents, as far as the fake needs it.

use model::{Failure, Object};
use serde_json::Value;

/// RFC 7386.
pub(super) fn merge(old: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut merged = old.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            merged.remove(name);
        } else {
            let before = merged.get(name).cloned().unwrap_or(Value::Null);
            merged.insert(name.clone(), merge(&before, value));
        }
    }
    Value::Object(merged)
}

/// RFC 6902 without `move` and `copy`.
pub(super) fn json_patch(old: &Value, operations: &Value) -> Result<Value, Failure> {
    let mut document = old.clone();
    for operation in operations.as_array().into_iter().flatten() {
        let path = operation["path"].as_str().unwrap_or_default();
        let refuse = |why: &str| Failure::BadRequest(format!("json patch: {path}: {why}"));
        let (parent, last) = path.rsplit_once('/').ok_or_else(|| refuse("not a pointer"))?;
        let last = last.replace("~1", "/").replace("~0", "~");
        let place = document.pointer_mut(parent).ok_or_else(|| refuse("nothing there"))?;
        let value = operation["value"].clone();
        match (operation["op"].as_str().unwrap_or_default(), place) {
            ("test", place) => {
                let found = match place {
                    Value::Array(list) => last.parse().ok().and_then(|at: usize| list.get(at)),
                    Value::Object(map) => map.get(&last),
                    _ => None,
                };
                if found != Some(&value) {
                    return Err(refuse("the test failed"));
                }
            }
            ("add", Value::Array(list)) => {
                let at = if last == "-" {
                    list.len()
                } else {
                    last.parse().unwrap_or(usize::MAX)
                };
                if at > list.len() {
                    return Err(refuse("out of range"));
                }
                list.insert(at, value);
            }
            ("remove" | "replace", Value::Array(list)) => {
                let at = last
                    .parse()
                    .ok()
                    .filter(|at| *at < list.len())
                    .ok_or_else(|| refuse("out of range"))?;
                if operation["op"] == "remove" {
                    list.remove(at);
                } else {
                    list[at] = value;
                }
            }
            ("add" | "replace", Value::Object(map)) => drop(map.insert(last, value)),
            ("remove", Value::Object(map)) => drop(map.remove(&last).ok_or_else(|| refuse("nothing there"))?),
            _ => return Err(refuse("the fake does not do this operation")),
        }
    }
    Ok(document)
}

/// Whether both selector texts match. Labels: `a=b`, `a!=b`, `a`, `!a`, `a in (b,c)`, `a notin (b,c)`; fields:
/// `path=value`, `path!=value` on any plain path, absent counting as empty.
pub(super) fn selected(object: &Object, labels: &str, fields: &str) -> Result<bool, Failure> {
    for term in terms(labels) {
        if !label_matches(object, term) {
            return Ok(false);
        }
    }
    if fields.is_empty() {
        return Ok(true);
    }
    let document = object.value();
    for term in terms(fields) {
        let (path, value) = term.split_once('=').ok_or_else(|| {
            Failure::BadRequest(format!(
                "unable to parse requirement: field selector {term:?} has no `=`"
            ))
        })?;
        let (path, equal) = path.strip_suffix('!').map_or((path, true), |path| (path, false));
        let found = path.split('.').fold(&document, |at, name| &at[name]);
        let found = match found {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        if (found == value.trim_start_matches('=')) != equal {
            return Ok(false);
        }
    }
    Ok(true)
}

fn label_matches(object: &Object, term: &str) -> bool {
    let among = |list: &str, value: &str| {
        list.trim()
            .trim_start_matches('(')
            .trim_end_matches(')')
            .split(',')
            .any(|v| v.trim() == value)
    };
    if let Some((key, list)) = term.split_once(" notin ") {
        return object.labels.get(key.trim()).is_none_or(|value| !among(list, value));
    }
    if let Some((key, list)) = term.split_once(" in ") {
        return object.labels.get(key.trim()).is_some_and(|value| among(list, value));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return object.labels.get(key.trim()) != Some(value.trim());
    }
    if let Some((key, value)) = term.split_once('=') {
        return object.labels.get(key.trim()) == Some(value.trim_start_matches('=').trim());
    }
    match term.strip_prefix('!') {
        Some(key) => object.labels.get(key.trim()).is_none(),
        None => object.labels.get(term).is_some(),
    }
}

/// Splits at the commas that are not inside parentheses.
fn terms(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}
