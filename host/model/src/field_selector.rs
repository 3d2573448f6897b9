//! Field selectors: which objects are meant, by a few of their fields (`spec.nodeName=a,status.phase!=Running`).
//!
//! The text form and its complaints are apimachinery's (`fields.ParseSelector`). Which fields a kind can be selected by is
//! the kind's own affair; [`FieldSelector::fields`] lets it check.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;

use crate::{Failure, FieldPath, FieldSet};

/// All terms must hold. A field that an object does not have is the empty text.
#[derive(Debug, Clone)]
pub struct FieldSelector {
    terms: Box<[Term]>,
    set: FieldSet,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// As it was written, without a leading dot: `metadata.name`.
    pub field: CompactString,
    pub value: CompactString,
    /// `=` or `==`; otherwise `!=`.
    pub equal: bool,
}

impl FieldSelector {
    pub fn everything() -> Self {
        Self {
            terms: Box::default(),
            set: FieldSet::new([]),
        }
    }

    /// The text of `fieldSelector=` in a URL. In values `\\`, `\,` and `\=` stand for the second character.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] for a term without an operator, a bad escape, or a field that is not a path.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut terms = Vec::new();
        for term in split(text) {
            let wrong = || Failure::BadRequest(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let at = term.find(['=', '!']).ok_or_else(wrong)?;
            let (field, rest) = (&term[..at], &term[at..]);
            let (equal, value) = match rest {
                r if r.starts_with("!=") => (false, &r[2..]),
                r if r.starts_with("==") => (true, &r[2..]),
                r if r.starts_with('=') => (true, &r[1..]),
                _ => return Err(wrong()),
            };
            terms.push(Term {
                field: field.trim_start_matches('.').into(),
                value: unescape(value)?,
                equal,
            });
        }
        terms.sort();
        let paths: Result<Vec<FieldPath>, Failure> = terms.iter().map(|t| FieldPath::parse(&t.field)).collect();
        Ok(Self {
            terms: terms.into(),
            set: FieldSet::new(paths?),
        })
    }

    /// Reads the fields from an object's JSON.
    pub fn matches(&self, json: &[u8]) -> bool {
        self.terms.is_empty()
            || self
                .set
                .read(json)
                .iter()
                .zip(&self.terms)
                .all(|(has, term)| (has.to_text() == term.value) == term.equal)
    }

    /// For kinds whose selectable fields are not where they say (`spec.unschedulable` of an older Node): `read` answers them.
    pub fn matches_with<'a>(&self, mut read: impl FnMut(&str) -> Option<&'a str>) -> bool {
        self.terms
            .iter()
            .all(|term| (read(&term.field).unwrap_or_default() == term.value) == term.equal)
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.field.as_str())
    }

    /// The value `field` must have, if one is asked for: lets an index, or a single get, answer.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == field)
            .map(|term| term.value.as_str())
    }
}

impl PartialEq for FieldSelector {
    fn eq(&self, other: &Self) -> bool {
        self.terms == other.terms
    }
}

impl Eq for FieldSelector {}

impl FromStr for FieldSelector {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}", term.field, if term.equal { "=" } else { "!=" })?;
            for c in term.value.chars() {
                let slash = if matches!(c, '\\' | ',' | '=') { "\\" } else { "" };
                write!(f, "{slash}{c}")?;
            }
        }
        Ok(())
    }
}

/// At commas that no backslash stands before; empty terms mean nothing.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut slash = false;
    text.split(move |c| {
        let cut = c == ',' && !slash;
        slash = c == '\\' && !slash;
        cut
    })
    .filter(|term| !term.is_empty())
}

fn unescape(value: &str) -> Result<CompactString, Failure> {
    let mut plain = CompactString::default();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(Failure::BadRequest(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(Failure::BadRequest(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] =
        br#"{"metadata":{"name":"a,b","namespace":"n"},"spec":{"nodeName":"x","hostNetwork":true,"n":3},"status":{}}"#;

    #[test]
    fn selects_by_the_bytes() {
        for (selector, matches) in [
            ("", true),
            ("spec.nodeName=x", true),
            ("spec.nodeName==x,status.phase!=Running", true),
            ("spec.nodeName!=x", false),
            ("spec.hostNetwork=true,spec.n=3", true),
            ("status.phase=", true),
            (r"metadata.name=a\,b", true),
            (".metadata.namespace=n,", true),
        ] {
            let parsed = FieldSelector::parse(selector).unwrap();
            assert_eq!(parsed.matches(POD), matches, "{selector}");
            assert_eq!(FieldSelector::parse(&parsed.to_string()).unwrap(), parsed, "{selector}");
        }
        assert_eq!(
            FieldSelector::parse("metadata.name=a").unwrap().exact("metadata.name"),
            Some("a")
        );
    }

    #[test]
    fn complains_in_apimachinerys_words() {
        for (selector, message) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a!b", "invalid selector: 'a!b'; can't understand 'a!b'"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ] {
            assert_eq!(
                FieldSelector::parse(selector).unwrap_err().to_string(),
                message,
                "{selector}"
            );
        }
    }
}
