//! The operators and conversions of the language itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Answer;
use crate::eval::{Fault, Machine};
use crate::library::{kubernetes::Kube, time};
use crate::value::{Key, Map, Val};
use std::cmp::Ordering;
use std::collections::BTreeMap;

type M<'a, 'v> = Machine<'a, 'v>;

fn overflow(of: &str) -> Fault {
    Fault::new(format!("{of} overflow"))
}

fn int<'a>(number: Option<i64>) -> Answer<'a> {
    number.map(Val::Int).ok_or_else(|| overflow("integer"))
}

fn uint<'a>(number: Option<u64>) -> Answer<'a> {
    number.map(Val::Uint).ok_or_else(|| overflow("unsigned integer"))
}

fn span<'a>(nanos: Option<i64>) -> Answer<'a> {
    nanos.map(Val::Duration).ok_or_else(|| overflow("duration"))
}

pub(crate) fn add<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    plus(&args[0], &args[1])
}

pub(crate) fn plus<'a>(a: &Val<'a>, b: &Val<'a>) -> Answer<'a> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => int(a.checked_add(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_add(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Val::Text(a), Val::Text(b)) => Ok(Val::text(format!("{}{}", &**a, &**b))),
        (Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&**a, &**b].concat().into())),
        (Val::List(a), Val::List(b)) => a.plus(b),
        (Val::Duration(a), Val::Duration(b)) => span(a.checked_add(*b)),
        (Val::Timestamp(at), Val::Duration(nanos)) | (Val::Duration(nanos), Val::Timestamp(at)) => {
            time::later(*at, *nanos).map(Val::Timestamp)
        }
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn subtract<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match (&args[0], &args[1]) {
        (Val::Int(a), Val::Int(b)) => int(a.checked_sub(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_sub(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (Val::Duration(a), Val::Duration(b)) => span(a.checked_sub(*b)),
        (Val::Timestamp(a), Val::Timestamp(b)) => span(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).ok()),
        (Val::Timestamp(at), Val::Duration(nanos)) => {
            time::later(*at, nanos.checked_neg().ok_or_else(|| overflow("duration"))?).map(Val::Timestamp)
        }
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn multiply<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match (&args[0], &args[1]) {
        (Val::Int(a), Val::Int(b)) => int(a.checked_mul(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_mul(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn divide<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let zero = || Fault::new("division by zero");
    match (&args[0], &args[1]) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err(zero()),
        (Val::Int(a), Val::Int(b)) => int(a.checked_div(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_div(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn modulo<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let zero = || Fault::new("modulus by zero");
    match (&args[0], &args[1]) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err(zero()),
        (Val::Int(a), Val::Int(b)) => int(a.checked_rem(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_rem(*b)),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn negate<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Int(number) => int(number.checked_neg()),
        Val::Double(number) => Ok(Val::Double(-number)),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn not<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Bool(flag) => Ok(Val::Bool(!flag)),
        _ => Err(Fault::no_overload()),
    }
}

fn ordered<'a>(args: &[Val<'a>], holds: fn(Ordering) -> bool) -> Answer<'a> {
    match (&args[0], &args[1]) {
        (Val::Double(a), _) if a.is_nan() => Ok(Val::Bool(false)),
        (_, Val::Double(b)) if b.is_nan() => Ok(Val::Bool(false)),
        (a, b) => a
            .compare(b)
            .map(|order| Val::Bool(holds(order)))
            .ok_or_else(Fault::no_overload),
    }
}

pub(crate) fn less<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(args, Ordering::is_lt)
}

pub(crate) fn less_equals<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(args, Ordering::is_le)
}

pub(crate) fn greater<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(args, Ordering::is_gt)
}

pub(crate) fn greater_equals<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(args, Ordering::is_ge)
}

pub(crate) fn contains_in<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[1] {
        Val::List(list) => Ok(Val::Bool(list.has(&args[0]))),
        Val::Map(map) => Ok(Val::Bool(Key::of(&args[0]).is_some_and(|key| map.has(&key)))),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn size<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let size = args[0].size().ok_or_else(Fault::no_overload)?;
    Ok(Val::Int(size as i64))
}

pub(crate) fn type_of<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(args[0].type_value())
}

pub(crate) fn dynamic<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(args[0].clone())
}

pub(crate) fn to_bool<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Bool(flag) => Ok(Val::Bool(*flag)),
        Val::Text(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            _ => Err(unreadable("bool")),
        },
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn to_bytes<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Bytes(bytes) => Ok(Val::Bytes(bytes.clone())),
        Val::Text(text) => Ok(Val::Bytes(text.as_bytes().into())),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn unreadable(kind: &str) -> Fault {
    Fault::new(format!("type conversion error from 'string' to '{kind}'"))
}

