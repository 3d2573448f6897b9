//! Values, which borrow the JSON they come from.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map as Members, Value};

use crate::eval::Fault;
use crate::library::kubernetes::Kube;
use crate::shape::{Field, Order, Shape, ShapeKind};
use crate::types::Type;

#[derive(Debug, Clone)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    /// Written out in an expression: `Object.spec{…}`.
    Struct(Arc<str>, Arc<BTreeMap<String, Val<'a>>>),
    Optional(Option<Arc<Val<'a>>>),
    Type(Type),
    #[doc(hidden)]
    Kube(Kube),
    /// What a step of a fold failed with: a later step may make it good.
    #[doc(hidden)]
    Failed(Arc<Fault>),
}

/// A text, borrowed or not.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

#[derive(Debug, Clone)]
pub struct List<'a> {
    pub(crate) items: Items<'a>,
    pub(crate) order: Option<&'a Order>,
}

#[derive(Debug, Clone)]
pub(crate) enum Items<'a> {
    Json(&'a [Value], Option<&'a Shape>),
    Made(Arc<Vec<Val<'a>>>),
}

#[derive(Debug, Clone)]
pub enum Map<'a> {
    #[doc(hidden)]
    Json(&'a Members<String, Value>, Of<'a>),
    Made(Arc<BTreeMap<Key, Val<'a>>>),
}

/// What the values of a JSON object are.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    Anything,
    Values(&'a Shape),
    Fields(&'a BTreeMap<String, Field>),
}

/// A key of a map that an expression made. Whole numbers are equal whatever their type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i128),
    Text(String),
}

impl Key {
    pub(crate) fn of(val: &Val<'_>) -> Option<Key> {
        Some(match val {
            Val::Bool(flag) => Key::Bool(*flag),
            Val::Int(number) => Key::Int((*number).into()),
            Val::Uint(number) => Key::Int((*number).into()),
            Val::Double(number) if number.fract() == 0.0 && number.abs() < 1e18 => Key::Int(*number as i128),
            Val::Text(text) => Key::Text(text.to_string()),
            _ => return None,
        })
    }

    pub(crate) fn val<'a>(&self) -> Val<'a> {
        match self {
            Key::Bool(flag) => Val::Bool(*flag),
            Key::Int(number) => match i64::try_from(*number) {
                Ok(number) => Val::Int(number),
                Err(_) => Val::Uint(*number as u64),
            },
            Key::Text(text) => Val::text(text.clone()),
        }
    }
}

