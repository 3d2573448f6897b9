//! The columns of `kubectl get`, as data: what the server's `Table` answers are made of.

use compact_str::CompactString;
use jiff::Timestamp;
use model::Object;
use serde_json::Value;

use crate::jsonpath::JsonPath;

/// One column of a kind's table (`metav1.TableColumnDefinition`) and how its cells come about.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: CompactString,
    /// `string`, `integer`, `number`, `boolean` or `date` (OpenAPI).
    pub kind: CompactString,
    /// `name` for the object's name, so that kubectl may put the kind before it; otherwise mostly empty.
    pub format: CompactString,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: i32,
    pub description: CompactString,
    cell: Cell,
}

/// One row: a cell for each of the columns. `now` is what ages are counted to.
pub fn row(columns: &[Column], object: &Object, now: Timestamp) -> Vec<Value> {
    let value = object.value();
    columns.iter().map(|column| column.cell(&value, now)).collect()
}

#[derive(Debug, Clone)]
enum Cell {
    /// The text at a dotted path; a missing one shows as `<none>` or as the text given.
    Path(&'static str, &'static str),
    /// How long ago the timestamp at a dotted path was; a missing one shows as the text given.
    Since(&'static str, &'static str),
    Compute(fn(&Value, Timestamp) -> Value),
    /// A CRD's own printer column.
    JsonPath(JsonPath),
}

impl Column {
    fn new(name: &str, kind: &str, cell: Cell) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            format: CompactString::default(),
            priority: 0,
            description: CompactString::default(),
            cell,
        }
    }

    pub fn name() -> Self {
        let mut column = Self::new("Name", "string", Cell::Path("metadata.name", ""));
        column.format = "name".into();
        column.about("Name must be unique within a namespace. Is required when creating resources.")
    }

    pub fn age() -> Self {
        Self::new("Age", "string", Cell::Since("metadata.creationTimestamp", "<unknown>"))
            .about("How long ago the object was created.")
    }

    /// How long ago the timestamp at a dotted path was, `<none>` where it is missing.
    pub fn since(name: &str, path: &'static str) -> Self {
        Self::new(name, "string", Cell::Since(path, "<none>"))
    }

    /// Text at a dotted path, `<none>` where it is missing.
    pub fn text(name: &str, path: &'static str) -> Self {
        Self::new(name, "string", Cell::Path(path, "<none>"))
    }

    /// Text at a dotted path, `or` where it is missing.
    pub fn text_or(name: &str, path: &'static str, or: &'static str) -> Self {
        Self::new(name, "string", Cell::Path(path, or))
    }

    /// The whole number at a dotted path, 0 where it is missing.
    pub fn number(name: &str, path: &'static str) -> Self {
        Self::new(name, "integer", Cell::Path(path, "0"))
    }

    pub fn boolean(name: &str, path: &'static str) -> Self {
        Self::new(name, "boolean", Cell::Path(path, "false"))
    }

    pub fn computed(name: &str, cell: fn(&Value, Timestamp) -> Value) -> Self {
        Self::new(name, "string", Cell::Compute(cell))
    }

    pub fn counted(name: &str, cell: fn(&Value, Timestamp) -> Value) -> Self {
        Self::new(name, "integer", Cell::Compute(cell))
    }

    pub(crate) fn printer(name: &str, kind: &str, format: &str, priority: i32, path: JsonPath) -> Self {
        let mut column = Self::new(name, kind, Cell::JsonPath(path));
        column.format = format.into();
        column.priority = priority;
        column
    }

    /// When the object was made, as it is.
    pub fn created_at() -> Self {
        Self::text_or("Created At", "metadata.creationTimestamp", "").date()
    }

    /// A column that shows the object's name.
    pub(crate) fn named(mut self) -> Self {
        self.format = "name".into();
        self
    }

    /// A timestamp shown as it is.
    pub fn date(mut self) -> Self {
        self.kind = "date".into();
        self
    }

    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    pub fn about(mut self, description: &str) -> Self {
        self.description = description.into();
        self
    }

    /// This column's cell for an object; JSON null prints as nothing.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.cell {
            Cell::Path(path, or) => match at(object, path) {
                Some(Value::Null) | None => self.fallback(or),
                Some(found) if self.kind == "string" && !found.is_string() => plain(found).into(),
                Some(Value::String(text)) if text.is_empty() => self.fallback(or),
                Some(found) => found.clone(),
            },
            Cell::Since(path, or) => match at(object, path) {
                None | Some(Value::Null) => (*or).into(),
                then => since(then, now).into(),
            },
            Cell::Compute(compute) => compute(object, now),
            Cell::JsonPath(path) => {
                let Some(found) = path.first(object) else {
                    return Value::Null;
                };
                match (self.kind.as_str(), found) {
                    ("date", found) => since(Some(found), now).into(),
                    ("string", Value::String(_)) => found.clone(),
                    ("string", other) => plain(other).into(),
                    ("integer", Value::Number(n)) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).into(),
                    ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
                    _ => Value::Null,
                }
            }
        }
    }

    fn fallback(&self, or: &str) -> Value {
        match self.kind.as_str() {
            "integer" => or.parse::<i64>().unwrap_or_default().into(),
            "boolean" => (or == "true").into(),
            _ => or.into(),
        }
    }
}

/// A dotted path below `object`; keys with dots in them are not reachable this way.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |at, key| at.get(key))
}

/// The text at a dotted path, empty where there is none.
pub fn text_at<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

pub fn int_at(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

pub fn list_at<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A value as text without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `k1=v1,k2=v2`, or `<none>`.
pub fn pairs(map: Option<&Value>) -> String {
    let Some(map) = map.and_then(Value::as_object).filter(|m| !m.is_empty()) else {
        return "<none>".into();
    };
    map.iter()
        .map(|(k, v)| format!("{k}={}", plain(v)))
        .collect::<Vec<_>>()
        .join(",")
}

/// A `metav1.LabelSelector` as kubectl prints it: `app=web,tier in (a,b)`, `<none>` where it selects nothing.
pub fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else {
        return "<none>".into();
    };
    let mut parts = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        parts.extend(labels.iter().map(|(k, v)| format!("{k}={}", plain(v))));
    }
    for rule in list_at(selector, "matchExpressions") {
        let key = text_at(rule, "key");
        let values = list_at(rule, "values").iter().map(plain).collect::<Vec<_>>().join(",");
        parts.push(match text_at(rule, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    if parts.is_empty() {
        "<none>".into()
    } else {
        parts.join(",")
    }
}

/// How long ago a timestamp was, `<unknown>` where there is none.
pub fn since(timestamp: Option<&Value>, now: Timestamp) -> String {
    match timestamp
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<Timestamp>().ok())
    {
        Some(then) => duration(now.as_second() - then.as_second()),
        None => "<unknown>".into(),
    }
}

/// Seconds as kubectl words them: `45s`, `3m20s`, `5h`, `2d3h`, `400d`, `2y35d` (`duration.HumanDuration`).
pub fn duration(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, under: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{under}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (183_600, "2d3h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (66_096_000, "2y35d"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn selectors_read_as_kubectl_writes_them() {
        let value = serde_json::json!({"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "t", "operator": "In", "values": ["x", "y"]}, {"key": "z", "operator": "DoesNotExist"}]});
        assert_eq!(selector(Some(&value)), "a=b,t in (x,y),!z");
        assert_eq!(selector(Some(&serde_json::json!({}))), "<none>");
    }
}
