//! The form that built-in kinds and custom ones have in common: a graph of nodes, packed into a few flat lists.
//!
//! Walk it with [`Type`], which borrows: `schema.root().member("spec")`. Names are pieces of one text (for the built-in
//! kinds the table itself, in the program's read-only pages), so a type costs some bytes and no allocation of its own.

use std::borrow::Cow;

use ahash::AHashMap;

use crate::laws::Laws;
use crate::rules::Rules;

/// A piece of the form's text. Empty: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub at: u32,
    pub length: u32,
}

/// What may stand at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// Any JSON, kept as it is (`RawExtension`, `JSON`, `x-kubernetes-preserve-unknown-fields` without a type).
    Any,
    /// In JSON a schema or what `or` says, kept as it is; in protobuf a message with a member for each of the two.
    Union {
        schema: u32,
        or: Or,
    },
    Scalar(Scalar),
    Struct(Struct),
    Map {
        value: u32,
        atomic: bool,
    },
    List(List),
}

/// How a single value is read and written. Custom kinds have [`Scalar::Text`] to [`Scalar::Whole`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    Text,
    Flag,
    Real,
    /// 64 bits.
    Whole,
    /// 32 bits.
    Int32,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    /// A 32-bit number or a text.
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with six places.
    MicroTime,
    /// Go's `1h2m3s`.
    Duration,
}

/// What a `JSONSchemaPropsOr…` may be beside a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Or {
    Schemas,
    Flag,
    Texts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Struct {
    /// `core/v1.Container`; empty for custom kinds.
    pub name: Span,
    pub first: u32,
    pub count: u32,
    /// Apply takes it as one value.
    pub atomic: bool,
    /// Members that have no field are kept.
    pub open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct List {
    pub item: u32,
    pub relation: Relation,
    /// Of a map list, in `Form::keys`.
    pub first_key: u32,
    pub keys: u32,
    /// The strategic merge key; with `merges` and without a key it is a list of primitives merged as a set.
    pub merge_key: Span,
    pub merges: bool,
    /// In protobuf a message with the items as field 1.
    pub message: bool,
}

/// What apply makes of a list (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    Atomic,
    Set,
    Map,
}

/// A member of a struct.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub name: Span,
    pub node: u32,
    /// Protobuf number; 0: not in protobuf.
    pub number: u16,
    /// Numbers of the messages around it in protobuf, outermost first (inlined structs).
    pub within: [u8; 2],
    pub flags: u8,
    /// JSON.
    pub default: Span,
}

impl Field {
    /// Its numbers in protobuf, those of the messages around it first; none: it is not in protobuf.
    pub(crate) fn numbers(&self) -> ([u16; 3], usize) {
        let mut numbers = [0; 3];
        let mut length = 0;
        for number in self
            .within
            .map(u16::from)
            .into_iter()
            .chain([self.number])
            .filter(|n| *n > 0)
        {
            numbers[length] = number;
            length += 1;
        }
        (numbers, if self.number > 0 { length } else { 0 })
    }
}

/// Go's pointer: absent and zero differ.
pub(crate) const POINTER: u8 = 1;
/// Left out of the JSON when it has its zero value.
pub(crate) const OMIT_EMPTY: u8 = 2;
/// Left out even if it is a zero struct or time.
pub(crate) const OMIT_ZERO: u8 = 4;
/// Strategic merge with `retainKeys`.
pub(crate) const RETAIN_KEYS: u8 = 8;
/// Strategic merge takes the patch's value as it is.
pub(crate) const REPLACE: u8 = 32;
/// Of a custom kind: what was sent is kept, no zero value is filled in or left out.
pub(crate) const AS_SENT: u8 = 16;

/// A field as protobuf finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wired {
    /// In `Form::fields`.
    pub field: u32,
    numbers: [u16; 3],
    length: u8,
}

impl Wired {
    /// Its number inside so many inlined messages.
    pub(crate) fn number(&self, inside: usize) -> u32 {
        self.numbers[inside].into()
    }

    /// It lies in a further inlined message there.
    pub(crate) fn is_deeper(&self, inside: usize) -> bool {
        usize::from(self.length) > inside + 1
    }
}

