//! The checker: a type for every node, an overload for every call, or what is wrong and where.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Entry, Fold, Id, Kind, Literal, Tree};
use crate::functions::{Function, Overload, functions, type_named};
use crate::library;
use crate::parse::Mistake;
use crate::pattern;
use crate::program::Env;
use crate::shape::{Shape, ShapeKind};
use crate::types::Type;

/// What checking found out.
#[derive(Debug)]
pub(crate) struct Checked {
    pub tree: Tree,
    pub root: Id,
    pub types: Vec<Type>,
    /// Of calls: the function, and the overloads that may be meant.
    pub calls: HashMap<Id, (&'static str, Vec<&'static str>)>,
    /// Names that stand for types.
    pub type_names: HashMap<Id, Type>,
    /// Names of variables that are read.
    pub reads: Vec<String>,
}

pub(crate) fn check(env: &Env, tree: Tree, root: Id) -> Result<Checked, Vec<Mistake>> {
    let count = tree.nodes.len();
    let mut checker = Checker {
        env,
        tree,
        types: vec![None; count],
        calls: HashMap::new(),
        type_names: HashMap::new(),
        reads: Vec::new(),
        scopes: Vec::new(),
        bound: Vec::new(),
        mistakes: Vec::new(),
    };
    checker.node(root);
    if checker.mistakes.is_empty() {
        checker.literals();
        checker.aggregates();
    }
    if !checker.mistakes.is_empty() {
        checker.mistakes.sort_by_key(|(at, _)| *at);
        return Err(checker.mistakes);
    }
    let types = (0..count)
        .map(|id| match checker.types[id].clone() {
            Some(of) => checker.resolve(&of, true),
            None => Type::Dyn,
        })
        .collect();
    Ok(Checked {
        tree: checker.tree,
        root,
        types,
        calls: checker.calls,
        type_names: checker.type_names,
        reads: checker.reads,
    })
}

struct Checker<'e> {
    env: &'e Env,
    tree: Tree,
    types: Vec<Option<Type>>,
    calls: HashMap<Id, (&'static str, Vec<&'static str>)>,
    type_names: HashMap<Id, Type>,
    reads: Vec<String>,
    /// Variables of folds, innermost last.
    scopes: Vec<(String, Type)>,
    /// What free variables stand for, by number.
    bound: Vec<Option<Type>>,
    mistakes: Vec<Mistake>,
}

