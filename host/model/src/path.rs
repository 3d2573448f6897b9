//! Field paths: the one written grammar in which plugins, views and field selectors name a place in an object.
//!
//! ```text
//! path    = [ "." ] step { step } [ "?" ]      the first step may leave its dot out: metadata.name
//! step    = "." name                           member of an object; letters, digits, "_", "-", "$"
//!         | '["' key '"]'                      member by any key, a JSON string: .metadata.labels["app.kubernetes.io/name"]
//!         | "[" key "=" value { "," … } "]"    first list element with these members: [type=Ready], [port=80,protocol=TCP]
//!         | "[" digits "]"                     list element by place, from 0
//!         | "[*]"                              every list element, or every member's value
//! "?" at the end asks whether the place exists (and is not null): the answer is a bool
//! ```
//! The empty path and `.` are the whole object. A path with `[*]` answers a JSON list of what was found, in order, and
//! nested `[*]` are flattened; with `?` it answers whether anything was found.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde_json::Value;

use crate::{Failure, FieldValue};

/// A parsed path. Equal texts, equal paths; [`FieldPath::to_string`] gives the canonical text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath {
    steps: Box<[Step]>,
    exists: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Key(CompactString),
    Index(usize),
    /// The first element that has all of these members, compared as text (`80` and `"80"` are alike).
    Where(Box<[(CompactString, CompactString)]>),
    Each,
}

impl FieldPath {
    /// # Errors
    /// [`Failure::BadRequest`] that says where in the text the grammar is left.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        Reader { text, at: 0 }
            .path()
            .map_err(|(at, says)| Failure::BadRequest(format!("field path {text:?} is malformed at byte {at}: {says}")))
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Ends in `?`.
    pub fn asks_existence(&self) -> bool {
        self.exists
    }

    /// Has a `[*]`, so that it answers a list.
    pub fn is_many(&self) -> bool {
        self.steps.contains(&Step::Each)
    }

    /// One of the two names a place at or inside the other's: a change of one may be a change of the other.
    pub fn overlaps(&self, other: &FieldPath) -> bool {
        self.steps.iter().zip(other.steps.iter()).all(|(a, b)| match (a, b) {
            (Step::Key(a), Step::Key(b)) => a == b,
            (Step::Index(a), Step::Index(b)) => a == b,
            // Two selections of one list may fall on the same element unless they differ on the same member.
            (Step::Where(a), Step::Where(b)) => !a.iter().any(|(k, v)| b.iter().any(|(l, w)| k == l && v != w)),
            (Step::Key(_), Step::Index(_) | Step::Where(_)) | (Step::Index(_) | Step::Where(_), Step::Key(_)) => false,
            _ => true,
        })
    }

    /// Reads from a parsed document; what [`crate::FieldSet`] reads from the bytes of the same document.
    pub fn read<'a>(&self, document: &'a Value) -> FieldValue<'a> {
        let mut found = Vec::new();
        collect(&self.steps, document, &mut found);
        if self.exists {
            return FieldValue::Bool(found.iter().any(|v| !v.is_null()));
        }
        if !self.is_many() {
            return found.first().map_or(FieldValue::Absent, |v| FieldValue::of(v));
        }
        // A list that is not there is absent; one that is there and holds nothing is empty.
        let first = self.steps.iter().position(|s| *s == Step::Each).unwrap_or_default();
        let mut lists = Vec::new();
        collect(&self.steps[..first], document, &mut lists);
        match lists.first() {
            Some(list) if list.is_array() || list.is_object() => {
                let text: Vec<String> = found.iter().map(|v| v.to_string()).collect();
                FieldValue::Json(format!("[{}]", text.join(",")).into_bytes().into())
            }
            _ => FieldValue::Absent,
        }
    }
}

/// As it is written.
fn number_is(number: &serde_json::Number, text: &str) -> bool {
    let written = number.to_string();
    written == text
}

