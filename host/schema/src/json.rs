//! JSON bytes to a value, noticing fields that are there twice.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::place::Place;

/// More complaints than this help nobody; kube-apiserver stops at the same number.
pub(crate) const MOST_PROBLEMS: usize = 100;

/// The value (of a field that is there twice, the last), and a `duplicate field "…"` for each that is.
///
/// # Errors
/// The reader's, for what is not JSON.
pub fn parse(json: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let (value, twice, _) = read(json, false)?;
    Ok((value, twice))
}

/// Puts problems (`unknown field "…"`, `duplicate field "…"`) in the order in which they stand in the text, which is how
/// Go's decoder comes upon them. Reads the text once more: of the few bodies that have any.
pub(crate) fn in_order(json: &[u8], problems: &mut [String]) {
    let Ok((_, _, keys)) = read(json, true) else { return };
    problems.sort_by_cached_key(|problem| {
        let place = problem.split_once('"').and_then(|(_, rest)| rest.strip_suffix('"'));
        let mut met = keys.iter().enumerate().filter(|(_, key)| Some(key.as_str()) == place);
        let nth = usize::from(problem.starts_with("duplicate"));
        met.nth(nth).map(|(at, _)| at)
    });
}

/// The value, its duplicates, and the places of all keys in their order, if wanted.
fn read(json: &[u8], keys: bool) -> Result<(Value, Vec<String>, Vec<String>), serde_json::Error> {
    let (twice, met) = (RefCell::default(), RefCell::default());
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Seed {
        place: &Place::Root,
        twice: &twice,
        met: keys.then_some(&met),
    }
    .deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, twice.into_inner(), met.into_inner()))
}

#[derive(Clone, Copy)]
struct Seed<'p> {
    place: &'p Place<'p>,
    twice: &'p RefCell<Vec<String>>,
    met: Option<&'p RefCell<Vec<String>>>,
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
        f.write_str("JSON")
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
            .ok_or_else(|| E::custom("the number is out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Seed {
            place: &self.place.index(values.len()),
            ..self
        })? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let place = self.place.key(&key);
            if let Some(met) = self.met {
                met.borrow_mut().push(place.to_string());
            }
            let value = map.next_value_seed(Seed { place: &place, ..self })?;
            if values.contains_key(&key) && self.twice.borrow().len() < MOST_PROBLEMS {
                self.twice.borrow_mut().push(format!("duplicate field \"{place}\""));
            }
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}
