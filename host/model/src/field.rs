//! Values of fields, and the reader that picks them out of an object's bytes without parsing the rest.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use compact_str::CompactString;
use serde_json::Value;

use crate::{Failure, FieldPath, path::Step, scan};

/// What stands at a place. Totally ordered: absent, null, false, true, numbers, texts by bytes, then documents by bytes.
///
/// A number with no fraction that fits is always `I64`, so `1` and `1.0` are equal.
#[derive(Debug, Clone, Default)]
pub enum FieldValue<'a> {
    #[default]
    Absent,
    Null,
    Bool(bool),
    I64(i64),
    F64(f64),
    Str(Cow<'a, str>),
    /// An object or list, as the JSON it was read from.
    Json(Cow<'a, [u8]>),
}

impl<'a> FieldValue<'a> {
    pub fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => FieldValue::Null,
            Value::Bool(b) => FieldValue::Bool(*b),
            Value::Number(n) => n
                .as_i64()
                .map_or_else(|| Self::float(n.as_f64().unwrap_or_default()), FieldValue::I64),
            Value::String(text) => FieldValue::Str(Cow::Borrowed(text)),
            Value::Array(_) | Value::Object(_) => FieldValue::Json(value.to_string().into_bytes().into()),
        }
    }

    /// From the JSON of one value. Anything that is not JSON is [`FieldValue::Absent`].
    pub fn of_json(json: &'a [u8]) -> Self {
        match json.first() {
            Some(b'"') => scan::text(json).map_or(FieldValue::Absent, FieldValue::Str),
            Some(b'{' | b'[') => FieldValue::Json(Cow::Borrowed(json)),
            Some(b't') => FieldValue::Bool(true),
            Some(b'f') => FieldValue::Bool(false),
            Some(b'n') => FieldValue::Null,
            Some(_) => Self::number(json),
            None => FieldValue::Absent,
        }
    }

    fn number(json: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(json) else {
            return FieldValue::Absent;
        };
        match text.parse::<i64>() {
            Ok(number) => FieldValue::I64(number),
            Err(_) => text.parse().map_or(FieldValue::Absent, Self::float),
        }
    }

    fn float(number: f64) -> Self {
        // 2^63 as f64 is exact and one past the end, hence `<`.
        let whole = number.fract() == 0.0 && number >= i64::MIN as f64 && number < i64::MAX as f64;
        if whole {
            FieldValue::I64(number as i64)
        } else {
            FieldValue::F64(number)
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, FieldValue::Absent)
    }

    /// Absent or null: Kubernetes makes no difference for optional fields.
    pub fn is_none(&self) -> bool {
        matches!(self, FieldValue::Absent | FieldValue::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            FieldValue::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            FieldValue::I64(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            FieldValue::Bool(is) => Some(*is),
            _ => None,
        }
    }

    /// As field selectors compare it: scalars as they are written, nothing as the empty text.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            FieldValue::Absent | FieldValue::Null => Cow::Borrowed(""),
            FieldValue::Bool(is) => Cow::Borrowed(if *is { "true" } else { "false" }),
            FieldValue::I64(number) => Cow::Owned(number.to_string()),
            FieldValue::F64(number) => Cow::Owned(number.to_string()),
            FieldValue::Str(text) => Cow::Borrowed(text),
            FieldValue::Json(json) => String::from_utf8_lossy(json),
        }
    }

    /// Parses it back; `None` if absent.
    pub fn to_value(&self) -> Option<Value> {
        match self {
            FieldValue::Absent => None,
            FieldValue::Null => Some(Value::Null),
            FieldValue::Bool(is) => Some((*is).into()),
            FieldValue::I64(number) => Some((*number).into()),
            FieldValue::F64(number) => Some((*number).into()),
            FieldValue::Str(text) => Some(text.as_ref().into()),
            FieldValue::Json(json) => serde_json::from_slice(json).ok(),
        }
    }

    pub fn into_owned(self) -> FieldValue<'static> {
        match self {
            FieldValue::Absent => FieldValue::Absent,
            FieldValue::Null => FieldValue::Null,
            FieldValue::Bool(is) => FieldValue::Bool(is),
            FieldValue::I64(number) => FieldValue::I64(number),
            FieldValue::F64(number) => FieldValue::F64(number),
            FieldValue::Str(text) => FieldValue::Str(Cow::Owned(text.into_owned())),
            FieldValue::Json(json) => FieldValue::Json(Cow::Owned(json.into_owned())),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            FieldValue::Absent => 0,
            FieldValue::Null => 1,
            FieldValue::Bool(_) => 2,
            FieldValue::I64(_) | FieldValue::F64(_) => 3,
            FieldValue::Str(_) => 4,
            FieldValue::Json(_) => 5,
        }
    }
}

