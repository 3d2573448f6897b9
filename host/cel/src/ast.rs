//! The tree of an expression: nodes in one list, by number.

use std::borrow::Cow;

pub(crate) type Id = u32;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Literal),
    Name(String),
    /// `of.field`, or whether there is one (`has(of.field)`).
    Select {
        of: Id,
        field: String,
        test: bool,
    },
    Call {
        function: Cow<'static, str>,
        target: Option<Id>,
        args: Vec<Id>,
    },
    /// Each with whether it is optional (`[?x]`).
    List(Vec<(Id, bool)>),
    Map(Vec<Entry>),
    Struct {
        name: String,
        fields: Vec<(String, Entry)>,
    },
    Fold(Box<Fold>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Of a map. A struct's field has its own number here, for where it stands.
    pub key: Id,
    pub value: Id,
    pub optional: bool,
}

/// What all macros over lists and maps come down to.
#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub range: Id,
    pub var: String,
    pub var2: Option<String>,
    pub accu: String,
    pub init: Id,
    pub condition: Id,
    pub step: Id,
    pub result: Id,
    /// Not a loop: gives `init` a name within `result`.
    pub bind: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub kind: Kind,
    /// In characters from the start.
    pub at: u32,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub nodes: Vec<Node>,
}

impl Tree {
    pub(crate) fn kind(&self, id: Id) -> &Kind {
        &self.nodes[id as usize].kind
    }

    pub(crate) fn push(&mut self, at: u32, kind: Kind) -> Id {
        self.nodes.push(Node { kind, at });
        (self.nodes.len() - 1) as Id
    }

    /// `a.b.c` where it is one.
    pub(crate) fn dotted(&self, id: Id) -> Option<String> {
        match self.kind(id) {
            Kind::Name(name) => Some(name.clone()),
            Kind::Select { of, field, test: false } => Some(format!("{}.{field}", self.dotted(*of)?)),
            _ => None,
        }
    }
}

/// The name of what macros gather their result in; no source can spell it.
pub(crate) const ACCU: &str = "@result";