impl<'a> Val<'a> {
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Val::Text(Text::Shared(text.into()))
    }

    pub fn some(val: Val<'a>) -> Self {
        Val::Optional(Some(Arc::new(val)))
    }

    pub fn list(items: Vec<Val<'a>>) -> Self {
        Val::List(List {
            items: Items::Made(Arc::new(items)),
            order: None,
        })
    }

    pub fn map(entries: BTreeMap<Key, Val<'a>>) -> Self {
        Val::Map(Map::Made(Arc::new(entries)))
    }

    /// JSON of which nothing is known.
    pub fn json(value: &'a Value) -> Self {
        match value {
            Value::Null => Val::Null,
            Value::Bool(flag) => Val::Bool(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(number) => Val::Int(number),
                None => Val::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Val::Text(Text::Borrowed(text)),
            Value::Array(items) => Val::List(List {
                items: Items::Json(items, None),
                order: None,
            }),
            Value::Object(members) => Val::Map(Map::Json(members, Of::Anything)),
        }
    }

    /// JSON of a known shape.
    ///
    /// # Errors
    /// Where it has another one.
    pub fn shaped(value: &'a Value, shape: &'a Shape) -> Result<Self, Fault> {
        let wrong = |wanted: &str| Err(Fault::new(format!("invalid data, expected {wanted}, got {value}")));
        match (&shape.kind, value) {
            (ShapeKind::Opaque, value) => Ok(Val::json(value)),
            (_, Value::Null) => Err(Fault::new("invalid data, got null for schema with nullable=false")),
            (ShapeKind::IntOrString, Value::String(text)) => Ok(Val::Text(Text::Borrowed(text))),
            (ShapeKind::IntOrString | ShapeKind::Int, Value::Number(number)) => match whole(number) {
                Some(number) => Ok(Val::Int(number)),
                None => wrong("int"),
            },
            (ShapeKind::IntOrString, _) => Err(Fault::new(
                "invalid data, expected XIntOrString value to be either a string or integer",
            )),
            (ShapeKind::Int, _) => wrong("int"),
            (ShapeKind::Bool, Value::Bool(flag)) => Ok(Val::Bool(*flag)),
            (ShapeKind::Bool, _) => wrong("bool"),
            (ShapeKind::Double, Value::Number(number)) => Ok(Val::Double(number.as_f64().unwrap_or_default())),
            (ShapeKind::Double, _) => wrong("float"),
            (kind, Value::String(text)) => {
                let bad = |what: &str| Fault::new(format!("Invalid {what} {text}"));
                match kind {
                    ShapeKind::Text => Ok(Val::Text(Text::Borrowed(text))),
                    ShapeKind::Bytes => match crate::library::standard::base64(text) {
                        Some(bytes) => Ok(Val::Bytes(bytes.into())),
                        None => Err(bad("byte formatted string")),
                    },
                    ShapeKind::Duration => match crate::library::time::duration(text) {
                        Some(nanos) => Ok(Val::Duration(nanos)),
                        None => Err(bad("duration")),
                    },
                    ShapeKind::Date => match text.parse::<jiff::civil::Date>() {
                        Ok(date) => Ok(Val::Timestamp(
                            date.to_zoned(jiff::tz::TimeZone::UTC)
                                .map_err(|_| bad("date formatted string"))?
                                .timestamp(),
                        )),
                        Err(_) => Err(bad("date formatted string")),
                    },
                    ShapeKind::DateTime => match model::time::parse(text) {
                        Ok(at) => Ok(Val::Timestamp(at)),
                        Err(_) => Err(bad("date-time formatted string")),
                    },
                    _ => wrong("another type"),
                }
            }
            (ShapeKind::List(of, order), Value::Array(items)) => Ok(Val::List(List {
                items: Items::Json(items, Some(of)),
                order: Some(order),
            })),
            (ShapeKind::Map(of), Value::Object(members)) => Ok(Val::Map(Map::Json(members, Of::Values(of)))),
            (ShapeKind::Object(_, fields), Value::Object(members)) => {
                Ok(Val::Map(Map::Json(members, Of::Fields(fields))))
            }
            _ => wrong("another type"),
        }
    }

    pub(crate) fn ty(&self) -> Type {
        match self {
            Val::Null => Type::Null,
            Val::Bool(_) => Type::Bool,
            Val::Int(_) => Type::Int,
            Val::Uint(_) => Type::Uint,
            Val::Double(_) => Type::Double,
            Val::Text(_) => Type::String,
            Val::Bytes(_) => Type::Bytes,
            Val::Timestamp(_) => Type::Timestamp,
            Val::Duration(_) => Type::Duration,
            Val::List(_) => Type::list(Type::Dyn),
            Val::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Val::Struct(name, _) => Type::Struct(name.clone()),
            Val::Optional(_) => Type::optional(Type::Dyn),
            Val::Type(_) => Type::Type(None),
            Val::Kube(of) => Type::Struct(of.name().into()),
            Val::Failed(_) => Type::Error,
        }
    }

    /// As `size()` counts; `None`: it has no size.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(match self {
            Val::Text(text) => text.chars().count() as u64,
            Val::Bytes(bytes) => bytes.len() as u64,
            Val::List(list) => list.len() as u64,
            Val::Map(map) => map.len() as u64,
            _ => return None,
        })
    }

    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Val::Null => true,
            Val::Bool(flag) => !flag,
            Val::Int(number) => *number == 0,
            Val::Uint(number) => *number == 0,
            Val::Double(number) => *number == 0.0,
            Val::Duration(nanos) => *nanos == 0,
            Val::Optional(inner) => inner.is_none(),
            Val::Struct(_, fields) => fields.is_empty(),
            other => other.size() == Some(0),
        }
    }

    pub(crate) fn equals(&self, other: &Val<'a>) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
                self.compare(other) == Some(Ordering::Equal)
            }
            (Val::Text(a), Val::Text(b)) => **a == **b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::List(a), Val::List(b)) => a.equals(b),
            (Val::Map(a), Val::Map(b)) => {
                a.len() == b.len()
                    && a.keys().iter().all(|key| match (a.get(key), b.get(key)) {
                        (Ok(Some(a)), Ok(Some(b))) => a.equals(&b),
                        _ => false,
                    })
            }
            (Val::Struct(name, a), Val::Struct(other, b)) => {
                name == other && a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| a.equals(b)))
            }
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Val::Type(a), Val::Type(b)) => a.name() == b.name(),
            (Val::Kube(a), Val::Kube(b)) => a.equals(b),
            _ => false,
        }
    }

    /// `None`: the two cannot be compared.
    pub(crate) fn compare(&self, other: &Val<'a>) -> Option<Ordering> {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
            (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
            (Val::Double(a), Val::Int(b)) => compare_whole(*a, (*b).into()),
            (Val::Double(a), Val::Uint(b)) => compare_whole(*a, (*b).into()),
            (Val::Int(a), Val::Double(b)) => compare_whole(*b, (*a).into()).map(Ordering::reverse),
            (Val::Uint(a), Val::Double(b)) => compare_whole(*b, (*a).into()).map(Ordering::reverse),
            (Val::Text(a), Val::Text(b)) => Some((**a).cmp(&**b)),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// As JSON, for values that have one.
    ///
    /// # Errors
    /// For types, and what only lives inside an expression.
    pub fn to_json(&self) -> Result<Value, Fault> {
        Ok(match self {
            Val::Null => Value::Null,
            Val::Bool(flag) => (*flag).into(),
            Val::Int(number) => (*number).into(),
            Val::Uint(number) => (*number).into(),
            Val::Double(number) => serde_json::Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Val::Text(text) => (**text).into(),
            Val::Bytes(bytes) => crate::library::standard::to_base64(bytes).into(),
            Val::Timestamp(at) => crate::library::time::show_timestamp(*at).into(),
            Val::Duration(nanos) => crate::library::time::show_duration(*nanos).into(),
            Val::List(list) => {
                let items = list.iter().map(|item| item.and_then(|item| item.to_json()));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Val::Map(map) => {
                let mut members = Members::new();
                for key in map.keys() {
                    let name = match &key {
                        Key::Text(name) => name.clone(),
                        Key::Bool(flag) => flag.to_string(),
                        Key::Int(number) => number.to_string(),
                    };
                    if let Some(value) = map.get(&key)? {
                        members.insert(name, value.to_json()?);
                    }
                }
                Value::Object(members)
            }
            Val::Struct(_, fields) => {
                let mut members = Members::new();
                for (name, value) in fields.iter() {
                    members.insert(name.clone(), value.to_json()?);
                }
                Value::Object(members)
            }
            Val::Optional(Some(inner)) => inner.to_json()?,
            Val::Kube(of) => of.show().into(),
            Val::Failed(fault) => return Err((**fault).clone()),
            Val::Optional(None) | Val::Type(_) => {
                return Err(Fault::new(format!("a value of type {} is no JSON", self.ty().name())));
            }
        })
    }
}

/// A number that JSON may write as `1.0`.
fn whole(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        number
            .as_f64()
            .filter(|f| f.fract() == 0.0 && f.abs() < 9.2e18)
            .map(|f| f as i64)
    })
}

