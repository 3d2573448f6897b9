//! Texts: the language's own functions, cel-go's strings extension 2, and Kubernetes' `find`.

use std::fmt::Write;

use super::{Answer, standard, time};
use crate::eval::{Fault, Machine};
use crate::value::{Key, Val};

type M<'a, 'v> = Machine<'a, 'v>;

fn text<'v>(val: Option<&'v Val<'_>>) -> Result<&'v str, Fault> {
    match val {
        Some(Val::Text(text)) => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

fn number(val: Option<&Val<'_>>, otherwise: i64) -> Result<i64, Fault> {
    match val {
        None => Ok(otherwise),
        Some(Val::Int(number)) => Ok(*number),
        Some(_) => Err(Fault::no_overload()),
    }
}

pub(super) fn contains<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(text(args.first())?.contains(text(args.get(1))?)))
}

pub(super) fn ends_with<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(text(args.first())?.ends_with(text(args.get(1))?)))
}

pub(super) fn starts_with<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(text(args.first())?.starts_with(text(args.get(1))?)))
}

pub(super) fn matches<'a>(m: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let pattern = m.pattern(text(args.get(1))?)?;
    Ok(Val::Bool(pattern.is_match(text(args.first())?)))
}

pub(super) fn find<'a>(m: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let pattern = m.pattern(text(args.get(1))?)?;
    let found = pattern.find(text(args.first())?);
    Ok(Val::text(found.map_or("", |found| found.as_str())))
}

pub(super) fn find_all<'a>(m: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let pattern = m.pattern(text(args.get(1))?)?;
    let limit = number(args.get(2), -1)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = pattern.find_iter(text(args.first())?).take(limit);
    Ok(Val::list(found.map(|found| Val::text(found.as_str())).collect()))
}

fn out_of_range(at: i64) -> Fault {
    Fault::new(format!("index out of range: {at}"))
}

pub(super) fn char_at<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let letters: Vec<char> = text(args.first())?.chars().collect();
    let at = number(args.get(1), 0)?;
    match usize::try_from(at).ok().filter(|at| *at <= letters.len()) {
        Some(index) => Ok(Val::text(letters.get(index).map(char::to_string).unwrap_or_default())),
        None => Err(out_of_range(at)),
    }
}

pub(super) fn index_of<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    if let Some(Val::List(list)) = args.first() {
        let at = list
            .iter()
            .position(|item| item.is_ok_and(|item| item.equals(&args[1])));
        return Ok(Val::Int(at.map_or(-1, |at| at as i64)));
    }
    let letters: Vec<char> = text(args.first())?.chars().collect();
    let part: Vec<char> = text(args.get(1))?.chars().collect();
    let from = number(args.get(2), 0)?;
    if part.is_empty() {
        return Ok(Val::Int(from));
    }
    let start = usize::try_from(from)
        .ok()
        .filter(|start| *start < letters.len())
        .or(letters.is_empty().then_some(0).filter(|_| args.len() == 2));
    let Some(start) = start else {
        return Err(out_of_range(from));
    };
    let at = letters[start..].windows(part.len()).position(|window| window == part);
    Ok(Val::Int(at.map_or(-1, |at| (start + at) as i64)))
}

pub(super) fn last_index_of<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    if let Some(Val::List(list)) = args.first() {
        let items = list.all()?;
        let at = items.iter().rposition(|item| item.equals(&args[1]));
        return Ok(Val::Int(at.map_or(-1, |at| at as i64)));
    }
    let letters: Vec<char> = text(args.first())?.chars().collect();
    let part: Vec<char> = text(args.get(1))?.chars().collect();
    if args.len() == 2 {
        if part.is_empty() {
            return Ok(Val::Int(letters.len() as i64));
        }
        let at = letters.windows(part.len()).rposition(|window| window == part);
        return Ok(Val::Int(at.map_or(-1, |at| at as i64)));
    }
    let from = number(args.get(2), 0)?;
    let Some(start) = usize::try_from(from).ok().filter(|start| *start < letters.len()) else {
        return Err(out_of_range(from));
    };
    if part.is_empty() {
        return Ok(Val::Int(from));
    }
    let end = (start + part.len()).min(letters.len());
    let at = letters[..end].windows(part.len()).rposition(|window| window == part);
    Ok(Val::Int(at.map_or(-1, |at| at as i64)))
}