impl Ord for FieldValue<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        use FieldValue::{Bool, F64, I64, Json, Str};
        match (self, other) {
            (Bool(a), Bool(b)) => a.cmp(b),
            (I64(a), I64(b)) => a.cmp(b),
            (F64(a), F64(b)) => a.total_cmp(b),
            (I64(a), F64(b)) => whole_to_float(*a, *b),
            (F64(a), I64(b)) => whole_to_float(*b, *a).reverse(),
            (Str(a), Str(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Json(a), Json(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// Exact where `whole as f64` would round. An `F64` is never whole and in range, so the two are never equal.
fn whole_to_float(whole: i64, float: f64) -> Ordering {
    if float.is_nan() || float >= i64::MAX as f64 {
        return if float.is_nan() && float.is_sign_negative() {
            Ordering::Greater
        } else {
            Ordering::Less
        };
    }
    if float < i64::MIN as f64 {
        return Ordering::Greater;
    }
    let floor = float.floor() as i64;
    if whole <= floor {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

impl PartialOrd for FieldValue<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FieldValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FieldValue<'_> {}

impl Hash for FieldValue<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            FieldValue::Absent | FieldValue::Null => {}
            FieldValue::Bool(is) => is.hash(state),
            FieldValue::I64(number) => number.hash(state),
            FieldValue::F64(number) => number.to_bits().hash(state),
            FieldValue::Str(text) => text.hash(state),
            FieldValue::Json(json) => json.hash(state),
        }
    }
}

/// Several paths compiled to be read in one pass over an object's JSON.
///
/// The pass walks only into what leads to a wanted place, skips the rest without decoding it, and stops when all is found.
#[derive(Debug, Clone)]
pub struct FieldSet {
    paths: Box<[FieldPath]>,
    nodes: Vec<Node>,
}

/// What is wanted at and below one place.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Columns whose value is the one here.
    columns: Vec<u16>,
    keys: Vec<(CompactString, u32)>,
    elements: Vec<(Step, u32)>,
    /// `[*]` was passed on the way: found values are gathered.
    gathered: bool,
    /// Columns that answer a list as soon as this place holds one (this place is the list of their first `[*]`).
    lists: Vec<u16>,
}

impl FieldSet {
    /// Column `i` of every row belongs to `paths[i]`.
    ///
    /// # Panics
    /// Beyond 65,535 paths.
    pub fn new(paths: impl IntoIterator<Item = FieldPath>) -> Self {
        let paths: Box<[FieldPath]> = paths.into_iter().collect();
        let mut nodes = vec![Node::default()];
        for (column, path) in paths.iter().enumerate() {
            let column = u16::try_from(column).expect("no object has that many fields");
            let mut at = 0;
            for step in path.steps() {
                if *step == Step::Each && !nodes[at].gathered {
                    nodes[at].lists.push(column);
                }
                at = child(&mut nodes, at, step);
            }
            nodes[at].columns.push(column);
        }
        Self { paths, nodes }
    }

    /// # Errors
    /// [`Failure::BadRequest`] for the first text that is not a path.
    pub fn parse(paths: &[&str]) -> Result<Self, Failure> {
        paths
            .iter()
            .map(|text| FieldPath::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }

    pub fn paths(&self) -> &[FieldPath] {
        &self.paths
    }

    /// The values in the order of [`FieldSet::paths`]. Never fails: bytes that are not JSON give absent values.
    pub fn read<'a>(&self, json: &'a [u8]) -> Vec<FieldValue<'a>> {
        let mut row = Vec::new();
        self.read_into(json, &mut row);
        row
    }

    /// [`FieldSet::read`] into a row that is used again.
    pub fn read_into<'a>(&self, json: &'a [u8], row: &mut Vec<FieldValue<'a>>) {
        row.clear();
        row.resize_with(self.paths.len(), FieldValue::default);
        let mut pass = Pass {
            set: self,
            json,
            row,
            left: self.paths.len(),
        };
        let start = scan::blank(json, 0);
        pass.walk(0, start);
        for (path, value) in self.paths.iter().zip(row.iter_mut()) {
            if path.asks_existence() {
                if value.is_absent() {
                    *value = FieldValue::Bool(false);
                }
            } else if let (true, FieldValue::Json(Cow::Owned(list))) = (path.is_many(), value) {
                list.push(b']');
            }
        }
    }
}

