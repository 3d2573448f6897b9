//! YAML bodies as JSON, and the keys that stand in a mapping twice, told by their lines in the words of Go's YAML reader.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Each complaint costs a reading of the text: the YAML reader tells a place only of what it stopped at.
const MOST_COMPLAINTS: usize = 10;

/// A document as it is meant (of a key that is there twice, the last), and a line of complaint for each such key.
pub(crate) struct Read {
    pub(crate) value: Value,
    /// `line 9: key "foo" already set in map`
    pub(crate) doubled: Vec<String>,
}

/// # Errors
/// The reader's own words for what is no YAML, or has keys that are no scalars.
pub(crate) fn read(text: &[u8]) -> Result<Read, String> {
    let met = Cell::new(0);
    let all = Seed {
        met: &met,
        stop_at: usize::MAX,
    };
    let value = all
        .deserialize(serde_yaml_ng::Deserializer::from_slice(text))
        .map_err(|error| error.to_string())?;
    Ok(Read {
        value,
        doubled: complaints(text, met.get()),
    })
}

/// The same of JSON, which an apply patch nearly always is. `None` if the text is not JSON.
pub(crate) fn read_json(text: &[u8]) -> Option<Vec<String>> {
    let (_, doubled) = schema::parse(text).ok()?;
    Some(complaints(text, doubled.len()))
}

fn complaints(text: &[u8], many: usize) -> Vec<String> {
    let nth = |stop_at| {
        let met = Cell::new(0);
        let one = Seed { met: &met, stop_at };
        let error = one.deserialize(serde_yaml_ng::Deserializer::from_slice(text)).err()?;
        let says = error.to_string();
        // Its own "at line 9 column 3" comes last.
        let says = says
            .split_once(TWICE)
            .map_or("", |(_, key)| key.split(END).next().unwrap_or(key));
        Some(format!(
            "line {}: key {says} already set in map",
            error.location()?.line()
        ))
    };
    (1..=many.min(MOST_COMPLAINTS)).filter_map(nth).collect()
}

/// Around the key in an error, which the reader surrounds with words of its own.
const TWICE: char = '\u{1}';
const END: char = '\u{2}';

#[derive(Clone, Copy)]
struct Seed<'s> {
    /// Doubled keys so far.
    met: &'s Cell<usize>,
    /// The doubled key to stop at, counted from one.
    stop_at: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(is.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("json: unsupported value: {number}")))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        loop {
            let key = Key {
                of: self,
                have: &values,
            };
            let Some(key) = map.next_key_seed(key)? else {
                return Ok(values.into());
            };
            let value = map.next_value_seed(self)?;
            values.insert(key, value);
        }
    }
}

/// A key refuses itself, so that the error has its place.
struct Key<'k> {
    of: Seed<'k>,
    have: &'k Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<String, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        if self.have.contains_key(key) {
            let Seed { met, stop_at } = self.of;
            met.set(met.get() + 1);
            if met.get() == stop_at {
                return Err(E::custom(format!("{TWICE}{key:?}{END}")));
            }
        }
        Ok(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn doubled_keys_are_told_by_their_lines() {
        let text = b"\na: 1\nb:\n  foo: x\n  1: y\n  foo: z\n  list:\n  - {k: 1, k: 2}\na: 2\n";
        let Read { value, doubled } = read(text).unwrap();
        assert_eq!(value, json!({"a": 2, "b": {"foo": "z", "1": "y", "list": [{"k": 2}]}}));
        assert_eq!(
            doubled,
            [
                "line 6: key \"foo\" already set in map",
                "line 8: key \"k\" already set in map",
                "line 9: key \"a\" already set in map",
            ]
        );
        assert!(read(b"a: {b: 1}\nc: [d]\n").unwrap().doubled.is_empty());
        assert!(read(b"a: [").is_err());
    }

    #[test]
    fn json_is_yaml() {
        let text = b"{\"a\": 1,\n \"a\": 2}";
        assert_eq!(read_json(text).unwrap(), ["line 2: key \"a\" already set in map"]);
        assert!(read_json(b"{\"a\": {\"a\": 1}}").unwrap().is_empty());
        assert!(read_json(b"a: 1").is_none());
        assert!(read_json(b"{\"a\": 1} x").is_none());
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~ä\\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[ -~ä]{0,8}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// As JSON or as YAML, a document comes out as it went in, and has nothing twice.
        #[test]
        fn what_is_written_is_read(document in document()) {
            for text in [document.to_string(), serde_yaml_ng::to_string(&document).unwrap()] {
                let Read { value, doubled } = read(text.as_bytes()).unwrap();
                prop_assert_eq!(&value, &document, "{}", text);
                prop_assert!(doubled.is_empty());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-:{}\\[\\],&*!|>'\"%@`#a-c0-9 \n\t~.\u{1}\u{2}]{0,60}") {
            let _ = read(text.as_bytes());
            let _ = read_json(text.as_bytes());
        }
    }

    #[test]
    fn many_complaints_are_cut_short() {
        let text: String = (0..1000).map(|n| format!("k: {n}\n")).collect();
        assert_eq!(read(text.as_bytes()).unwrap().doubled.len(), MOST_COMPLAINTS);
    }
}
