//! Skipping over JSON without decoding it. Positions in, positions out; never a panic, whatever the bytes.
//!
//! Written for documents we encoded ourselves. On others it may skip too much or too little, never outside the slice.

use std::borrow::Cow;

/// The first position at or after `at` that is not white space.
#[inline]
pub(crate) fn blank(json: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = json.get(at) {
        at += 1;
    }
    at
}

/// `at` is on a quote: the position after the closing one.
#[inline]
pub(crate) fn string(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// The position after the value that begins at `at`.
#[inline]
pub(crate) fn value(json: &[u8], at: usize) -> usize {
    match json.get(at) {
        Some(b'"') => string(json, at),
        Some(b'{' | b'[') => close(json, at + 1),
        _ => {
            let mut end = at;
            while let Some(byte) = json.get(end) {
                if matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r') {
                    break;
                }
                end += 1;
            }
            end
        }
    }
}

/// Inside an object or list, not inside a string: the position after its closing bracket.
pub(crate) fn close(json: &[u8], mut at: usize) -> usize {
    let mut depth = 1usize;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                at = string(json, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    json.len()
}

/// `json` is a whole string with its quotes. `None` if it is not.
pub(crate) fn text(json: &[u8]) -> Option<Cow<'_, str>> {
    let inside = json.get(1..json.len().checked_sub(1)?)?;
    if inside.contains(&b'\\') {
        return serde_json::from_slice::<String>(json).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inside).ok().map(Cow::Borrowed)
}

/// `key` as it stands between the quotes.
#[inline]
pub(crate) fn key_is(key: &[u8], name: &str) -> bool {
    key == name.as_bytes() || (key.contains(&b'\\') && unescaped(key).is_some_and(|key| key == name))
}

fn unescaped(key: &[u8]) -> Option<String> {
    let quoted = [b"\"", key, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// Whether the value at `at` is an object with a scalar member `key` that reads `text`.
pub(crate) fn member_is(json: &[u8], at: usize, key: &str, wanted: &str) -> bool {
    if json.get(at) != Some(&b'{') {
        return false;
    }
    let mut at = at + 1;
    loop {
        at = blank(json, at);
        match json.get(at) {
            Some(b'"') => {}
            Some(b',') => {
                at += 1;
                continue;
            }
            _ => return false,
        }
        let key_end = string(json, at);
        let found = json.get(at + 1..key_end - 1).unwrap_or_default();
        at = blank(json, key_end);
        if json.get(at) != Some(&b':') {
            return false;
        }
        at = blank(json, at + 1);
        let end = value(json, at);
        if key_is(found, key) {
            let value = json.get(at..end).unwrap_or_default();
            return match value.first() {
                Some(b'"') => text(value).is_some_and(|text| text == wanted),
                Some(b'{' | b'[' | b'n') | None => false,
                Some(_) => value == wanted.as_bytes(),
            };
        }
        at = end;
    }
}