fn collect<'a>(steps: &[Step], value: &'a Value, found: &mut Vec<&'a Value>) {
    let Some((step, rest)) = steps.split_first() else {
        found.push(value);
        return;
    };
    match (step, value) {
        (Step::Key(key), Value::Object(map)) => {
            if let Some(value) = map.get(key.as_str()) {
                collect(rest, value, found);
            }
        }
        (Step::Index(at), Value::Array(list)) => {
            if let Some(value) = list.get(*at) {
                collect(rest, value, found);
            }
        }
        (Step::Where(wanted), Value::Array(list)) => {
            let is = |element: &&Value| {
                wanted.iter().all(|(key, text)| match element.get(key.as_str()) {
                    Some(Value::String(has)) => has == text.as_str(),
                    Some(Value::Bool(has)) => text == if *has { "true" } else { "false" },
                    Some(Value::Number(has)) => number_is(has, text),
                    _ => false,
                })
            };
            if let Some(value) = list.iter().find(is) {
                collect(rest, value, found);
            }
        }
        (Step::Each, Value::Array(list)) => list.iter().for_each(|v| collect(rest, v, found)),
        (Step::Each, Value::Object(map)) => map.values().for_each(|v| collect(rest, v, found)),
        _ => {}
    }
}

impl FromStr for FieldPath {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            f.write_str(".")?;
        }
        for step in &self.steps {
            match step {
                Step::Key(key) if !key.is_empty() && key.chars().all(is_name) => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
                Step::Index(at) => write!(f, "[{at}]")?,
                Step::Each => f.write_str("[*]")?,
                Step::Where(wanted) => {
                    let pairs: Vec<String> = wanted.iter().map(|(k, v)| format!("{}={}", word(k), word(v))).collect();
                    write!(f, "[{}]", pairs.join(","))?;
                }
            }
        }
        f.write_str(if self.exists { "?" } else { "" })
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$')
}