fn compare_whole(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a >= 1e19 {
        return Some(Ordering::Greater);
    }
    if a <= -1e19 {
        return Some(Ordering::Less);
    }
    let floor = a.floor();
    Some(
        (floor as i128)
            .cmp(&b)
            .then(if a > floor { Ordering::Greater } else { Ordering::Equal }),
    )
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match &self.items {
            Items::Json(items, _) => items.len(),
            Items::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<Result<Val<'a>, Fault>> {
        match &self.items {
            Items::Json(items, Some(of)) => items.get(at).map(|item| Val::shaped(item, of)),
            Items::Json(items, None) => items.get(at).map(|item| Ok(Val::json(item))),
            Items::Made(items) => items.get(at).cloned().map(Ok),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Val<'a>, Fault>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// The elements that can be read.
    pub fn entries(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        self.iter().flatten()
    }

    pub(crate) fn all(&self) -> Result<Vec<Val<'a>>, Fault> {
        self.iter().collect()
    }

    pub(crate) fn has(&self, wanted: &Val<'a>) -> bool {
        self.iter().any(|item| item.is_ok_and(|item| item.equals(wanted)))
    }

    fn equals(&self, other: &List<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let pair = |(a, b): (Result<Val<'a>, Fault>, Result<Val<'a>, Fault>)| match (a, b) {
            (Ok(a), Ok(b)) => a.equals(&b),
            _ => false,
        };
        match self.order {
            Some(Order::Set) => self.iter().all(|item| item.is_ok_and(|item| other.has(&item))),
            Some(Order::Map(keys)) => other.iter().all(|item| {
                let Ok(item) = item else { return false };
                let wanted = address(&item, keys);
                self.iter()
                    .flatten()
                    .find(|own| same(&address(own, keys), &wanted))
                    .is_some_and(|own| own.equals(&item))
            }),
            _ => self.iter().zip(other.iter()).all(pair),
        }
    }

    /// `+`: sets and map lists keep each element once.
    pub(crate) fn plus(&self, other: &List<'a>) -> Result<Val<'a>, Fault> {
        let mut items = self.all()?;
        match self.order {
            Some(Order::Set) => {
                for item in other.all()? {
                    if !items.iter().any(|own| own.equals(&item)) {
                        items.push(item);
                    }
                }
            }
            Some(Order::Map(keys)) => {
                for item in other.all()? {
                    let wanted = address(&item, keys);
                    match items.iter_mut().find(|own| same(&address(own, keys), &wanted)) {
                        Some(own) => *own = item,
                        None => items.push(item),
                    }
                }
            }
            _ => items.extend(other.all()?),
        }
        Ok(Val::List(List {
            items: Items::Made(Arc::new(items)),
            order: self.order,
        }))
    }
}

fn address<'a>(item: &Val<'a>, keys: &[String]) -> Vec<Option<Val<'a>>> {
    let Val::Map(map) = item else { return Vec::new() };
    keys.iter()
        .map(|key| map.get(&Key::Text(key.clone())).ok().flatten())
        .collect()
}

