//! The built-in types: `table.txt`, made by `generate`, read once and kept as a [`Form`].

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use ahash::AHashMap;
use model::Gvk;

use crate::Schema;
use crate::form::{
    Field, Form, List, Node, OMIT_EMPTY, OMIT_ZERO, Or, POINTER, REPLACE, RETAIN_KEYS, Relation, Scalar, Span, Struct,
};

/// Lines: `@kind GROUP/VERSION KIND TYPE`, `@type NAME [atomic]` and then its fields, `NAME NUMBERS SHAPE[FLAGS] FACTS…`.
///
/// Numbers are protobuf's, those of inlined messages first. A shape is a letter (see `scalar`), `[` or `(` or `{` and the
/// shape of the elements (list, list that is a message, map), `A` or `B` or `C` and a schema's type (that, or a list of
/// such, or a flag, or a list of texts), or a type's name, `.X` in the package of the type at hand.
/// Flags: `*` pointer, `?` omitempty, `0` omitzero. The fact `enum=A,B~C` is of the innermost elements: `A` or `B C`.
const TEXT: &str = include_str!("table.txt");

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(TEXT));

/// All built-in kinds of one Kubernetes version.
#[derive(Debug)]
pub struct Table {
    form: Arc<Form>,
    kinds: AHashMap<Gvk, u32>,
    types: AHashMap<&'static str, u32>,
}

impl Table {
    /// Read at the first call (about a millisecond), then shared.
    pub fn builtin() -> &'static Table {
        &TABLE
    }

    pub fn schema(&self, gvk: &Gvk) -> Option<Schema> {
        let root = *self.kinds.get(gvk)?;
        Some(Schema::new(self.form.clone(), root, gvk.clone()))
    }

    /// A type by name (`meta/v1.DeleteOptions`): for bodies that any group may send as its own.
    pub fn named(&self, name: &str, gvk: Gvk) -> Option<Schema> {
        let root = *self.types.get(name)?;
        Some(Schema::new(self.form.clone(), root, gvk))
    }

    pub fn kinds(&self) -> impl Iterator<Item = &Gvk> {
        self.kinds.keys()
    }

    pub(crate) fn type_form(&self, name: &str) -> Option<(&Arc<Form>, u32)> {
        self.types.get(name).map(|root| (&self.form, *root))
    }

    fn read(text: &'static str) -> Table {
        let mut reader = Reader {
            text,
            form: Form {
                text: Cow::Borrowed(text),
                ..Form::default()
            },
            types: AHashMap::new(),
            known: AHashMap::new(),
            choices: AHashMap::new(),
        };
        let mut kinds = AHashMap::new();
        // Types first, since fields and kinds name them before they are described.
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("@type ") {
                let name = rest.split(' ').next().unwrap_or_default();
                let atomic = rest.ends_with(" atomic");
                let node = Node::Struct(Struct {
                    name: reader.span(name),
                    first: 0,
                    count: 0,
                    atomic,
                    open: false,
                });
                let id = reader.push(node);
                reader.types.insert(name, id);
            }
        }
        let mut current: Option<(u32, &str)> = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            match (words.next(), &mut current) {
                (Some("@kind"), _) => {
                    let (Some(api), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                        continue;
                    };
                    let gvk = Gvk::from_api_version(api.trim_start_matches('/'), kind);
                    kinds.insert(gvk, reader.types[name]);
                }
                (Some("@type"), at) => {
                    let name = words.next().unwrap_or_default();
                    let id = reader.types[name];
                    let first = reader.form.fields.len() as u32;
                    if let Node::Struct(s) = &mut reader.form.nodes[id as usize] {
                        s.first = first;
                    }
                    *at = Some((id, name.split_once('.').map_or("", |(package, _)| package)));
                }
                (Some(name), Some((id, package))) => {
                    let (id, package) = (*id, *package);
                    let field = reader.field(name, words, package);
                    reader.form.fields.push(field);
                    if let Node::Struct(s) = &mut reader.form.nodes[id as usize] {
                        s.count += 1;
                    }
                }
                _ => {}
            }
        }
        let mut form = reader.form;
        for at in 0..form.nodes.len() {
            if let Node::Struct(s) = form.nodes[at] {
                let original = reader.types[form.str(s.name)] as usize;
                if let (Node::Struct(full), true) = (form.nodes[original], original != at) {
                    form.nodes[at] = Node::Struct(Struct {
                        atomic: s.atomic,
                        ..full
                    });
                    continue;
                }
                let text = &form.text;
                let name = |f: &Field| &text[f.name.at as usize..(f.name.at + f.name.length) as usize];
                form.fields[s.first as usize..(s.first + s.count) as usize]
                    .sort_unstable_by(|a, b| name(a).cmp(name(b)));
            }
        }
        form.wire_up();
        form.fields.shrink_to_fit();
        form.nodes.shrink_to_fit();
        Table {
            form: Arc::new(form),
            kinds,
            types: reader.types,
        }
    }
}

struct Reader {
    text: &'static str,
    form: Form,
    types: AHashMap<&'static str, u32>,
    /// Nodes alike are one.
    known: AHashMap<Node, u32>,
    /// The nodes of texts that are one of a few, by those.
    choices: AHashMap<&'static str, u32>,
}