/// A key or value inside `[k=v]`: bare where that is unambiguous, else a JSON string.
fn word(text: &str) -> String {
    let bare = |c: char| is_name(c) || matches!(c, '.' | '/' | ':');
    if !text.is_empty() && text.chars().all(bare) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

type Wrong = (usize, &'static str);

impl<'t> Reader<'t> {
    fn path(mut self) -> Result<FieldPath, Wrong> {
        let mut steps = Vec::new();
        let mut exists = false;
        if self.text == "." {
            self.at = 1;
        }
        while let Some(next) = self.rest().chars().next() {
            match next {
                '?' if self.rest().len() == 1 => {
                    exists = true;
                    self.at += 1;
                }
                '?' => return Err((self.at, "`?` stands at the end only")),
                '.' => {
                    self.at += 1;
                    steps.push(Step::Key(self.name()?));
                }
                '[' => {
                    self.at += 1;
                    steps.push(self.bracket()?);
                }
                _ if steps.is_empty() => steps.push(Step::Key(self.name()?)),
                _ => return Err((self.at, "a step begins with `.` or `[`")),
            }
        }
        Ok(FieldPath {
            steps: steps.into(),
            exists,
        })
    }

    fn bracket(&mut self) -> Result<Step, Wrong> {
        if self.eat("*]") {
            return Ok(Step::Each);
        }
        let quoted = self.rest().starts_with('"');
        let start = self.at;
        let first = self.word()?;
        if self.eat("]") {
            return match first.parse() {
                _ if quoted => Ok(Step::Key(first)),
                Ok(index) if first.chars().all(|c| c.is_ascii_digit()) => Ok(Step::Index(index)),
                _ => Err((start, "in brackets stands `*`, a place, a quoted key, or key=value")),
            };
        }
        let mut pairs = Vec::new();
        let mut key = first;
        loop {
            self.expect("=", "`=` or `]` is missing")?;
            pairs.push((key, self.word()?));
            if self.eat("]") {
                pairs.sort();
                return Ok(Step::Where(pairs.into()));
            }
            self.expect(",", "`,` or `]` is missing")?;
            key = self.word()?;
        }
    }

    fn name(&mut self) -> Result<CompactString, Wrong> {
        self.take_while(
            is_name,
            "a name is missing; write keys with other characters as [\"key\"]",
        )
    }

    fn word(&mut self) -> Result<CompactString, Wrong> {
        if self.rest().starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
            let Some(Ok(text)) = strings.next() else {
                return Err((self.at, "the quoted text is not a JSON string"));
            };
            self.at += strings.byte_offset();
            return Ok(text.into());
        }
        self.take_while(
            |c| !matches!(c, '=' | ',' | '[' | ']' | '"' | '?'),
            "a key or value is missing",
        )
    }

    fn take_while(&mut self, is: impl Fn(char) -> bool, missing: &'static str) -> Result<CompactString, Wrong> {
        let length = self.rest().find(|c| !is(c)).unwrap_or(self.rest().len());
        if length == 0 {
            return Err((self.at, missing));
        }
        let taken = &self.rest()[..length];
        self.at += length;
        Ok(taken.into())
    }

    fn eat(&mut self, text: &str) -> bool {
        let is = self.rest().starts_with(text);
        self.at += if is { text.len() } else { 0 };
        is
    }

    fn expect(&mut self, text: &str, missing: &'static str) -> Result<(), Wrong> {
        if self.eat(text) {
            Ok(())
        } else {
            Err((self.at, missing))
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_has_one_spelling_for_each_path() {
        for (text, canonical) in [
            (".status.phase", ".status.phase"),
            ("metadata.name", ".metadata.name"),
            (".", "."),
            ("", "."),
            (
                ".metadata.labels[\"app.kubernetes.io/name\"]",
                ".metadata.labels[\"app.kubernetes.io/name\"]",
            ),
            (".metadata.labels[\"app\"]", ".metadata.labels.app"),
            (
                ".status.conditions[type=Ready].status",
                ".status.conditions[type=Ready].status",
            ),
            (
                ".spec.ports[protocol=TCP,port=80].name?",
                ".spec.ports[port=80,protocol=TCP].name?",
            ),
            (".spec.containers[*].image", ".spec.containers[*].image"),
            (".a[0][*]?", ".a[0][*]?"),
            (".a[b=\"x y\"]", ".a[b=\"x y\"]"),
        ] {
            let path = FieldPath::parse(text).unwrap();
            assert_eq!(path.to_string(), canonical, "{text}");
            assert_eq!(FieldPath::parse(canonical).unwrap(), path, "{text}");
        }
    }

    #[test]
    fn leaving_the_grammar_is_told_with_the_place() {
        for (text, says) in [
            (
                ".a..b",
                "at byte 3: a name is missing; write keys with other characters as [\"key\"]",
            ),
            (".a?.b", "at byte 2: `?` stands at the end only"),
            (".a[", "at byte 3: a key or value is missing"),
            (
                ".a[b]",
                "at byte 3: in brackets stands `*`, a place, a quoted key, or key=value",
            ),
            (".a[b=c", "at byte 6: `,` or `]` is missing"),
            (".a[\"b]", "at byte 3: the quoted text is not a JSON string"),
            (".a[0]b", "at byte 5: a step begins with `.` or `[`"),
        ] {
            let failure = FieldPath::parse(text).unwrap_err().to_string();
            assert!(failure.ends_with(says), "{text}: {failure}");
        }
    }

    #[test]
    fn overlap_is_about_places() {
        let overlap = |a: &str, b: &str| FieldPath::parse(a).unwrap().overlaps(&FieldPath::parse(b).unwrap());
        assert!(overlap(".spec", ".spec.replicas") && overlap(".spec.replicas", ".spec"));
        assert!(!overlap(".spec.replicas", ".spec.template"));
        assert!(overlap(".c[type=Ready].status", ".c[*]") && !overlap(".c[type=Ready]", ".c[type=Other]"));
        assert!(overlap(".c[type=Ready]", ".c[0]") && overlap(".", ".a"));
    }
}