fn same<'a>(a: &[Option<Val<'a>>], b: &[Option<Val<'a>>]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => a.equals(b),
            (None, None) => true,
            _ => false,
        })
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Map::Json(members, _) => members.len(),
            Map::Made(entries) => entries.len(),
        }
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        match (self, key) {
            (Map::Json(members, Of::Fields(fields)), Key::Text(name)) => {
                fields.get(name).is_some_and(|field| members.contains_key(&field.name))
            }
            (Map::Json(members, _), Key::Text(name)) => members.contains_key(name),
            (Map::Json(..), _) => false,
            (Map::Made(entries), key) => entries.contains_key(key),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Val<'a>>, Fault> {
        match (self, key) {
            (Map::Json(members, Of::Fields(fields)), Key::Text(name)) => {
                let Some(field) = fields.get(name) else { return Ok(None) };
                match members.get(&field.name) {
                    None => Ok(None),
                    Some(Value::Null) if field.nullable => Ok(Some(Val::Null)),
                    Some(value) => Val::shaped(value, &field.shape).map(Some),
                }
            }
            (Map::Json(members, Of::Values(of)), Key::Text(name)) => {
                members.get(name).map(|value| Val::shaped(value, of)).transpose()
            }
            (Map::Json(members, Of::Anything), Key::Text(name)) => Ok(members.get(name).map(Val::json)),
            (Map::Json(..), _) => Ok(None),
            (Map::Made(entries), key) => Ok(entries.get(key).cloned()),
        }
    }

    /// What can be read of it.
    pub fn entries(&self) -> impl Iterator<Item = (Key, Val<'a>)> + '_ {
        self.keys().into_iter().filter_map(|key| {
            let val = self.get(&key).ok()??;
            Some((key, val))
        })
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        match self {
            Map::Json(members, Of::Fields(fields)) => fields
                .iter()
                .filter(|(_, field)| members.contains_key(&field.name))
                .map(|(name, _)| Key::Text(name.clone()))
                .collect(),
            Map::Json(members, _) => members.keys().map(|key| Key::Text(key.clone())).collect(),
            Map::Made(entries) => entries.keys().cloned().collect(),
        }
    }
}
