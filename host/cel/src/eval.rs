//! Evaluation: a walk over the checked tree that counts what it costs as it goes.
//!
//! Costs are those of cel-go's tracker, for they decide which requests pass: a name and each step into it 1, functions
//! by the size of their arguments, what is constant nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Entry, Fold, Id, Kind, Literal};
use crate::cost;
use crate::functions::functions;
use crate::library::authorizer::Authorizer;
use crate::program::Program;
use crate::types::Type;
use crate::value::{Key, Map, Text, Val};

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub message: String,
    /// It ran out of what it may cost.
    pub over: bool,
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            over: false,
        }
    }

    pub(crate) fn no_overload() -> Self {
        Self::new("no such overload")
    }
}

/// Scopes deeper than this do not come from expressions that were parsed.
pub(crate) struct Machine<'a, 'v> {
    program: &'a Program,
    variables: &'v [(&'v str, Val<'a>)],
    pub(crate) authorizer: Option<&'a dyn Authorizer>,
    limit: u64,
    pub(crate) cost: u64,
    /// Variables of folds, innermost last.
    locals: Vec<(&'a str, Val<'a>)>,
}

const LIST: u64 = 10;
const MAP: u64 = 30;
const STRUCT: u64 = 40;

impl<'a, 'v> Machine<'a, 'v> {
    pub(crate) fn new(
        program: &'a Program,
        variables: &'v [(&'v str, Val<'a>)],
        authorizer: Option<&'a dyn Authorizer>,
        limit: u64,
    ) -> Self {
        Self {
            program,
            variables,
            authorizer,
            limit,
            cost: 0,
            locals: Vec::new(),
        }
    }

