//! The table of what expressions may call, read once.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::library::{Run, run_of};
use crate::types::Type;

pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
    pub run: Run,
}

pub(crate) struct Overload {
    pub id: &'static str,
    /// The first parameter is what stands before the dot.
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
    /// How many free variables the types have, numbered from 0.
    pub free: u32,
}

/// Names that are types as well (`type(x) == string`), by how sources spell them.
pub(crate) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "list" => Type::list(Type::Param(0)),
        "map" => Type::map(Type::Param(0), Type::Param(1)),
        "null_type" => Type::Null,
        "type" => Type::Type(None),
        "dyn" => Type::Dyn,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "optional_type" => Type::optional(Type::Param(0)),
        other => kubernetes(other)?,
    })
}

fn kubernetes(name: &str) -> Option<Type> {
    const STRUCTS: [&str; 9] = [
        "kubernetes.Quantity",
        "kubernetes.URL",
        "kubernetes.Semver",
        "kubernetes.NamedFormat",
        "kubernetes.authorization.Authorizer",
        "kubernetes.authorization.PathCheck",
        "kubernetes.authorization.GroupCheck",
        "kubernetes.authorization.ResourceCheck",
        "kubernetes.authorization.Decision",
    ];
    match name {
        "net.IP" | "net.CIDR" => Some(Type::Opaque(name.into(), Arc::new([]))),
        _ if STRUCTS.contains(&name) => Some(Type::Struct(name.into())),
        _ => None,
    }
}

pub(crate) fn functions() -> &'static HashMap<&'static str, Function> {
    static TABLE: OnceLock<HashMap<&'static str, Function>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: HashMap<&'static str, Function> = HashMap::new();
        let lines = include_str!("functions.txt").lines();
        for line in lines.filter(|line| !line.starts_with("# ")) {
            let mut words = line.splitn(3, ' ');
            let (Some(name), Some(id), Some(types)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let overload = overload(id, types);
            table
                .entry(name)
                .or_insert_with(|| Function {
                    name,
                    overloads: Vec::new(),
                    run: run_of(name),
                })
                .overloads
                .push(overload);
        }
        table
    })
}

fn overload(id: &'static str, types: &'static str) -> Overload {
    let mut reader = Reader {
        rest: types,
        letters: Vec::new(),
    };
    let mut params = Vec::new();
    let member = !types.starts_with('(');
    if member {
        params.push(reader.ty());
        reader.skip(".");
    }
    reader.skip("(");
    while !reader.skip(")") {
        params.push(reader.ty());
        reader.skip(", ");
    }
    reader.skip(" ");
    let result = reader.ty();
    Overload {
        id,
        member,
        params,
        result,
        free: reader.letters.len() as u32,
    }
}

struct Reader {
    rest: &'static str,
    letters: Vec<u8>,
}

impl Reader {
    fn skip(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn ty(&mut self) -> Type {
        let end = self.rest.find(['(', ')', ',', '.', ' ']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let [letter @ b'A'..=b'Z'] = word.as_bytes() {
            let number = self.letters.iter().position(|l| l == letter).unwrap_or_else(|| {
                self.letters.push(*letter);
                self.letters.len() - 1
            });
            return Type::Param(number as u32);
        }
        match word {
            "list" => Type::list(self.inner()),
            "optional" => Type::optional(self.inner()),
            "type" => Type::Type(Some(Arc::new(self.inner()))),
            "map" => {
                self.skip("(");
                let key = self.ty();
                self.skip(", ");
                let value = self.ty();
                self.skip(")");
                Type::map(key, value)
            }
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "IP" | "CIDR" => kubernetes(&format!("net.{word}")).unwrap_or(Type::Dyn),
            "Format" => Type::object("kubernetes.NamedFormat"),
            "Quantity" | "URL" | "Semver" => Type::Struct(format!("kubernetes.{word}").into()),
            word if word.starts_with(char::is_uppercase) => {
                Type::Struct(format!("kubernetes.authorization.{word}").into())
            }
            word => type_named(word).unwrap_or(Type::Dyn),
        }
    }

    fn inner(&mut self) -> Type {
        self.skip("(");
        let of = self.ty();
        self.skip(")");
        of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_whole() {
        let table = functions();
        let overloads: usize = table.values().map(|f| f.overloads.len()).sum();
        let lines = include_str!("functions.txt")
            .lines()
            .filter(|l| !l.starts_with("# "))
            .count();
        assert_eq!(overloads, lines);
        let find = table["findAll"].overloads.last().unwrap();
        assert_eq!((find.params.len(), find.member), (3, true));
        assert_eq!(find.result, Type::list(Type::String));
        let insert = &table["cel.@mapInsert"].overloads[0];
        assert_eq!((insert.params.len(), insert.free), (3, 2));
    }
}