fn child(nodes: &mut Vec<Node>, at: usize, step: &Step) -> usize {
    let known = match step {
        Step::Key(key) => nodes[at].keys.iter().find(|(k, _)| k == key).map(|(_, n)| *n),
        _ => nodes[at].elements.iter().find(|(s, _)| s == step).map(|(_, n)| *n),
    };
    if let Some(known) = known {
        return known as usize;
    }
    let made = nodes.len();
    nodes.push(Node {
        gathered: nodes[at].gathered || *step == Step::Each,
        ..Node::default()
    });
    match step {
        Step::Key(key) => nodes[at].keys.push((key.clone(), made as u32)),
        _ => nodes[at].elements.push((step.clone(), made as u32)),
    }
    made
}

/// One reading. Positions beyond the end mean that the document ended early or that nothing more is wanted.
struct Pass<'s, 'a, 'r> {
    set: &'s FieldSet,
    json: &'a [u8],
    row: &'r mut Vec<FieldValue<'a>>,
    /// Columns not yet answered for good; `[*]` columns never are.
    left: usize,
}

impl Pass<'_, '_, '_> {
    /// Reads the value that begins at `at` and gives the place after it.
    fn walk(&mut self, node: u32, at: usize) -> usize {
        let set = self.set;
        let node = &set.nodes[node as usize];
        let end = match self.json.get(at) {
            Some(b'{') if !node.keys.is_empty() || !node.elements.is_empty() => self.object(node, at + 1),
            Some(b'[') if !node.elements.is_empty() => self.list(node, at + 1),
            _ if self.left == 0 => return self.json.len(),
            _ => scan::value(self.json, at),
        };
        if !node.columns.is_empty() {
            self.found(node, at, end.min(self.json.len()));
        }
        end
    }

    fn object(&mut self, node: &Node, mut at: usize) -> usize {
        let json = self.json;
        let mut wanted = node.keys.len();
        let each = node
            .elements
            .iter()
            .find(|(step, _)| *step == Step::Each)
            .map(|(_, child)| *child);
        if each.is_some() {
            self.begin_lists(node);
        }
        loop {
            at = scan::blank(json, at);
            match json.get(at) {
                Some(b'"') => {}
                Some(b',') => {
                    at += 1;
                    continue;
                }
                Some(b'}') => return at + 1,
                _ => return json.len(),
            }
            if each.is_none() && (wanted == 0 || self.left == 0) {
                return scan::close(json, at);
            }
            let key_end = scan::string(json, at);
            let key = json.get(at + 1..key_end - 1).unwrap_or_default();
            at = scan::blank(json, key_end);
            if json.get(at) != Some(&b':') {
                return json.len();
            }
            at = scan::blank(json, at + 1);
            let mut end = None;
            if let Some((_, child)) = node.keys.iter().find(|(name, _)| scan::key_is(key, name)) {
                wanted = wanted.saturating_sub(1);
                end = Some(self.walk(*child, at));
            }
            if let Some(each) = each {
                end = Some(self.walk(each, at));
            }
            at = end.unwrap_or_else(|| scan::value(json, at));
        }
    }

    fn list(&mut self, node: &Node, mut at: usize) -> usize {
        let json = self.json;
        self.begin_lists(node);
        let mut index = 0;
        // Bit i: the i-th step has had its element. Steps beyond 64 are only looked at more often.
        let mut done = 0u64;
        let several = node.elements.len() >= 64 || node.elements.iter().any(|(step, _)| *step == Step::Each);
        loop {
            at = scan::blank(json, at);
            if !several && done.count_ones() as usize == node.elements.len() {
                return scan::close(json, at);
            }
            match json.get(at) {
                Some(b',') => {
                    at += 1;
                    continue;
                }
                Some(b']') => return at + 1,
                None => return json.len(),
                _ => {}
            }
            let mut end = None;
            for (i, (step, child)) in node.elements.iter().enumerate() {
                let bit = 1u64.checked_shl(i as u32).unwrap_or(0);
                let hit = done & bit == 0
                    && match step {
                        Step::Each => true,
                        Step::Index(wanted) => *wanted == index,
                        Step::Where(wanted) => wanted.iter().all(|(key, text)| scan::member_is(json, at, key, text)),
                        Step::Key(_) => false,
                    };
                if hit {
                    end = Some(self.walk(*child, at));
                    if *step != Step::Each {
                        done |= bit;
                    }
                }
            }
            let next = end.unwrap_or_else(|| scan::value(json, at));
            // A value has at least one byte; anything else would be an endless loop on bad bytes.
            at = next.max(at + 1);
            index += 1;
        }
    }

    /// The place is a list, so its columns answer one, even if nothing is found in it.
    fn begin_lists(&mut self, node: &Node) {
        for column in &node.lists {
            let column = *column as usize;
            if self.row[column].is_absent() && !self.set.paths[column].asks_existence() {
                self.row[column] = FieldValue::Json(Cow::Owned(vec![b'[']));
            }
        }
    }

    fn found(&mut self, node: &Node, start: usize, end: usize) {
        let json = &self.json[start.min(end)..end];
        for column in &node.columns {
            let column = *column as usize;
            let value = &mut self.row[column];
            if self.set.paths[column].asks_existence() {
                if value.is_absent() && json.first() != Some(&b'n') {
                    *value = FieldValue::Bool(true);
                    self.left = self.left.saturating_sub(1);
                }
            } else if node.gathered {
                if let FieldValue::Json(Cow::Owned(list)) = value {
                    if list.len() > 1 {
                        list.push(b',');
                    }
                    list.extend_from_slice(json);
                }
            } else if value.is_absent() {
                *value = FieldValue::of_json(json);
                self.left = self.left.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "web-1", "labels": {"app.kubernetes.io/name": "web", "a\"b": "quoted"}, "x": "é\n"},
            "spec": {
                "nodeName": "n1", "priority": 1.0, "weight": 0.5, "hostNetwork": false, "gone": null,
                "containers": [
                    {"name": "a", "image": "one", "ports": [{"containerPort": 80}, {"containerPort": 81}]},
                    {"name": "b", "image": "two"},
                    {"name": "c", "image": "three", "ports": []},
                ],
            },
            "status": {"conditions": [{"status": "False", "type": "PodScheduled"}, {"status": "True", "type": "Ready"}], "phase": "Running"},
        })
    }

    const PATHS: &[(&str, &str)] = &[
        (".metadata.name", "Str(\"web-1\")"),
        (".status.phase", "Str(\"Running\")"),
        (".status.conditions[type=Ready].status", "Str(\"True\")"),
        (".status.conditions[type=Gone].status", "Absent"),
        (".metadata.labels[\"app.kubernetes.io/name\"]", "Str(\"web\")"),
        (".metadata.labels[\"a\\\"b\"]", "Str(\"quoted\")"),
        (".metadata.x", "Str(\"é\\n\")"),
        (".spec.priority", "I64(1)"),
        (".spec.weight", "F64(0.5)"),
        (".spec.hostNetwork", "Bool(false)"),
        (".spec.gone", "Null"),
        (".spec.gone?", "Bool(false)"),
        (".spec.nodeName?", "Bool(true)"),
        (".spec.nothing?", "Bool(false)"),
        (".spec.nodeName.deeper", "Absent"),
        (".spec.containers[1].name", "Str(\"b\")"),
        (".spec.containers[9].name", "Absent"),
        (".spec.containers[*].image", r#"["one","two","three"]"#),
        (".spec.containers[*].ports[*].containerPort", "[80,81]"),
        (".spec.containers[*].ports[containerPort=81].containerPort", "[81]"),
        (".spec.containers[*].missing", "[]"),
        (".spec.containers[*].missing?", "Bool(false)"),
        (".spec.containers[*].ports?", "Bool(true)"),
        (".spec.volumes[*].name", "Absent"),
        (".metadata.labels[*]", r#"["quoted","web"]"#),
        (".spec.containers[name=b]", r#"{"image":"two","name":"b"}"#),
        (
            ".metadata.labels",
            r#"{"a\"b":"quoted","app.kubernetes.io/name":"web"}"#,
        ),
    ];

    fn shown(value: &FieldValue<'_>) -> String {
        match value {
            FieldValue::Json(json) => String::from_utf8(json.to_vec()).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn one_pass_reads_what_each_path_reads() {
        let pod = pod();
        let json = serde_json::to_vec(&pod).unwrap();
        let pretty = serde_json::to_vec_pretty(&pod).unwrap();
        let texts: Vec<&str> = PATHS.iter().map(|(path, _)| *path).collect();
        let set = FieldSet::parse(&texts).unwrap();
        let row = set.read(&json);
        for (i, (path, expected)) in PATHS.iter().enumerate() {
            assert_eq!(shown(&row[i]), *expected, "{path} among others");
            let alone = FieldSet::parse(&[path]).unwrap();
            assert_eq!(shown(&alone.read(&json)[0]), *expected, "{path} alone");
            assert_eq!(
                shown(&set.paths()[i].read(&pod)),
                *expected,
                "{path} of the parsed object"
            );
            if !matches!(row[i], FieldValue::Json(_)) {
                assert_eq!(alone.read(&pretty)[0], row[i], "{path} with white space");
            }
        }
    }

    #[test]
    fn values_have_one_total_order() {
        let big = i64::MAX as f64 * 4.0;
        let ordered = [
            FieldValue::Absent,
            FieldValue::Null,
            FieldValue::Bool(false),
            FieldValue::Bool(true),
            FieldValue::F64(-big),
            FieldValue::I64(-3),
            FieldValue::F64(-2.5),
            FieldValue::I64(1 << 53),
            FieldValue::I64((1 << 53) + 1),
            FieldValue::F64(big),
            FieldValue::Str("".into()),
            FieldValue::Str("a".into()),
            FieldValue::Json(b"[]".as_slice().into()),
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} and {b:?}");
            }
        }
        assert_eq!(FieldValue::of_json(b"1.0"), FieldValue::I64(1));
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\{}\\[\\],: é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn path() -> impl Strategy<Value = String> {
        let step = prop_oneof!["\\.[a-d]", Just("[*]".to_owned()), "\\[[0-2]\\]", "\\[[a-d]=[a-c]\\]"];
        (prop::collection::vec(step, 0..5), "\\??").prop_map(|(steps, end)| steps.concat() + &end)
    }

    proptest! {
        #[test]
        fn the_bytes_say_what_the_document_says(document in document(), paths in prop::collection::vec(path(), 1..5)) {
            let paths: Vec<FieldPath> = paths.iter().map(|p| FieldPath::parse(p).unwrap()).collect();
            let json = serde_json::to_vec(&document).unwrap();
            let row = FieldSet::new(paths.clone()).read(&json);
            for (path, value) in paths.iter().zip(row) {
                prop_assert_eq!(shown(&value), shown(&path.read(&document)), "{}", path);
            }
        }

        #[test]
        fn bytes_that_are_not_json_do_no_harm(bytes in "[{}\\[\\],:\"\\\\a0 \\-]{0,40}", path in path()) {
            let _ = FieldSet::new([FieldPath::parse(&path).unwrap()]).read(bytes.as_bytes());
        }
    }
}