    pub(crate) fn run(&mut self) -> Result<Val<'a>, Fault> {
        self.eval(self.program.checked.root)
    }

    pub(crate) fn pattern(&self, text: &str) -> Result<std::borrow::Cow<'a, regex::Regex>, Fault> {
        self.program.pattern(text)
    }

    fn spend(&mut self, amount: u64) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(amount);
        if self.cost > self.limit {
            return Err(Fault {
                message: "operation cancelled: actual cost limit exceeded".into(),
                over: true,
            });
        }
        Ok(())
    }

    pub(crate) fn eval(&mut self, id: Id) -> Result<Val<'a>, Fault> {
        let program = self.program;
        if let Some(constant) = program.constants.get(&id) {
            return Ok(constant.clone());
        }
        match program.checked.tree.kind(id) {
            Kind::Literal(literal) => Ok(self.literal(literal)),
            Kind::Name(name) => self.named(id, name, 1),
            Kind::Select { test: true, of, field } => {
                let holder = self.holder(*of)?;
                has_field(&holder, field)
            }
            Kind::Select { .. } => self.path(id, true),
            Kind::Call { function, target, args } => match function.as_ref() {
                "_[_]" | "_[?_]" | "_?._" => self.path(id, true),
                "_&&_" | "_||_" => self.logic(function == "_||_", args),
                // What stands in for an absent value is not worked out where there is one.
                "or" | "orValue" if target.is_some() && args.len() == 1 => {
                    match self.eval(target.unwrap_or_default())? {
                        Val::Optional(None) => self.eval(args[0]),
                        Val::Optional(Some(inner)) if function == "orValue" => Ok((*inner).clone()),
                        some @ Val::Optional(Some(_)) => Ok(some),
                        _ => Err(Fault::no_overload()),
                    }
                }
                "_?_:_" => self.conditional(args),
                "@not_strictly_false" => {
                    let strict = self.eval(args[0]);
                    self.spend(1)?;
                    match strict {
                        Err(fault) if fault.over => Err(fault),
                        Ok(Val::Bool(false)) => Ok(Val::Bool(false)),
                        _ => Ok(Val::Bool(true)),
                    }
                }
                _ => self.call(id, function, *target, args),
            },
            Kind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    match (self.eval(*item)?, optional) {
                        (Val::Optional(None), true) => {}
                        (Val::Optional(Some(inner)), true) => list.push((*inner).clone()),
                        (val, _) => list.push(val),
                    }
                }
                self.spend(LIST)?;
                Ok(Val::list(list))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(name, fields),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn literal(&self, literal: &'a Literal) -> Val<'a> {
        match literal {
            Literal::Null => Val::Null,
            Literal::Bool(flag) => Val::Bool(*flag),
            Literal::Int(number) => Val::Int(*number),
            Literal::Uint(number) => Val::Uint(*number),
            Literal::Double(number) => Val::Double(*number),
            Literal::Text(text) => Val::Text(Text::Borrowed(text)),
            Literal::Bytes(bytes) => Val::Bytes(bytes.as_slice().into()),
        }
    }

    fn name(&self, id: Id, name: &str) -> Result<Val<'a>, Fault> {
        if let Some(of) = self.program.checked.type_names.get(&id) {
            return Ok(Val::Type(of.clone()));
        }
        if let Some((_, val)) = self.locals.iter().rev().find(|(n, _)| *n == name) {
            return Ok(val.clone());
        }
        match self.variables.iter().find(|(n, _)| *n == name) {
            Some((_, val)) => Ok(val.clone()),
            None => Err(Fault::new(format!("no such attribute(s): {name}"))),
        }
    }

    /// The value of a name, for its price. Types are constants and cost nothing.
    fn named(&mut self, id: Id, name: &str, price: u64) -> Result<Val<'a>, Fault> {
        let val = self.name(id, name)?;
        if !matches!(val, Val::Type(_)) {
            self.spend(price)?;
        }
        match val {
            Val::Failed(fault) => Err((*fault).clone()),
            val => Ok(val),
        }
    }

    /// What a path begins with: each path costs 1, and what it begins with as well where that is no name.
    fn holder(&mut self, of: Id) -> Result<Val<'a>, Fault> {
        let val = if is_path(&self.program.checked.tree, of) {
            self.path(of, true)?
        } else {
            self.eval(of)?
        };
        Ok(val)
    }

    /// `a.b[c].d`: a name or another value, and steps into it. The name is for free in a branch of `?:`.
    fn path(&mut self, id: Id, name_costs: bool) -> Result<Val<'a>, Fault> {
        let program = self.program;
        let tree = &program.checked.tree;
        let (of, step) = match tree.kind(id) {
            Kind::Select { of, field, test: false } => (*of, Step::Field(field)),
            Kind::Call { function, args, .. } if matches!(function.as_ref(), "_[_]" | "_[?_]" | "_?._") => {
                (args[0], Step::Index(args[1], function != "_[_]"))
            }
            Kind::Name(name) => return self.named(id, name, u64::from(name_costs)),
            _ => {
                let val = self.eval(id)?;
                self.spend(u64::from(name_costs))?;
                return Ok(val);
            }
        };
        let holder = if program.constants.contains_key(&of) {
            let val = self.eval(of)?;
            self.spend(1)?;
            val
        } else {
            self.path(of, name_costs)?
        };
        let result = match step {
            Step::Field(field) => select(holder, field),
            Step::Index(at, optional) => {
                let index = if is_path(tree, at) {
                    self.path(at, false)?
                } else {
                    self.eval(at)?
                };
                index_into(holder, &index, optional)
            }
        };
        // Looking for what may be absent, and is, is free.
        if !matches!(result, Ok(Val::Optional(None))) {
            self.spend(1)?;
        }
        result
    }

    fn logic(&mut self, or: bool, args: &[Id]) -> Result<Val<'a>, Fault> {
        let mut failed = None;
        for arg in args {
            match self.eval(*arg) {
                Ok(Val::Bool(flag)) if flag == or => return Ok(Val::Bool(or)),
                Ok(Val::Bool(_)) => {}
                Err(fault) if fault.over => return Err(fault),
                Ok(_) => failed = failed.or(Some(Fault::no_overload())),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        match failed {
            Some(fault) => Err(fault),
            None => Ok(Val::Bool(!or)),
        }
    }

    fn conditional(&mut self, args: &[Id]) -> Result<Val<'a>, Fault> {
        let tree = &self.program.checked.tree;
        let chosen = match self.eval(args[0])? {
            Val::Bool(true) => args[1],
            Val::Bool(false) => args[2],
            _ => return Err(Fault::no_overload()),
        };
        if is_path(tree, chosen) && !self.program.constants.contains_key(&chosen) {
            return self.path(chosen, false);
        }
        self.eval(chosen)
    }

    fn call(&mut self, id: Id, function: &'a str, target: Option<Id>, args: &[Id]) -> Result<Val<'a>, Fault> {
        let program = self.program;
        let mut vals = Vec::with_capacity(args.len() + 1);
        let mut failed = None;
        let few = args.len() + usize::from(target.is_some()) <= 2;
        for arg in target.iter().chain(args) {
            match self.eval(*arg) {
                Ok(val) => vals.push(val),
                // One or two arguments are all worked out, and paid for, before the first failure is told.
                Err(fault) if few && !fault.over => {
                    failed = failed.or(Some(fault));
                    vals.push(Val::Null);
                }
                Err(fault) => return Err(fault),
            }
        }
        let Some((name, overloads)) = program.checked.calls.get(&id) else {
            return Err(Fault::new(format!("no such function: {function}")));
        };
        if let Some(fault) = failed {
            self.spend(cost::of_call(name, overloads, &vals, None))?;
            return Err(fault);
        }
        // The list of an `in` that is written out was made a set.
        if *name == "@in" && overloads.as_slice() == ["in_list"] && cost::is_set(program, args[1]) {
            return Ok(Val::Bool(matches!(&vals[1], Val::List(list) if list.has(&vals[0]))));
        }
        let result = match *name {
            "_==_" => Ok(Val::Bool(vals[0].equals(&vals[1]))),
            "_!=_" => Ok(Val::Bool(!vals[0].equals(&vals[1]))),
            name => match functions().get(name) {
                Some(function) => (function.run)(self, &vals),
                None => Err(Fault::no_overload()),
            },
        };
        self.spend(cost::of_call(name, overloads, &vals, result.as_ref().ok()))?;
        result
    }

    fn map(&mut self, entries: &[Entry]) -> Result<Val<'a>, Fault> {
        let mut map = BTreeMap::new();
        for entry in entries {
            let key = self.eval(entry.key)?;
            let val = self.eval(entry.value)?;
            let val = match (val, entry.optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (val, _) => val,
            };
            let name = Key::of(&key).ok_or_else(|| Fault::new("unsupported key type"))?;
            if map.insert(name, val).is_some() {
                return Err(Fault::new("Failed with repeated key"));
            }
        }
        self.spend(MAP)?;
        Ok(Val::map(map))
    }

    fn structure(&mut self, name: &str, fields: &[(String, Entry)]) -> Result<Val<'a>, Fault> {
        let mut made = BTreeMap::new();
        for (field, entry) in fields {
            let val = match (self.eval(entry.value)?, entry.optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (val, _) => val,
            };
            made.insert(field.clone(), val);
        }
        self.spend(STRUCT)?;
        Ok(Val::Struct(name.into(), Arc::new(made)))
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Val<'a>, Fault> {
        if fold.bind {
            // cel-go makes a local variable a comprehension over an empty list, whose creation is constant.
            let init = self.eval(fold.init)?;
            self.locals.push((&fold.accu, init));
            let result = self.eval(fold.result);
            self.locals.pop();
            return result;
        }
        let range = self.eval(fold.range)?;
        let accu = self.eval(fold.init)?;
        let base = self.locals.len();
        self.locals.push((&fold.accu, accu));
        let result = self.walk(fold, base, &range);
        self.locals.truncate(base);
        result
    }

    fn walk(&mut self, fold: &'a Fold, base: usize, range: &Val<'a>) -> Result<Val<'a>, Fault> {
        let two = fold.var2.is_some();
        let (count, keys) = match range {
            Val::List(list) => (list.len(), Vec::new()),
            Val::Map(map) => (map.len(), map.keys()),
            _ => return Err(Fault::no_overload()),
        };
        for at in 0..count {
            let (first, second) = match range {
                Val::List(list) => {
                    let Some(item) = list.get(at) else { break };
                    let item = item?;
                    if two {
                        (Val::Int(at as i64), Some(item))
                    } else {
                        (item, None)
                    }
                }
                Val::Map(map) => {
                    let Some(key) = keys.get(at) else { break };
                    let second = if two { map.get(key)? } else { None };
                    (key.val(), second)
                }
                _ => break,
            };
            self.locals.push((&fold.var, first));
            if let (Some(var2), Some(second)) = (&fold.var2, second) {
                self.locals.push((var2, second));
            }
            let go_on = match self.eval(fold.condition) {
                Ok(Val::Bool(flag)) => flag,
                Err(fault) if fault.over => return Err(fault),
                _ => true,
            };
            if !go_on {
                self.locals.truncate(base + 1);
                break;
            }
            let step = self.eval(fold.step);
            self.locals.truncate(base + 1);
            self.locals[base].1 = match step {
                Ok(val) => val,
                Err(fault) if fault.over => return Err(fault),
                // A failed step of `all` or `exists` may yet be absorbed by a later one.
                Err(fault) => Val::Failed(Arc::new(fault)),
            };
        }
        self.eval(fold.result)
    }
}

