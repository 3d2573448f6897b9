//! Paths of fields as rules write them.

use serde_json::{Map, Value};

use super::sub;

/// Follows `.a['b'].c` through a schema: the path as complaints spell it, and the schema it leads to.
///
/// # Errors
/// Why it leads nowhere.
pub fn field_path<'s>(schema: &'s Value, path: &str, brackets: bool) -> Result<(String, &'s Value), String> {
    let nowhere = || "does not refer to a valid field".to_owned();
    let mut at = schema;
    let mut out = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() {
                return Err("unexpected end of JSON path".into());
            }
            let end = after.find(['.', '[', ']']).unwrap_or(after.len()).max(1);
            name = after[..end].to_owned();
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".into());
            }
            let (quoted, after) = quoted(after)?;
            name = quoted;
            rest = after.strip_prefix(']').ok_or("unexpected end of JSON path")?;
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end.max(1)]));
        }
        let empty = Map::new();
        let properties = at.get("properties").and_then(Value::as_object);
        if let Some(properties) = properties.filter(|properties| **properties != empty) {
            at = properties.get(&name).ok_or_else(nowhere)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else {
            at = sub(at, "additionalProperties").ok_or_else(nowhere)?;
            out.push_str(&format!("[{name}]"));
        }
    }
    Ok((out, at))
}

/// `'…'` with backslashes, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let inner = text
        .strip_prefix('\'')
        .ok_or_else(|| format!("expected single quoted string but got {text}"))?;
    let mut name = String::new();
    let mut letters = inner.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' => return Ok((name, &inner[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => name.push('\n'),
                Some((_, 't')) => name.push('\t'),
                Some((_, 'r')) => name.push('\r'),
                Some((_, letter @ ('\'' | '\\'))) => name.push(letter),
                Some((_, other)) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
                None => break,
            },
            letter => name.push(letter),
        }
    }
    Err("unexpected end of JSON path".into())
}
