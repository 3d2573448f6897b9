//! The JSONPath of CRD printer columns: `.spec.size`, `.items[0].name`, `.conditions[?(@.type=="Ready")].status`.
//!
//! Source: "Additional printer columns" and "JSONPath Support" of the Kubernetes documentation.

use serde_json::Value;

/// A compiled path: fields, indexes, slices, unions, `[*]`, `..`, and filters that compare a field with a constant or ask
/// whether it is there (`k8s.io/client-go/util/jsonpath`).
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// From the end where negative.
    Index(i64),
    /// The first that may be taken, the first that may not, and the stride.
    Slice(Option<i64>, Option<i64>, usize),
    Union(Vec<String>),
    All,
    /// Here and everywhere below.
    Deep,
    Has(JsonPath),
    Where {
        path: JsonPath,
        how: Compare,
        value: Value,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
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
        // A lone `.` is the whole; two look everywhere below.
        "" if end == text.len() => {}
        "" if text.starts_with('.') => {
            steps.push(Step::Deep);
            return Ok(text);
        }
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
    let names: Option<Vec<String>> = inside.split(',').map(|part| quoted(part.trim())).collect();
    steps.push(match names {
        Some(mut names) if names.len() == 1 => Step::Field(names.remove(0)),
        Some(names) => Step::Union(names),
        None if inside == "*" => Step::All,
        None if inside.contains(':') => slice(inside)?,
        None => Step::Index(inside.parse().map_err(|_| format!("{inside:?} is not an index"))?),
    });
    Ok(&text[end + 1..])
}

fn quoted(text: &str) -> Option<String> {
    let inner = ['\'', '"']
        .iter()
        .find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q))?;
    Some(inner.to_owned())
}

fn slice(text: &str) -> Result<Step, String> {
    let mut bounds = [None; 3];
    for (at, part) in text.split(':').enumerate() {
        let bound = bounds
            .get_mut(at)
            .ok_or_else(|| format!("{text:?} has too many bounds"))?;
        if !part.trim().is_empty() {
            *bound = Some(part.trim().parse().map_err(|_| format!("{part:?} is not an index"))?);
        }
    }
    let stride = bounds[2].unwrap_or(1);
    match usize::try_from(stride) {
        Ok(stride @ 1..) => Ok(Step::Slice(bounds[0], bounds[1], stride)),
        _ => Err(format!("{stride} is not a stride")),
    }
}

fn filter(text: &str) -> Result<Step, String> {
    const OPERATORS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::NotEqual),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let path = |text: &str| {
        let path = text.trim().strip_prefix('@');
        JsonPath::parse(path.ok_or_else(|| format!("expected '@' in filter {text:?}"))?)
    };
    let found = OPERATORS
        .iter()
        .find_map(|(sign, how)| Some((text.split_once(sign)?, *how)));
    let Some(((left, right), how)) = found else {
        return path(text).map(Step::Has);
    };
    let constant = right.trim();
    let value = match quoted(constant) {
        Some(word) => word.into(),
        None => serde_json::from_str(constant).map_err(|_| format!("{constant:?} is not a constant"))?,
    };
    Ok(Step::Where {
        path: path(left)?,
        how,
        value,
    })
}

fn holds(found: Option<&Value>, how: Compare, wanted: &Value) -> bool {
    let order = match (found, wanted) {
        (Some(Value::Number(a)), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Some(Value::String(a)), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match how {
        Compare::Equal => found == Some(wanted),
        Compare::NotEqual => found != Some(wanted),
        Compare::Less => order.is_some_and(|o| o.is_lt()),
        Compare::LessOrEqual => order.is_some_and(|o| o.is_le()),
        Compare::Greater => order.is_some_and(|o| o.is_gt()),
        Compare::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
    }
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
        Step::Slice(from, to, stride) => {
            let list = value.as_array()?;
            let length = list.len() as i64;
            let at = |bound: i64| (if bound < 0 { bound + length } else { bound }).clamp(0, length) as usize;
            let (from, to) = (at(from.unwrap_or(0)), at(to.unwrap_or(length)));
            let items = list.get(from..to)?.iter().step_by(*stride);
            items.into_iter().find_map(|item| follow(rest, item))
        }
        Step::Union(names) => names.iter().find_map(|name| follow(rest, value.get(name)?)),
        Step::Deep => follow(rest, value).or_else(|| match value {
            Value::Array(list) => list.iter().find_map(|item| follow(steps, item)),
            Value::Object(map) => map.values().find_map(|item| follow(steps, item)),
            _ => None,
        }),
        Step::Has(path) => {
            let mut items = value.as_array()?.iter().filter(|item| path.first(item).is_some());
            items.find_map(|item| follow(rest, item))
        }
        Step::Where {
            path,
            how,
            value: wanted,
        } => {
            let mut items = value
                .as_array()?
                .iter()
                .filter(|item| holds(path.first(item), *how, wanted));
            items.find_map(|item| follow(rest, item))
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
            (".a.b[?(@.s>1)].t", json!("Y")),
            (".a.b[?(@.s<=1)].t", json!("X")),
            (".a.b[?(@.t)].s", json!(1)),
            (".a.b[1:].t", json!("Y")),
            (".a.b[-1:].t", json!("Y")),
            (".a['q','b'][0].t", json!("X")),
            ("..s", json!(1)),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&value), Some(&found), "{path}");
        }
        assert_eq!(JsonPath::parse(".a.c").unwrap().first(&value), None);
        for bad in ["a", ".a[", ".a[x]", ".a[?(t)]", ".a[1:2:0]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
