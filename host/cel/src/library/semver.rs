//! Semantic versions (semver.org 2.0.0).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::kubernetes::Kube;
use super::{Answer, Run};
use crate::eval::{Fault, Machine};
use crate::value::Val;

#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
    build: Vec<String>,
}

impl Semver {
    fn parse(text: &str) -> Result<Self, Fault> {
        let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts.as_slice() else {
            return Err(Fault::new("No Major.Minor.Patch elements found"));
        };
        let number = |part: &str, what: &str| {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(Fault::new(format!(
                    "Invalid character(s) found in {what} number {part:?}"
                )));
            }
            if part.len() > 1 && part.starts_with('0') {
                return Err(Fault::new(format!(
                    "{}{} number must not contain leading zeroes {part:?}",
                    what[..1].to_uppercase(),
                    &what[1..]
                )));
            }
            part.parse::<u64>().map_err(|error| Fault::new(error.to_string()))
        };
        let numbers = [
            number(major, "major")?,
            number(minor, "minor")?,
            number(patch, "patch")?,
        ];
        let words = |text: Option<&str>, numeric_zero: bool| {
            let Some(text) = text else { return Ok(Vec::new()) };
            text.split('.')
                .map(|word| {
                    let fine = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                    let zero = numeric_zero
                        && word.len() > 1
                        && word.starts_with('0')
                        && word.bytes().all(|b| b.is_ascii_digit());
                    match (fine, zero) {
                        (true, false) => Ok(word.to_owned()),
                        (true, true) => Err(Fault::new(format!(
                            "Numeric PreRelease version must not contain leading zeroes {word:?}"
                        ))),
                        _ if word.is_empty() => Err(Fault::new("Prerelease is empty")),
                        _ => Err(Fault::new(format!("Invalid character(s) found in prerelease {word:?}"))),
                    }
                })
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            numbers,
            pre: words(pre, true)?,
            build: words(build, false)?,
        })
    }

    /// With a leading `v`, leading zeros, and parts left out.
    fn parse_loosely(text: &str) -> Result<Self, Fault> {
        let mut parts: Vec<String> = text
            .strip_prefix('v')
            .unwrap_or(text)
            .splitn(3, '.')
            .map(|part| {
                if part.len() < 2 {
                    return part.to_owned();
                }
                let bare = part.trim_start_matches('0');
                if bare.starts_with(|c: char| c.is_ascii_digit()) {
                    bare.to_owned()
                } else {
                    format!("0{bare}")
                }
            })
            .collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err(Fault::new("short version cannot contain PreRelease/Build meta data"));
            }
            parts.resize(3, "0".into());
        }
        Self::parse(&parts.join("."))
    }

    pub(super) fn compare(&self, other: &Semver) -> Ordering {
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let pairs = self.pre.iter().zip(&other.pre);
                    let first = pairs.map(|(a, b)| compare_words(a, b)).find(|order| order.is_ne());
                    first.unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
                }
            })
    }
}

fn compare_words(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build.join("."))?;
        }
        Ok(())
    }
}

fn read(args: &[Val<'_>]) -> Result<Result<Semver, Fault>, Fault> {
    let Some(Val::Text(text)) = args.first() else {
        return Err(Fault::no_overload());
    };
    match args.get(1) {
        None | Some(Val::Bool(false)) => Ok(Semver::parse(text)),
        Some(Val::Bool(true)) => Ok(Semver::parse_loosely(text)),
        Some(_) => Err(Fault::no_overload()),
    }
}

pub(super) fn parse<'a>(_: &Machine<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Kube(Kube::Semver(Arc::new(read(args)??))))
}

pub(super) fn is_semver<'a>(_: &Machine<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(read(args)?.is_ok()))
}

pub(super) fn part(name: &str) -> Run {
    fn number<'a>(args: &[Val<'a>], at: usize) -> Answer<'a> {
        match args.first() {
            Some(Val::Kube(Kube::Semver(version))) => Ok(Val::Int(version.numbers[at] as i64)),
            _ => Err(Fault::no_overload()),
        }
    }
    match name {
        "major" => |_, args| number(args, 0),
        "minor" => |_, args| number(args, 1),
        _ => |_, args| number(args, 2),
    }
}