#[derive(Debug, Default)]
pub(crate) struct Form {
    pub text: Cow<'static, str>,
    pub nodes: Vec<Node>,
    /// Those of one struct stand together, sorted by name.
    pub fields: Vec<Field>,
    /// Of each struct, at the same place as its fields: which of them come in protobuf, in the order of their numbers.
    /// Empty for custom kinds, which have no protobuf.
    pub wire: Vec<Wired>,
    pub keys: Vec<Span>,
    /// The texts that a built-in field speaks of, by node, with commas between them and `~` for spaces. Told, not held to: each kind's own
    /// validation is.
    pub choices: AHashMap<u32, Span>,
    /// What values must satisfy, by node. A node that has rules is validated; one that has none is decoded strictly.
    pub rules: AHashMap<u32, Rules>,
    /// Rules in CEL, by node; nodes with some below them have an entry too.
    pub laws: AHashMap<u32, Laws>,
}

impl Form {
    /// Works out `wire` once all fields are there.
    pub(crate) fn wire_up(&mut self) {
        let fields = self.fields.iter().enumerate().map(|(at, field)| {
            let (numbers, length) = field.numbers();
            Wired {
                field: at as u32,
                numbers,
                length: length as u8,
            }
        });
        self.wire = fields.collect();
        for node in &self.nodes {
            if let Node::Struct(s) = node {
                self.wire[s.first as usize..(s.first + s.count) as usize].sort_unstable_by_key(|w| w.numbers);
            }
        }
    }

    pub(crate) fn str(&self, span: Span) -> &str {
        &self.text[span.at as usize..(span.at + span.length) as usize]
    }
}

/// The form of one place. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Type<'f> {
    pub(crate) form: &'f Form,
    pub(crate) id: u32,
}

/// A member of a struct, as seen from outside.
#[derive(Clone, Copy)]
pub struct Member<'f> {
    form: &'f Form,
    field: &'f Field,
}