pub(super) fn lower<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::text(text(args.first())?.to_ascii_lowercase()))
}

pub(super) fn upper<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::text(text(args.first())?.to_ascii_uppercase()))
}

pub(super) fn replace<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (whole, from, to) = (text(args.first())?, text(args.get(1))?, text(args.get(2))?);
    let replaced = match number(args.get(3), -1)? {
        count if count < 0 => whole.replace(from, to),
        count => whole.replacen(from, to, count as usize),
    };
    Ok(Val::text(replaced))
}

pub(super) fn split<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (whole, separator) = (text(args.first())?, text(args.get(1))?);
    let count = number(args.get(2), -1)?;
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    let mut parts: Vec<Val<'a>> = Vec::new();
    if limit == 0 {
        return Ok(Val::list(parts));
    }
    if separator.is_empty() {
        let letters: Vec<char> = whole.chars().collect();
        for (at, letter) in letters.iter().enumerate() {
            if parts.len() + 1 == limit {
                parts.push(Val::text(letters[at..].iter().collect::<String>()));
                break;
            }
            parts.push(Val::text(letter.to_string()));
        }
    } else {
        parts.extend(whole.splitn(limit, separator).map(Val::text));
    }
    Ok(Val::list(parts))
}

pub(super) fn substring<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let letters: Vec<char> = text(args.first())?.chars().collect();
    let length = letters.len() as i64;
    let start = number(args.get(1), 0)?;
    let end = number(args.get(2), length)?;
    if args.len() == 3 && start > end {
        return Err(Fault::new(format!(
            "invalid substring range. start: {start}, end: {end}"
        )));
    }
    if start < 0 || start > length {
        return Err(out_of_range(start));
    }
    if end < 0 || end > length {
        return Err(out_of_range(end));
    }
    Ok(Val::text(
        letters[start as usize..end as usize].iter().collect::<String>(),
    ))
}

pub(super) fn trim<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::text(text(args.first())?.trim()))
}

pub(super) fn join<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let Some(Val::List(list)) = args.first() else {
        return Err(Fault::no_overload());
    };
    let separator = match args.get(1) {
        None => "",
        some => text(some)?,
    };
    let mut parts = Vec::new();
    for item in list.iter() {
        parts.push(text(Some(&item?))?.to_owned());
    }
    Ok(Val::text(parts.join(separator)))
}

pub(super) fn quote<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let mut quoted = String::from("\"");
    for letter in text(args.first())?.chars() {
        match letter {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Val::text(quoted))
}

/// A key within a JSON pointer (RFC 6901).
pub(super) fn escape_key<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::text(text(args.first())?.replace('~', "~0").replace('/', "~1")))
}

/// `"%s has %d".format([…])`.
pub(super) fn format<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let Some(Val::List(list)) = args.get(1) else {
        return Err(Fault::no_overload());
    };
    let mut letters = text(args.first())?.chars().peekable();
    let mut out = String::new();
    let mut next = 0;
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        if letters.peek() == Some(&'%') {
            letters.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if letters.peek() == Some(&'.') {
            letters.next();
            let mut digits = String::new();
            while let Some(digit) = letters.peek().filter(|c| c.is_ascii_digit()) {
                digits.push(*digit);
                letters.next();
            }
            precision = digits.parse::<usize>().ok();
        }
        let Some(clause) = letters.next() else {
            return Err(Fault::new("unexpected end of format string"));
        };
        let Some(item) = list.get(next) else {
            return Err(Fault::new(format!("index {next} out of range")));
        };
        next += 1;
        out.push_str(&clause_of(clause, precision, &item?)?);
    }
    Ok(Val::text(out))
}