enum Step<'a> {
    Field(&'a str),
    Index(Id, bool),
}

/// A name, or steps into something.
fn is_path(tree: &crate::ast::Tree, id: Id) -> bool {
    match tree.kind(id) {
        Kind::Name(_) | Kind::Select { test: false, .. } => true,
        Kind::Call { function, .. } => matches!(function.as_ref(), "_[_]" | "_[?_]" | "_?._"),
        _ => false,
    }
}

fn missing(key: &str) -> Fault {
    Fault::new(format!("no such key: {key}"))
}

fn has_field<'a>(holder: &Val<'a>, field: &str) -> Result<Val<'a>, Fault> {
    match holder {
        Val::Map(map) => Ok(Val::Bool(map.has(&Key::Text(field.to_owned())))),
        Val::Struct(_, fields) => Ok(Val::Bool(fields.contains_key(field))),
        Val::Optional(Some(inner)) => has_field(inner, field),
        Val::Optional(None) => Ok(Val::Bool(false)),
        _ => Err(Fault::no_overload()),
    }
}

fn select<'a>(holder: Val<'a>, field: &str) -> Result<Val<'a>, Fault> {
    match &holder {
        Val::Map(map) => map.get(&Key::Text(field.to_owned()))?.ok_or_else(|| missing(field)),
        Val::Struct(_, fields) => fields.get(field).cloned().ok_or_else(|| missing(field)),
        Val::Optional(_) => index_into(holder, &Val::text(field), true),
        _ => Err(Fault::no_overload()),
    }
}