impl<'f> Type<'f> {
    pub(crate) fn node(self) -> &'f Node {
        &self.form.nodes[self.id as usize]
    }

    pub(crate) fn at(self, id: u32) -> Type<'f> {
        Type { form: self.form, id }
    }

    pub(crate) fn rules(self) -> Option<&'f Rules> {
        // The built-in form has none at all, and is asked often.
        if self.form.rules.is_empty() {
            None
        } else {
            self.form.rules.get(&self.id)
        }
    }

    pub(crate) fn laws(self) -> Option<&'f Laws> {
        if self.form.laws.is_empty() {
            None
        } else {
            self.form.laws.get(&self.id)
        }
    }

    pub fn scalar(self) -> Option<Scalar> {
        match self.node() {
            Node::Scalar(scalar) => Some(*scalar),
            _ => None,
        }
    }

    /// The texts that may stand here, where there is a list of them (`+enum`); none: any.
    pub fn choices(self) -> impl Iterator<Item = String> {
        let texts = self.form.choices.get(&self.id).map(|texts| self.form.str(*texts));
        let texts = texts.into_iter().flat_map(|texts| texts.split(','));
        texts.map(|text| text.replace('~', " "))
    }

    pub fn is_struct(self) -> bool {
        matches!(self.node(), Node::Struct(_))
    }

    /// `core/v1.Container` for a built-in struct.
    pub fn name(self) -> Option<&'f str> {
        match self.node() {
            Node::Struct(s) if s.name.length > 0 => Some(self.form.str(s.name)),
            _ => None,
        }
    }

    /// The members of a struct, by name; none for anything else.
    pub fn members(self) -> impl Iterator<Item = Member<'f>> {
        let fields = match self.node() {
            Node::Struct(s) => &self.form.fields[s.first as usize..(s.first + s.count) as usize],
            _ => &[],
        };
        fields.iter().map(move |field| Member { form: self.form, field })
    }

    /// A struct's members in protobuf, in the order of their numbers.
    pub(crate) fn wired(self) -> &'f [Wired] {
        let Node::Struct(s) = self.node() else {
            return &[];
        };
        let all = self.form.wire.get(s.first as usize..(s.first + s.count) as usize);
        let all = all.unwrap_or_default();
        &all[all.partition_point(|w| w.length == 0)..]
    }

    pub(crate) fn wired_member(self, wired: &Wired) -> Member<'f> {
        Member {
            form: self.form,
            field: &self.form.fields[wired.field as usize],
        }
    }

    /// A struct's member.
    pub fn member(self, name: &str) -> Option<Member<'f>> {
        let Node::Struct(s) = self.node() else {
            return None;
        };
        let fields = &self.form.fields[s.first as usize..(s.first + s.count) as usize];
        let at = fields.binary_search_by(|f| self.form.str(f.name).cmp(name)).ok()?;
        Some(Member {
            form: self.form,
            field: &fields[at],
        })
    }

    /// What stands under a key of a struct or map. `None`: nothing is known of it.
    pub fn under(self, key: &str) -> Option<Type<'f>> {
        match self.node() {
            Node::Struct(_) => self.member(key).map(Member::of),
            Node::Map { value, .. } => Some(self.at(*value)),
            _ => None,
        }
    }

    /// The values of a map.
    pub fn values(self) -> Option<Type<'f>> {
        match self.node() {
            Node::Map { value, .. } => Some(self.at(*value)),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn item(self) -> Option<Type<'f>> {
        match self.node() {
            Node::List(list) => Some(self.at(list.item)),
            _ => None,
        }
    }

    pub fn relation(self) -> Option<Relation> {
        match self.node() {
            Node::List(list) => Some(list.relation),
            _ => None,
        }
    }

    /// Apply takes the whole as one value: an atomic list, map or struct, a scalar, anything untyped.
    pub fn is_atomic(self) -> bool {
        match self.node() {
            Node::Struct(s) => s.atomic,
            Node::Map { atomic, .. } => *atomic,
            Node::List(list) => list.relation == Relation::Atomic,
            Node::Scalar(_) => true,
            Node::Any | Node::Union { .. } => false,
        }
    }

    /// Of a map list.
    pub fn keys(self) -> impl Iterator<Item = &'f str> {
        let keys = match self.node() {
            Node::List(list) => &self.form.keys[list.first_key as usize..(list.first_key + list.keys) as usize],
            _ => &[],
        };
        keys.iter().map(move |key| self.form.str(*key))
    }

    /// The key by which strategic merge brings two lists together (`x-kubernetes-patch-merge-key`).
    pub fn merge_key(self) -> Option<&'f str> {
        match self.merge()? {
            Merge::By(key) => Some(key),
            Merge::AsSet => None,
        }
    }

    /// Strategic merge brings two lists together instead of replacing one by the other (`x-kubernetes-patch-strategy`).
    pub fn merges(self) -> bool {
        self.merge().is_some()
    }

    /// How strategic merge treats a list; `None`: it replaces it.
    pub(crate) fn merge(self) -> Option<Merge<'f>> {
        match self.node() {
            Node::List(list) if list.merges && list.merge_key.length > 0 => {
                Some(Merge::By(self.form.str(list.merge_key)))
            }
            Node::List(list) if list.merges => Some(Merge::AsSet),
            _ => None,
        }
    }
}

/// How strategic merge brings two lists together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge<'f> {
    By(&'f str),
    AsSet,
}

impl<'f> Member<'f> {
    pub fn name(self) -> &'f str {
        self.form.str(self.field.name)
    }

    pub fn of(self) -> Type<'f> {
        Type {
            form: self.form,
            id: self.field.node,
        }
    }

    /// 0: not in protobuf.
    pub fn number(self) -> u32 {
        self.field.number.into()
    }

    /// The numbers of the messages around it in protobuf, outermost first, where Go inlines a struct.
    pub fn within(self) -> impl Iterator<Item = u32> {
        self.field.within.into_iter().filter(|n| *n > 0).map(u32::from)
    }

    pub fn is_pointer(self) -> bool {
        self.has(POINTER)
    }

    pub fn omits_empty(self) -> bool {
        self.has(OMIT_EMPTY)
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.field.flags & flag != 0
    }

    /// Strategic merge drops what a patch's `$retainKeys` does not name.
    pub fn retains_keys(self) -> bool {
        self.has(RETAIN_KEYS)
    }

    /// The declared default, as JSON.
    pub fn default_json(self) -> Option<&'f str> {
        (self.field.default.length > 0).then(|| self.form.str(self.field.default))
    }
}
