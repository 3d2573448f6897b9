//! What values look like: a schema, as far as expressions see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::LARGEST_REQUEST;
use crate::types::Type;

/// The form of one place. What expressions may not look into is left out of the shape above it.
#[derive(Debug)]
pub struct Shape {
    pub kind: ShapeKind,
    /// At most so many characters, bytes, elements or entries; 0 for what has no length.
    pub most: u64,
    /// The fewest bytes of JSON a value takes.
    pub least_bytes: u64,
}

#[derive(Debug)]
pub enum ShapeKind {
    /// A number or a text (`x-kubernetes-int-or-string`).
    IntOrString,
    Bool,
    Int,
    Double,
    Text,
    /// Base64.
    Bytes,
    Duration,
    Date,
    DateTime,
    List(Arc<Shape>, Order),
    Map(Arc<Shape>),
    /// A type's name, and fields by the name expressions use.
    Object(Arc<str>, BTreeMap<String, Field>),
    /// Kept, and not to be looked into.
    Opaque,
}

/// What makes two lists equal, and what `+` makes of them (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Atomic,
    Set,
    /// The keys of its items.
    Map(Vec<String>),
}

#[derive(Debug)]
pub struct Field {
    /// As JSON has it.
    pub name: String,
    pub shape: Arc<Shape>,
    pub nullable: bool,
}

impl Shape {
    pub(crate) fn ty(&self) -> Type {
        match &self.kind {
            ShapeKind::IntOrString | ShapeKind::Opaque => Type::Dyn,
            ShapeKind::Bool => Type::Bool,
            ShapeKind::Int => Type::Int,
            ShapeKind::Double => Type::Double,
            ShapeKind::Text => Type::String,
            ShapeKind::Bytes => Type::Bytes,
            ShapeKind::Duration => Type::Duration,
            ShapeKind::Date | ShapeKind::DateTime => Type::Timestamp,
            ShapeKind::List(of, _) => Type::list(of.ty()),
            ShapeKind::Map(of) => Type::map(Type::String, of.ty()),
            ShapeKind::Object(name, _) => Type::Struct(name.clone()),
        }
    }

    /// One step of a path through shapes: a field's name, or `@items`, `@keys`, `@values`.
    pub(crate) fn step(&self, step: &str) -> Option<Step<'_>> {
        match (&self.kind, step) {
            (ShapeKind::List(of, _), "@items" | "@values") | (ShapeKind::Map(of), "@items" | "@values") => {
                Some(Step::To(of))
            }
            (ShapeKind::Map(_), "@keys") => Some(Step::Key),
            (ShapeKind::Object(_, fields), name) => fields.get(name).map(|field| Step::To(&field.shape)),
            _ => None,
        }
    }

    /// How many of it fit into one request, at most.
    pub fn most_in_a_request(&self) -> u64 {
        LARGEST_REQUEST / (self.least_bytes + 1)
    }
}

pub(crate) enum Step<'s> {
    To(&'s Shape),
    /// Keys of maps have no length that is known.
    Key,
}

/// Words that are no identifiers.
pub(crate) const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field's name as expressions spell it: `x-y` is `x__dash__y`. `None`: it cannot be spelt.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        let (piece, length) = match letter {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            '_' | 'a'..='z' | 'A'..='Z' | '0'..='9' => (&rest[..1], 1),
            _ => return None,
        };
        escaped.push_str(piece);
        rest = &rest[length..];
    }
    Some(escaped)
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_are_escaped() {
        for (name, escaped) in [
            ("a", Some("a")),
            ("namespace", Some("__namespace__")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("a___b", Some("a__underscores___b")),
            ("1a", None),
            ("", None),
            ("ä", None),
            ("a b", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }
}
