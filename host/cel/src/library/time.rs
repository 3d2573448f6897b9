//! Timestamps and durations, read and written as Go does.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::standard::unreadable;
use super::{Answer, Run};
use crate::eval::{Fault, Machine};
use crate::value::Val;

const UNITS: [(&str, f64, i64); 8] = [
    ("ns", 1.0, 1),
    ("us", 1e3, 1_000),
    ("µs", 1e3, 1_000),
    ("μs", 1e3, 1_000),
    ("ms", 1e6, 1_000_000),
    ("s", 1e9, 1_000_000_000),
    ("m", 60e9, 60_000_000_000),
    ("h", 3600e9, 3_600_000_000_000),
];

/// Go's `1h2m3.5s`, in nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let length = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        let (_, factor, nanos) = UNITS.iter().find(|(name, ..)| *name == unit)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*nanos)?)?;
        if !part.is_empty() {
            let part: f64 = format!("0.{part}").parse().ok()?;
            total = total.checked_add((part * factor) as i64)?;
        }
        rest = after;
    }
    Some(if negative { -total } else { total })
}

/// RFC 3339, as the language reads it.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    model::time::parse(text).ok()
}

pub(crate) fn show_timestamp(at: Timestamp) -> String {
    at.to_string()
}

/// Seconds with as many places as it takes: `3.5s`.
pub(crate) fn show_duration(nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    let rest = (nanos % 1_000_000_000).abs();
    let sign = if nanos < 0 && seconds == 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let places = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", places.trim_end_matches('0'))
}

pub(crate) fn later(at: Timestamp, nanos: i64) -> Result<Timestamp, Fault> {
    at.checked_add(SignedDuration::from_nanos(nanos))
        .map_err(|_| Fault::new("timestamp overflow"))
}

pub(crate) fn to_duration<'a>(_: &Machine<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Duration(nanos) => Ok(Val::Duration(*nanos)),
        Val::Int(nanos) => Ok(Val::Duration(*nanos)),
        Val::Text(text) => duration(text)
            .map(Val::Duration)
            .ok_or_else(|| unreadable("google.protobuf.Duration")),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn to_timestamp<'a>(_: &Machine<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match &args[0] {
        Val::Timestamp(at) => Ok(Val::Timestamp(*at)),
        Val::Int(seconds) => Timestamp::from_second(*seconds)
            .map(Val::Timestamp)
            .map_err(|_| Fault::new("timestamp overflow")),
        Val::Text(text) => timestamp(text)
            .map(Val::Timestamp)
            .ok_or_else(|| unreadable("google.protobuf.Timestamp")),
        _ => Err(Fault::no_overload()),
    }
}

fn zone(text: &str) -> Option<TimeZone> {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some((hours, minutes)) = bare.split_once(':') {
        let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
        let seconds = if text.starts_with('-') { -seconds } else { seconds };
        return Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    match text {
        "" | "UTC" => Some(TimeZone::UTC),
        name => TimeZone::get(name).ok(),
    }
}

fn get<'a>(args: &[Val<'a>], of: fn(&Zoned) -> i64, span: Option<fn(i64) -> i64>) -> Answer<'a> {
    let zone = match args.get(1) {
        None => TimeZone::UTC,
        Some(Val::Text(name)) => zone(name).ok_or_else(|| Fault::new(format!("unknown time zone {}", &**name)))?,
        Some(_) => return Err(Fault::no_overload()),
    };
    match (&args[0], span) {
        (Val::Timestamp(at), _) => Ok(Val::Int(of(&at.to_zoned(zone)))),
        (Val::Duration(nanos), Some(span)) => Ok(Val::Int(span(*nanos))),
        _ => Err(Fault::no_overload()),
    }
}

pub(crate) fn getter(name: &str) -> Run {
    match name {
        "getFullYear" => |_, args| get(args, |at| at.year().into(), None),
        "getMonth" => |_, args| get(args, |at| i64::from(at.month()) - 1, None),
        "getDayOfYear" => |_, args| get(args, |at| i64::from(at.day_of_year()) - 1, None),
        "getDayOfMonth" => |_, args| get(args, |at| i64::from(at.day()) - 1, None),
        "getDate" => |_, args| get(args, |at| at.day().into(), None),
        "getDayOfWeek" => |_, args| get(args, |at| at.weekday().to_sunday_zero_offset().into(), None),
        "getHours" => |_, args| get(args, |at| at.hour().into(), Some(|nanos| nanos / 3_600_000_000_000)),
        "getMinutes" => |_, args| get(args, |at| at.minute().into(), Some(|nanos| nanos / 60_000_000_000)),
        "getSeconds" => |_, args| get(args, |at| at.second().into(), Some(|nanos| nanos / 1_000_000_000)),
        _ => |_, args| {
            get(
                args,
                |at| at.millisecond().into(),
                Some(|nanos| nanos / 1_000_000 % 1000),
            )
        },
    }
}