impl Checker<'_> {
    fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Param(self.bound.len() as u32 - 1)
    }

    fn of(&self, id: Id) -> Type {
        self.types[id as usize].clone().unwrap_or(Type::Error)
    }

    fn set(&mut self, id: Id, of: Type) {
        self.types[id as usize] = Some(of);
    }

    fn wrong(&mut self, id: Id, says: String) {
        let at = self.tree.nodes[id as usize].at;
        self.mistakes.push((at, says));
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.set(id, Type::Error);
        self.wrong(id, format!("undeclared reference to '{name}' (in container '')"));
    }

    /// A variable, or a type by its name.
    fn lookup(&mut self, id: Id, name: &str) -> Option<Type> {
        if let Some((_, of)) = self.scopes.iter().rev().find(|(n, _)| n == name) {
            return Some(of.clone());
        }
        if let Some(of) = self.env.variable(name) {
            self.reads.push(name.to_owned());
            return Some(of);
        }
        let of = self.env.type_named(name).or_else(|| type_named(name))?;
        let of = match of {
            Type::List(_) => Type::list(Type::Dyn),
            Type::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            other => other,
        };
        self.type_names.insert(id, of.clone());
        Some(Type::Type(Some(Arc::new(of))))
    }

    fn node(&mut self, id: Id) {
        match self.tree.kind(id).clone() {
            Kind::Literal(literal) => self.set(
                id,
                match literal {
                    Literal::Null => Type::Null,
                    Literal::Bool(_) => Type::Bool,
                    Literal::Int(_) => Type::Int,
                    Literal::Uint(_) => Type::Uint,
                    Literal::Double(_) => Type::Double,
                    Literal::Text(_) => Type::String,
                    Literal::Bytes(_) => Type::Bytes,
                },
            ),
            Kind::Name(name) => match self.lookup(id, &name) {
                Some(of) => self.set(id, of),
                None => self.undeclared(id, &name),
            },
            Kind::Select { of, field, test } => {
                if !test
                    && let Some(name) = self.tree.dotted(id)
                    && let Some(found) = self.lookup(id, &name)
                {
                    self.tree.nodes[id as usize].kind = Kind::Name(name);
                    return self.set(id, found);
                }
                let found = self.field(id, of, &field, false);
                let found = if test { Type::Bool } else { self.resolve(&found, false) };
                self.set(id, found);
            }
            Kind::Call { function, target, args } => self.call(id, &function, target, &args),
            Kind::List(items) => {
                let mut joined = None;
                for (item, optional) in items {
                    self.node(item);
                    let of = self.element(item, optional);
                    joined = Some(self.join(joined, of));
                }
                let of = joined.unwrap_or_else(|| self.fresh());
                self.set(id, Type::list(of));
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for Entry { key, value, optional } in entries {
                    self.node(key);
                    let of = self.of(key);
                    keys = Some(self.join(keys, of));
                    self.node(value);
                    let of = self.element(value, optional);
                    values = Some(self.join(values, of));
                }
                let key = keys.unwrap_or_else(|| self.fresh());
                let value = values.unwrap_or_else(|| self.fresh());
                self.set(id, Type::map(key, value));
            }
            Kind::Struct { name, fields } => self.structure(id, &name, fields),
            Kind::Fold(fold) => self.fold(id, &fold),
        }
    }

    /// The type of an element; of an optional one, what is inside.
    fn element(&mut self, id: Id, optional: bool) -> Type {
        let of = self.of(id);
        if !optional {
            return of;
        }
        match of.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if of != Type::Dyn {
                    self.mismatch(id, &Type::optional(of.clone()), &of);
                }
                of
            }
        }
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.wrong(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn join(&mut self, before: Option<Type>, now: Type) -> Type {
        let Some(before) = before else { return now };
        if self.assignable(&before, &now) {
            return most_general(before, now);
        }
        Type::Dyn
    }

    fn structure(&mut self, id: Id, name: &str, fields: Vec<(String, Entry)>) {
        if self.env.type_named(name).is_none() {
            return self.undeclared(id, name);
        }
        self.set(id, Type::object(name));
        for (field, entry) in fields {
            self.node(entry.value);
            let value = self.element(entry.value, entry.optional);
            let Some(wanted) = self.env.field(name, &field) else {
                self.wrong(entry.key, format!("undefined field '{field}'"));
                continue;
            };
            if !self.assignable(&wanted, &value) {
                let says = format!("expected type of field '{field}' is '{wanted}' but provided type is '{value}'");
                self.wrong(entry.key, says);
            }
        }
    }

    fn field(&mut self, id: Id, of: Id, field: &str, optional: bool) -> Type {
        self.node(of);
        let holder = self.resolve(&self.of(of), false);
        let (target, was_optional) = match holder.unwrap_optional() {
            Some(inner) => (inner.clone(), true),
            None => (holder.clone(), false),
        };
        let result = match &target {
            Type::Map(of) => of.1.clone(),
            Type::Struct(name) => match self.env.field(name, field) {
                Some(of) => of,
                None => {
                    self.wrong(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.wrong(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if was_optional || optional {
            Type::optional(result)
        } else {
            result
        }
    }

    fn call(&mut self, id: Id, name: &str, target: Option<Id>, args: &[Id]) {
        if name == "_?._" {
            let [of, field] = args else { return };
            let Kind::Literal(Literal::Text(field_name)) = self.tree.kind(*field).clone() else {
                return;
            };
            let found = self.field(id, *of, &field_name, true);
            let found = self.resolve(&found, false);
            self.set(*field, Type::String);
            self.set(id, found);
            self.calls.insert(id, ("_?._", vec!["select_optional_field"]));
            return;
        }
        for arg in args {
            self.node(*arg);
        }
        let Some(target) = target else {
            match self.function(name) {
                Some(function) => self.overload(id, function, None, args),
                None => self.undeclared(id, name),
            }
            return;
        };
        if let Some(prefix) = self.tree.dotted(target)
            && let Some(function) = self.function(&format!("{prefix}.{name}"))
        {
            self.tree.nodes[id as usize].kind = Kind::Call {
                function: function.name.into(),
                target: None,
                args: args.to_vec(),
            };
            return self.overload(id, function, None, args);
        }
        self.node(target);
        match self.function(name) {
            Some(function) => self.overload(id, function, Some(target), args),
            None => self.undeclared(id, name),
        }
    }

    fn function(&self, name: &str) -> Option<&'static Function> {
        functions().get(name).filter(|f| self.env.allows(f.name))
    }

    fn overload(&mut self, id: Id, function: &'static Function, target: Option<Id>, args: &[Id]) {
        let given: Vec<Type> = target.iter().chain(args).map(|id| self.of(*id)).collect();
        if matches!(function.name, "_&&_" | "_||_") {
            let mut fits = true;
            for (arg, of) in args.iter().zip(&given) {
                if !self.assignable(of, &Type::Bool) {
                    self.mismatch(*arg, &Type::Bool, of);
                    fits = false;
                }
            }
            self.calls.insert(id, (function.name, vec![function.overloads[0].id]));
            return self.set(id, if fits { Type::Bool } else { Type::Error });
        }
        let mut result: Option<Type> = None;
        let mut ids = Vec::new();
        for overload in &function.overloads {
            if overload.member != target.is_some() || overload.params.len() != given.len() {
                continue;
            }
            let (params, returns) = self.instantiate(overload);
            if !self.assignable_all(&given, &params) {
                continue;
            }
            ids.push(overload.id);
            let returns = self.resolve(&returns, false);
            result = Some(match result {
                None => returns,
                Some(Type::Dyn) => Type::Dyn,
                Some(before) if before == returns => before,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(of) => {
                self.calls.insert(id, (function.name, ids));
                self.set(id, of);
            }
            None => {
                let given: Vec<String> = given.iter().map(|of| self.resolve(of, true).to_string()).collect();
                let signature = match (&target, given.split_first()) {
                    (Some(_), Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", given.join(", ")),
                };
                let name = function.name;
                self.wrong(
                    id,
                    format!("found no matching overload for '{name}' applied to '{signature}'"),
                );
                self.set(id, Type::Error);
            }
        }
    }

    /// The overload's types with free variables of their own.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let own: Vec<Type> = (0..overload.free).map(|_| self.fresh()).collect();
        let params = overload.params.iter().map(|of| replace(of, &own)).collect();
        (params, replace(&overload.result, &own))
    }

    fn fold(&mut self, id: Id, fold: &Fold) {
        self.node(fold.range);
        self.node(fold.init);
        let range = self.resolve(&self.of(fold.range), false);
        let accu = self.of(fold.init);
        let depth = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        let two = fold.var2.is_some();
        let (first, second) = match &range {
            Type::List(of) if two => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Dyn),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let says = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(fold.range, says);
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.scopes.push((var2.clone(), second));
        }
        self.node(fold.condition);
        self.assert(fold.condition, &Type::Bool);
        self.node(fold.step);
        self.assert(fold.step, &accu);
        self.scopes.truncate(depth + 1);
        self.node(fold.result);
        self.scopes.truncate(depth);
        let result = self.resolve(&self.of(fold.result), false);
        self.set(id, result);
    }

    fn assert(&mut self, id: Id, wanted: &Type) {
        let found = self.of(id);
        if !self.assignable(wanted, &found) {
            self.mismatch(id, wanted, &found);
        }
    }

    /// Lists and maps that are written out hold one type each, but for what `format` takes.
    fn aggregates(&mut self) {
        let mut free = vec![false; self.tree.nodes.len()];
        for id in (0..self.tree.nodes.len() as Id).rev() {
            match self.tree.kind(id) {
                Kind::Call { function, args, .. } if function == "format" => {
                    args.iter().for_each(|arg| free[*arg as usize] = true);
                }
                Kind::List(items) if free[id as usize] => {
                    items.iter().for_each(|(item, _)| free[*item as usize] = true);
                }
                _ => {}
            }
        }
        for id in 0..self.tree.nodes.len() as Id {
            let groups: Vec<Vec<(Id, bool)>> = match self.tree.kind(id) {
                Kind::List(items) if !free[id as usize] => vec![items.clone()],
                Kind::Map(entries) => vec![
                    entries.iter().map(|e| (e.key, false)).collect(),
                    entries.iter().map(|e| (e.value, e.optional)).collect(),
                ],
                _ => continue,
            };
            for group in groups {
                let mut first: Option<Type> = None;
                for (item, optional) in group {
                    let of = self.resolve(&self.of(item), true);
                    let of = match of.unwrap_optional() {
                        Some(inner) if optional => inner.clone(),
                        _ => of,
                    };
                    match &first {
                        None => first = Some(of),
                        Some(first) if *first == of => {}
                        Some(first) => {
                            let says = format!("expected type '{first}' but found '{of}'");
                            self.wrong(item, says);
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Literal arguments that would fail at every call.
    fn literals(&mut self) {
        for id in 0..self.tree.nodes.len() as Id {
            let Kind::Call { function, target, args } = self.tree.kind(id) else {
                continue;
            };
            let last = match (function.as_ref(), target, args.as_slice()) {
                ("duration" | "timestamp", None, [text]) => text,
                ("matches", None, [_, text]) | ("matches", Some(_), [text]) => text,
                _ => continue,
            };
            let (function, last) = (function.to_string(), *last);
            let Kind::Literal(Literal::Text(text)) = self.tree.kind(last) else {
                continue;
            };
            let fine = match function.as_str() {
                "duration" => library::time::duration(text).is_some(),
                "timestamp" => library::time::timestamp(text).is_some(),
                _ => pattern::compile(text).is_ok(),
            };
            if !fine {
                self.wrong(last, format!("invalid {function} argument"));
            }
        }
    }

    fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        let before = self.bound.clone();
        let fits = self.fits(a, b);
        if !fits {
            self.bound = before;
        }
        fits
    }

    fn assignable_all(&mut self, a: &[Type], b: &[Type]) -> bool {
        let before = self.bound.clone();
        let fits = a.iter().zip(b).all(|(a, b)| self.fits(a, b));
        if !fits {
            self.bound = before;
        }
        fits
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(number) = b {
            match self.substitutes(a, *number) {
                Fit::Yes => return true,
                Fit::NoAndBound => return false,
                Fit::No => {}
            }
        }
        if let Type::Param(number) = a {
            return matches!(self.substitutes(b, *number), Fit::Yes);
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        let nullable = |of: &Type| {
            matches!(
                of,
                Type::Null | Type::Opaque(..) | Type::Struct(_) | Type::Duration | Type::Timestamp
            )
        };
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::List(a), Type::List(b)) => self.fits(a, b),
            (Type::Map(a), Type::Map(b)) => self.fits(&a.0, &b.0) && self.fits(&a.1, &b.1),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Opaque(name_a, a), Type::Opaque(name_b, b)) => {
                name_a == name_b && a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| self.fits(a, b))
            }
            (a, b) => a == b,
        }
    }

    /// Whether `of` can stand for a free variable; binds it if so.
    fn substitutes(&mut self, of: &Type, number: u32) -> Fit {
        if *of == Type::Param(number) {
            return Fit::Yes;
        }
        if let Some(had) = self.bound[number as usize].clone() {
            if *of == had {
                return Fit::Yes;
            }
            if self.fits(of, &had) {
                let general = most_general(of.clone(), had);
                if !self.mentions(&general, number) {
                    self.bound[number as usize] = Some(general);
                }
                return Fit::Yes;
            }
            return Fit::NoAndBound;
        }
        if self.mentions(of, number) {
            return Fit::No;
        }
        self.bound[number as usize] = Some(of.clone());
        Fit::Yes
    }

    fn mentions(&self, of: &Type, number: u32) -> bool {
        match of {
            Type::Param(other) => {
                *other == number
                    || self.bound[*other as usize]
                        .as_ref()
                        .is_some_and(|of| self.mentions(of, number))
            }
            Type::List(of) => self.mentions(of, number),
            Type::Map(of) => self.mentions(&of.0, number) || self.mentions(&of.1, number),
            Type::Type(Some(of)) => self.mentions(of, number),
            Type::Opaque(_, of) => of.iter().any(|of| self.mentions(of, number)),
            _ => false,
        }
    }

    /// The type with bound variables replaced; `free_is_dyn`: and the others too.
    fn resolve(&self, of: &Type, free_is_dyn: bool) -> Type {
        match of {
            Type::Param(number) => match &self.bound[*number as usize] {
                Some(of) => self.resolve(of, free_is_dyn),
                None if free_is_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(of) => Type::list(self.resolve(of, free_is_dyn)),
            Type::Map(of) => Type::map(self.resolve(&of.0, free_is_dyn), self.resolve(&of.1, free_is_dyn)),
            Type::Type(Some(of)) => Type::Type(Some(Arc::new(self.resolve(of, free_is_dyn)))),
            Type::Opaque(name, of) if !of.is_empty() => Type::Opaque(
                name.clone(),
                of.iter().map(|of| self.resolve(of, free_is_dyn)).collect(),
            ),
            other => other.clone(),
        }
    }
}

enum Fit {
    Yes,
    No,
    /// No, and it already stands for something else.
    NoAndBound,
}

fn replace(of: &Type, own: &[Type]) -> Type {
    match of {
        Type::Param(number) => own[*number as usize].clone(),
        Type::List(of) => Type::list(replace(of, own)),
        Type::Map(of) => Type::map(replace(&of.0, own), replace(&of.1, own)),
        Type::Type(Some(of)) => Type::Type(Some(Arc::new(replace(of, own)))),
        Type::Opaque(name, of) => Type::Opaque(name.clone(), of.iter().map(|of| replace(of, own)).collect()),
        other => other.clone(),
    }
}

fn most_general(a: Type, b: Type) -> Type {
    if is_as_general(&a, &b) { a } else { b }
}

fn is_as_general(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) => is_as_general(a, b),
        (Type::Map(a), Type::Map(b)) => is_as_general(&a.0, &b.0) && is_as_general(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        (Type::Opaque(name_a, a), Type::Opaque(name_b, b)) => {
            name_a == name_b && a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| is_as_general(a, b))
        }
        (a, b) => a == b,
    }
}

/// The named objects in a shape and below.
pub(crate) fn collect_objects(shape: &Arc<Shape>, into: &mut HashMap<Arc<str>, Arc<Shape>>) {
    match &shape.kind {
        ShapeKind::List(of, _) | ShapeKind::Map(of) => collect_objects(of, into),
        ShapeKind::Object(name, fields) if into.insert(name.clone(), shape.clone()).is_none() => {
            for field in fields.values() {
                collect_objects(&field.shape, into);
            }
        }
        _ => {}
    }
}
