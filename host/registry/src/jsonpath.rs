//! The JSONPath of CRD printer columns: `.spec.size`, `.items[0].name`, `.conditions[?(@.type=="Ready")].status`.
//!
//! Source: "Additional printer columns" and "JSONPath Support" of the Kubernetes documentation.

use serde_json::Value;

/// A compiled path. Only what printer columns may use: fields, indexes, `[*]`, and filters comparing one field with a constant.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// From the end where negative.
    Index(i64),
    All,
    Where {
        path: JsonPath,
        equal: bool,
        value: Value,
    },
}

impl JsonPath {
    /// # Errors
    /// What cannot be read, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text
            .trim()
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap_or(text.trim());
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = if let Some(after) = rest.strip_prefix('.') {
                field(after, &mut steps)?
            } else if let Some(after) = rest.strip_prefix('[') {
                bracket(after, &mut steps)?
            } else {
                return Err(format!("expected '.' or '[' at {rest:?} in {text:?}"));
            };
        }
        Ok(Self(steps))
    }

    /// The first thing the path leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        follow(&self.0, value)
    }
}

fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let mut name = String::new();
    let mut letters = text.char_indices();
    let mut end = text.len();
    while let Some((i, letter)) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = i;
                break;
            }
            other => name.push(other),
        }
    }
    match name.as_str() {
        // `.metadata..x` is not supported; a lone `.` is the whole.
        "" if end == text.len() => {}
        "" => return Err(format!("empty field name before {:?}", &text[end..])),
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Ok(&text[end..])
}

fn bracket<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let unclosed = || format!("'[' is not closed at {text:?}");
    if let Some(inner) = text.strip_prefix("?(") {
        let end = inner.find(")]").ok_or_else(unclosed)?;
        steps.push(filter(&inner[..end])?);
        return Ok(&inner[end + 2..]);
    }
    let end = text.find(']').ok_or_else(unclosed)?;
    let inside = text[..end].trim();
    let quoted = ['\'', '"']
        .iter()
        .find_map(|q| inside.strip_prefix(*q)?.strip_suffix(*q));
    steps.push(match (quoted, inside) {
        (Some(name), _) => Step::Field(name.to_owned()),
        (None, "*") => Step::All,
        (None, number) => Step::Index(number.parse().map_err(|_| format!("{number:?} is not an index"))?),
    });
    Ok(&text[end + 1..])
}

fn filter(text: &str) -> Result<Step, String> {
    let (at, equal) = match (text.find("=="), text.find("!=")) {
        (Some(at), _) => (at, true),
        (None, Some(at)) => (at, false),
        (None, None) => return Err(format!("expected '==' or '!=' in filter {text:?}")),
    };
    let path = text[..at]
        .trim()
        .strip_prefix('@')
        .ok_or_else(|| format!("expected '@' in filter {text:?}"))?;
    let constant = text[at + 2..].trim();
    let quoted = ['\'', '"']
        .iter()
        .find_map(|q| constant.strip_prefix(*q)?.strip_suffix(*q));
    let value = match quoted {
        Some(word) => word.into(),
        None => serde_json::from_str(constant).map_err(|_| format!("{constant:?} is not a constant"))?,
    };
    Ok(Step::Where {
        path: JsonPath::parse(path)?,
        equal,
        value,
    })
}

fn follow<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    match step {
        Step::Field(name) => follow(rest, value.get(name)?),
        Step::Index(i) => {
            let list = value.as_array()?;
            let i = if *i < 0 {
                list.len().checked_sub(i.unsigned_abs() as usize)?
            } else {
                *i as usize
            };
            follow(rest, list.get(i)?)
        }
        Step::All => match value {
            Value::Array(list) => list.iter().find_map(|item| follow(rest, item)),
            Value::Object(map) => map.values().find_map(|item| follow(rest, item)),
            _ => None,
        },
        Step::Where {
            path,
            equal,
            value: wanted,
        } => {
            let fits = |item: &&Value| (path.first(item) == Some(wanted)) == *equal;
            value
                .as_array()?
                .iter()
                .filter(fits)
                .find_map(|item| follow(rest, item))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_what_printer_columns_ask_for() {
        let value = json!({"a": {"b": [{"t": "X", "s": 1}, {"t": "Y", "s": 2}]}, "m": {"x.y/z": "v"}});
        for (path, found) in [
            (".a.b[0].s", json!(1)),
            (".a.b[-1].s", json!(2)),
            (".a.b[?(@.t==\"Y\")].s", json!(2)),
            (".a.b[?(@.t!='X')].s", json!(2)),
            (".a.b[*].t", json!("X")),
            (".m['x.y/z']", json!("v")),
            (".m.x\\.y/z", json!("v")),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&value), Some(&found), "{path}");
        }
        assert_eq!(JsonPath::parse(".a.c").unwrap().first(&value), None);
        for bad in ["a", ".a[", ".a[x]", ".a[?(@.t)]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