fn clause_of(clause: char, precision: Option<usize>, val: &Val<'_>) -> Result<String, Fault> {
    let kind = val.ty();
    let wrong = |what: &str, takes: &str| {
        Err(Fault::new(format!(
            "error during formatting: {what} clause can only be used on {takes}, was given {}",
            kind.name()
        )))
    };
    let real = |val: &Val<'_>| match val {
        Val::Double(number) => Some(*number),
        Val::Int(number) => Some(*number as f64),
        Val::Uint(number) => Some(*number as f64),
        _ => None,
    };
    match (clause, val) {
        ('s', val) => show(val),
        ('d', Val::Int(number)) => Ok(number.to_string()),
        ('d', Val::Uint(number)) => Ok(number.to_string()),
        ('d', Val::Double(number)) if !number.is_finite() => Ok(standard::show_double(*number)),
        ('d', _) => wrong("decimal", "integers"),
        ('f', val) => match real(val) {
            Some(number) => Ok(format!("{number:.*}", precision.unwrap_or(6))),
            None => wrong("fixed-point", "doubles"),
        },
        ('e', val) => match real(val) {
            Some(number) => {
                let plain = format!("{number:.*e}", precision.unwrap_or(6));
                let (digits, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
                let exponent: i32 = exponent.parse().unwrap_or_default();
                let sign = if exponent < 0 { '-' } else { '+' };
                Ok(format!("{digits}e{sign}{:02}", exponent.abs()))
            }
            None => wrong("scientific", "doubles"),
        },
        ('b', Val::Int(number)) if *number < 0 => Ok(format!("-{:b}", number.unsigned_abs())),
        ('b', Val::Int(number)) => Ok(format!("{number:b}")),
        ('b', Val::Uint(number)) => Ok(format!("{number:b}")),
        ('b', Val::Bool(flag)) => Ok(u8::from(*flag).to_string()),
        ('b', _) => wrong(
            "only integers and bools can be formatted as binary; binary",
            "integers and bools",
        ),
        ('o', Val::Int(number)) if *number < 0 => Ok(format!("-{:o}", number.unsigned_abs())),
        ('o', Val::Int(number)) => Ok(format!("{number:o}")),
        ('o', Val::Uint(number)) => Ok(format!("{number:o}")),
        ('o', _) => wrong("octal", "integers"),
        ('x' | 'X', val) => {
            let lower = match val {
                Val::Int(number) if *number < 0 => format!("-{:x}", number.unsigned_abs()),
                Val::Int(number) => format!("{number:x}"),
                Val::Uint(number) => format!("{number:x}"),
                Val::Text(text) => hex(text.as_bytes()),
                Val::Bytes(bytes) => hex(bytes),
                _ => return wrong("hexadecimal", "integers, byte buffers, and strings"),
            };
            Ok(if clause == 'X' { lower.to_uppercase() } else { lower })
        }
        (other, _) => Err(Fault::new(format!(
            "could not parse formatting clause: unrecognized formatting clause \"{other}\""
        ))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// What `%s` makes of a value.
fn show(val: &Val<'_>) -> Result<String, Fault> {
    Ok(match val {
        Val::Null => "null".into(),
        Val::Bool(flag) => flag.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => number.to_string(),
        Val::Double(number) => standard::show_double(*number),
        Val::Text(text) => text.to_string(),
        Val::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Val::Timestamp(at) => time::show_timestamp(*at),
        Val::Duration(nanos) => time::show_duration(*nanos),
        Val::Type(of) => of.name().to_owned(),
        Val::List(list) => {
            let mut parts = Vec::new();
            for item in list.iter() {
                parts.push(show(&item?)?);
            }
            format!("[{}]", parts.join(", "))
        }
        Val::Map(map) => {
            let mut parts = Vec::new();
            for key in map.keys() {
                let val = map.get(&key)?.unwrap_or(Val::Null);
                let name = match &key {
                    Key::Text(text) => text.clone(),
                    Key::Int(number) => number.to_string(),
                    Key::Bool(flag) => flag.to_string(),
                };
                parts.push((name, show(&val)?));
            }
            parts.sort();
            let parts: Vec<String> = parts.into_iter().map(|(key, val)| format!("{key}: {val}")).collect();
            format!("{{{}}}", parts.join(", "))
        }
        other => {
            return Err(Fault::new(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.ty().name()
            )));
        }
    })
}