pub(crate) fn to_double<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Double(match &args[0] {
        Val::Double(number) => *number,
        Val::Int(number) => *number as f64,
        Val::Uint(number) => *number as f64,
        Val::Text(text) => text.parse().map_err(|_| unreadable("double"))?,
        _ => return Err(Fault::no_overload()),
    }))
}

pub(crate) fn to_int<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(match &args[0] {
        Val::Int(number) => *number,
        Val::Uint(number) => i64::try_from(*number).map_err(|_| overflow("integer"))?,
        Val::Double(number) if number.is_finite() && number.abs() < 9_223_372_036_854_775_807.0 => *number as i64,
        Val::Double(_) => return Err(overflow("integer")),
        Val::Text(text) => text.parse().map_err(|_| unreadable("int"))?,
        Val::Timestamp(at) => at.as_second(),
        Val::Duration(nanos) => *nanos,
        _ => return Err(Fault::no_overload()),
    }))
}

pub(crate) fn to_uint<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let over = || overflow("unsigned integer");
    Ok(Val::Uint(match &args[0] {
        Val::Uint(number) => *number,
        Val::Int(number) => u64::try_from(*number).map_err(|_| over())?,
        Val::Double(number) if *number >= 0.0 && *number < 18_446_744_073_709_551_615.0 => *number as u64,
        Val::Double(_) => return Err(over()),
        Val::Text(text) => text.parse().map_err(|_| unreadable("uint"))?,
        _ => return Err(Fault::no_overload()),
    }))
}

pub(crate) fn to_string<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::text(match &args[0] {
        Val::Text(text) => return Ok(Val::Text(text.clone())),
        Val::Bool(flag) => flag.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => number.to_string(),
        Val::Double(number) => show_double(*number),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .map_err(|_| Fault::new("invalid UTF-8 in bytes, cannot convert to string"))?,
        Val::Timestamp(at) => time::show_timestamp(*at),
        Val::Duration(nanos) => time::show_duration(*nanos),
        Val::Kube(of @ (Kube::Ip(_) | Kube::Cidr(..))) => of.show(),
        _ => return Err(Fault::no_overload()),
    }))
}

/// As Go's `%g` with the fewest digits.
pub(crate) fn show_double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let plain = format!("{number:e}");
    let exponent = plain
        .split_once('e')
        .and_then(|(_, e)| e.parse::<i32>().ok())
        .unwrap_or_default();
    if !(-4..21).contains(&exponent) && number != 0.0 {
        let (digits, _) = plain.split_once('e').unwrap_or((&plain, ""));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    number.to_string()
}

pub(crate) fn some<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::some(args[0].clone()))
}

pub(crate) fn some_nonzero<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(if args[0].is_zero() {
        Val::Optional(None)
    } else {
        Val::some(args[0].clone())
    })
}

pub(crate) fn none<'a>(_: &M<'a, '_>, _: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Optional(None))
}

pub(crate) fn value<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Optional(Some(inner)) => Ok((**inner).clone()),
        Val::Optional(None) => Err(Fault::new("optional.none() dereference")),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn has_value<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Optional(inner) => Ok(Val::Bool(inner.is_some())),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn or_value<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match (&args[0], &args[1]) {
        (Val::Optional(Some(_)), Val::Optional(_)) => Ok(args[0].clone()),
        (Val::Optional(Some(inner)), _) => Ok((**inner).clone()),
        (Val::Optional(None), other) => Ok(other.clone()),
        _ => Err(Fault::no_overload()),
    }
}

/// How `transformMap` grows its result.
pub(crate) fn insert<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let mut entries = entries(&args[0])?;
    let more: BTreeMap<Key, Val<'a>> = match args {
        [_, key, val] => [(Key::of(key).ok_or_else(Fault::no_overload)?, val.clone())].into(),
        [_, map] => self::entries(map)?,
        _ => return Err(Fault::no_overload()),
    };
    for (key, val) in more {
        if let Some(had) = entries.insert(key.clone(), val) {
            drop(had);
            let key = match key {
                Key::Text(text) => text,
                Key::Int(number) => number.to_string(),
                Key::Bool(flag) => flag.to_string(),
            };
            return Err(Fault::new(format!("insert failed: key {key} already exists")));
        }
    }
    Ok(Val::map(entries))
}

fn entries<'a>(map: &Val<'a>) -> Result<BTreeMap<Key, Val<'a>>, Fault> {
    match map {
        Val::Map(Map::Made(entries)) => Ok((**entries).clone()),
        Val::Map(map) => {
            let mut entries = BTreeMap::new();
            for key in map.keys() {
                if let Some(val) = map.get(&key)? {
                    entries.insert(key, val);
                }
            }
            Ok(entries)
        }
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.replace(['\r', '\n'], "")).ok()
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