impl Reader {
    /// `part` is a piece of the table's text.
    fn span(&self, part: &str) -> Span {
        Span {
            at: (part.as_ptr() as usize - self.text.as_ptr() as usize) as u32,
            length: part.len() as u32,
        }
    }

    fn push(&mut self, node: Node) -> u32 {
        self.form.nodes.push(node);
        (self.form.nodes.len() - 1) as u32
    }

    fn intern(&mut self, node: Node) -> u32 {
        if let Some(id) = self.known.get(&node) {
            return *id;
        }
        let id = self.push(node);
        self.known.insert(node, id);
        id
    }

    /// Not interned with other texts, which may be any.
    fn choice(&mut self, texts: &'static str) -> u32 {
        if let Some(id) = self.choices.get(texts) {
            return *id;
        }
        let id = self.push(Node::Scalar(Scalar::Text));
        self.form.choices.insert(id, self.span(texts));
        self.choices.insert(texts, id);
        id
    }

    fn field(&mut self, name: &'static str, mut words: std::str::Split<'static, char>, package: &str) -> Field {
        let numbers = words.next().unwrap_or_default();
        let mut numbers: Vec<u16> = numbers.split('.').filter_map(|n| n.parse().ok()).collect();
        let number = numbers.pop().unwrap_or_default();
        let within = [0, 1].map(|i| numbers.get(i).copied().unwrap_or_default() as u8);
        let shape = words.next().unwrap_or_default();
        let bare = shape.trim_end_matches(['*', '?', '0']);
        let mut flags = 0;
        for flag in shape[bare.len()..].chars() {
            flags |= match flag {
                '*' => POINTER,
                '?' => OMIT_EMPTY,
                _ => OMIT_ZERO,
            };
        }
        let mut default = Span::default();
        let mut id = self.shape(bare, package);
        let mut node = self.form.nodes[id as usize];
        for fact in words {
            match (fact.split_once('=').unwrap_or((fact, "")), &mut node) {
                (("default", json), _) => default = self.span(json),
                (("patch", strategy), node) => {
                    if strategy.contains("retainKeys") {
                        flags |= RETAIN_KEYS;
                    }
                    if strategy == "replace" {
                        flags |= REPLACE;
                    }
                    if let Node::List(list) = node {
                        list.merges = strategy.contains("merge");
                    }
                }
                (("by", key), Node::List(list)) => list.merge_key = self.span(key),
                (("enum", texts), node) => {
                    let choice = self.choice(texts);
                    match node {
                        Node::List(list) => list.item = choice,
                        Node::Map { value, .. } => *value = choice,
                        _ => id = choice,
                    }
                }
                (("set", _), Node::List(list)) => list.relation = Relation::Set,
                (("keys", keys), Node::List(list)) => {
                    list.relation = Relation::Map;
                    list.first_key = self.form.keys.len() as u32;
                    list.keys = keys.split(',').count() as u32;
                    for key in keys.split(',') {
                        self.form.keys.push(self.span(key));
                    }
                }
                (("atomic", _), Node::Struct(Struct { atomic, .. }) | Node::Map { atomic, .. }) => *atomic = true,
                (("granular", _), Node::Struct(Struct { atomic, .. })) => *atomic = false,
                _ => {}
            }
        }
        // A struct that is atomic (or is not) in this place only becomes a node of its own; `read` gives it the fields at the end.
        let node = if node == self.form.nodes[id as usize] {
            id
        } else {
            self.intern(node)
        };
        Field {
            name: self.span(name),
            node,
            number,
            within,
            flags,
            default,
        }
    }

    fn shape(&mut self, shape: &str, package: &str) -> u32 {
        let node = match (shape.as_bytes().first(), &shape[1..]) {
            (Some(b'['), item) => list(self.shape(item, package), false),
            (Some(b'('), item) => list(self.shape(item, package), true),
            (Some(b'{'), value) => Node::Map {
                value: self.shape(value, package),
                atomic: false,
            },
            (Some(or @ b'A'..=b'C'), schema) => Node::Union {
                schema: self.shape(schema, package),
                or: match or {
                    b'A' => Or::Schemas,
                    b'B' => Or::Flag,
                    _ => Or::Texts,
                },
            },
            (Some(b'.'), name) => return self.types[format!("{package}.{name}").as_str()],
            (Some(letter), "") => scalar(*letter),
            _ => return self.types[shape],
        };
        self.intern(node)
    }
}

fn list(item: u32, message: bool) -> Node {
    Node::List(List {
        item,
        relation: Relation::Atomic,
        first_key: 0,
        keys: 0,
        merge_key: Span::default(),
        merges: false,
        message,
    })
}

fn scalar(letter: u8) -> Node {
    Node::Scalar(match letter {
        b's' => Scalar::Text,
        b'b' => Scalar::Flag,
        b'i' => Scalar::Int32,
        b'l' => Scalar::Whole,
        b'f' => Scalar::Real,
        b'y' => Scalar::Bytes,
        b'q' => Scalar::Quantity,
        b'o' => Scalar::IntOrString,
        b't' => Scalar::Time,
        b'u' => Scalar::MicroTime,
        b'd' => Scalar::Duration,
        b'a' => return Node::Any,
        other => unreachable!("the table has no letter {}", other as char),
    })
}