/// `holder[index]`; `optional`: absence is a value.
fn index_into<'a>(holder: Val<'a>, index: &Val<'a>, optional: bool) -> Result<Val<'a>, Fault> {
    if let Val::Optional(inner) = holder {
        return match inner {
            None => Ok(Val::Optional(None)),
            Some(inner) => index_into((*inner).clone(), index, true),
        };
    }
    let found = match &holder {
        Val::List(list) => {
            let at = match index {
                Val::Int(at) => *at,
                Val::Uint(at) => i64::try_from(*at).unwrap_or(-1),
                Val::Double(at) if at.fract() == 0.0 => *at as i64,
                _ => return Err(Fault::no_overload()),
            };
            match usize::try_from(at).ok().and_then(|at| list.get(at)) {
                Some(item) => Some(item?),
                None if optional => None,
                None => return Err(Fault::new(format!("index out of bounds: {at}"))),
            }
        }
        Val::Map(map) => {
            let key = Key::of(index).ok_or_else(Fault::no_overload)?;
            match map.get(&key)? {
                None if !optional => {
                    return Err(missing(&match key {
                        Key::Text(text) => text,
                        Key::Int(number) => number.to_string(),
                        Key::Bool(flag) => flag.to_string(),
                    }));
                }
                found => found,
            }
        }
        Val::Struct(_, fields) => match index {
            Val::Text(name) => fields.get(&**name).cloned(),
            _ => return Err(Fault::no_overload()),
        },
        _ => return Err(Fault::no_overload()),
    };
    match (found, optional) {
        (Some(val), true) => Ok(Val::some(val)),
        (Some(val), false) => Ok(val),
        (None, true) => Ok(Val::Optional(None)),
        (None, false) => Err(Fault::new("no such key")),
    }
}

impl Program {
    /// Finds what is constant: lists and maps of constants, and conversions of constants.
    pub(crate) fn fold_constants(&mut self) -> Result<(), Fault> {
        const CONVERSIONS: [&str; 11] = [
            "bool",
            "bytes",
            "double",
            "duration",
            "dyn",
            "int",
            "list",
            "string",
            "timestamp",
            "type",
            "uint",
        ];
        for id in 0..self.checked.tree.nodes.len() as Id {
            let constant =
                |of: &Id| self.constants.contains_key(of) || matches!(self.checked.tree.kind(*of), Kind::Literal(_));
            let folds = match self.checked.tree.kind(id) {
                Kind::List(items) => items.iter().all(|(item, optional)| !optional && constant(item)),
                Kind::Map(entries) => entries
                    .iter()
                    .all(|e| !e.optional && constant(&e.key) && constant(&e.value)),
                Kind::Call {
                    function,
                    target: None,
                    args,
                } => args.len() == 1 && CONVERSIONS.contains(&function.as_ref()) && constant(&args[0]),
                _ => false,
            };
            if folds {
                let (val, _) = {
                    let mut machine = Machine::new(self, &[], None, u64::MAX);
                    (machine.eval(id)?.into_static(), ())
                };
                self.constants.insert(id, val);
            }
        }
        Ok(())
    }
}

impl Val<'_> {
    /// The same without borrowing.
    pub(crate) fn into_static(self) -> Val<'static> {
        match self {
            Val::Null => Val::Null,
            Val::Bool(flag) => Val::Bool(flag),
            Val::Int(number) => Val::Int(number),
            Val::Uint(number) => Val::Uint(number),
            Val::Double(number) => Val::Double(number),
            Val::Text(text) => Val::text(&*text),
            Val::Bytes(bytes) => Val::Bytes(bytes),
            Val::Timestamp(at) => Val::Timestamp(at),
            Val::Duration(nanos) => Val::Duration(nanos),
            Val::List(list) => Val::list(list.iter().flatten().map(Val::into_static).collect()),
            Val::Map(map) => Val::map(
                map.keys()
                    .into_iter()
                    .filter_map(|key| Some((key.clone(), map.get(&key).ok()??.into_static())))
                    .collect(),
            ),
            Val::Struct(name, fields) => Val::Struct(
                name,
                Arc::new(
                    fields
                        .iter()
                        .map(|(k, v)| (k.clone(), v.clone().into_static()))
                        .collect(),
                ),
            ),
            Val::Optional(inner) => Val::Optional(inner.map(|inner| Arc::new((*inner).clone().into_static()))),
            Val::Type(of) => Val::Type(of),
            // None of these is made of a constant alone.
            Val::Kube(_) | Val::Failed(_) => Val::Null,
        }
    }

    pub(crate) fn type_value(&self) -> Val<'static> {
        Val::Type(match self {
            Val::Map(Map::Json(_, crate::value::Of::Fields(_))) => Type::object("object"),
            other => other.ty(),
        })
    }
}
