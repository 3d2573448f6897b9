//! What an expression can cost, at least and at most, told from its tree and the sizes its shapes allow.
//!
//! The numbers are those of cel-go's estimator with Kubernetes' libraries: which rules a definition may hold depends on them.

mod extensions;

use std::collections::HashMap;

use crate::ast::{Fold, Id, Kind, Literal};
use crate::check::Checked;
use crate::cost::{LIST, PER_CHARACTER, PER_PATTERN_CHARACTER, is_ordering};
use crate::program::Env;
use crate::shape::Step;
use crate::types::Type;

/// From at least to at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub least: u64,
    pub most: u64,
}

const UNKNOWN: Estimate = Estimate {
    least: 0,
    most: u64::MAX,
};

fn fixed(amount: u64) -> Estimate {
    Estimate {
        least: amount,
        most: amount,
    }
}

impl Estimate {
    fn plus(self, other: Estimate) -> Estimate {
        Estimate {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
        }
    }

    fn times(self, other: Estimate) -> Estimate {
        Estimate {
            least: self.least.saturating_mul(other.least),
            most: self.most.saturating_mul(other.most),
        }
    }

    fn by(self, factor: f64) -> Estimate {
        Estimate {
            least: scale(self.least, factor),
            most: scale(self.most, factor),
        }
    }

    fn or(self, other: Estimate) -> Estimate {
        Estimate {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }
}

fn scale(size: u64, factor: f64) -> u64 {
    let product = (size as f64 * factor).ceil();
    // Saturates: u64::MAX as a float is 2^64.
    product as u64
}

/// Sizes of what a list or map holds.
#[derive(Debug, Clone, Copy)]
struct Entries {
    list: bool,
    key: Estimate,
    value: Estimate,
}

#[derive(Debug, Clone)]
struct Local {
    name: String,
    path: Option<Vec<String>>,
    size: Option<Estimate>,
    entries: Option<Entries>,
}

struct Estimator<'e> {
    env: &'e Env,
    checked: &'e Checked,
    locals: Vec<Local>,
    paths: HashMap<Id, Vec<String>>,
    sizes: HashMap<Id, Estimate>,
    entries: HashMap<Id, Entries>,
}

pub(crate) fn estimate(env: &Env, checked: &Checked) -> Estimate {
    let mut estimator = Estimator {
        env,
        checked,
        locals: Vec::new(),
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    estimator.cost(checked.root)
}

/// An argument, as far as its size is of interest.
struct Arg {
    id: Id,
    path: Option<Vec<String>>,
    size: Option<Estimate>,
}

impl Estimator<'_> {
    fn kind(&self, id: Id) -> &Kind {
        self.checked.tree.kind(id)
    }

    fn ty(&self, id: Id) -> &Type {
        &self.checked.types[id as usize]
    }

    fn cost(&mut self, id: Id) -> Estimate {
        match self.kind(id).clone() {
            Kind::Literal(_) => fixed(0),
            Kind::Name(name) => {
                let path = match self.local(&name) {
                    Some(local) => local.path.clone(),
                    None => Some(vec![name]),
                };
                if let Some(path) = path {
                    self.paths.insert(id, path);
                }
                fixed(1)
            }
            // A presence test is free, and so is the way to it that its holder does not pay.
            Kind::Select { of, test: true, .. } => self.cost(of),
            Kind::Select { of, field, .. } => {
                let mut sum = self.cost(of);
                if matches!(self.ty(of), Type::Map(_) | Type::Struct(_) | Type::Param(_)) {
                    sum = sum.plus(fixed(1));
                }
                let mut path = self.path(of).unwrap_or_default();
                path.push(field);
                self.paths.insert(id, path);
                sum
            }
            Kind::Call { function, target, args } => self.call(id, &function, target, &args),
            Kind::List(items) => {
                let mut sum = fixed(0);
                let mut size = Estimate {
                    least: if items.is_empty() { 0 } else { u64::MAX },
                    most: 0,
                };
                for (item, _) in items {
                    sum = sum.plus(self.cost(item));
                    size = size.or(self.size_or_unknown(item));
                }
                self.entries.insert(
                    id,
                    Entries {
                        list: true,
                        key: fixed(1),
                        value: size,
                    },
                );
                sum.plus(fixed(LIST))
            }
            Kind::Map(entries) => {
                let start = Estimate {
                    least: if entries.is_empty() { 0 } else { u64::MAX },
                    most: 0,
                };
                let (mut sum, mut key, mut value) = (fixed(0), start, start);
                for entry in entries {
                    sum = sum.plus(self.cost(entry.key)).plus(self.cost(entry.value));
                    key = key.or(self.size_or_unknown(entry.key));
                    value = value.or(self.size_or_unknown(entry.value));
                }
                self.entries.insert(
                    id,
                    Entries {
                        list: false,
                        key,
                        value,
                    },
                );
                sum.plus(fixed(30))
            }
            Kind::Struct { fields, .. } => {
                let sum = fields
                    .iter()
                    .fold(fixed(0), |sum, (_, entry)| sum.plus(self.cost(entry.value)));
                sum.plus(fixed(40))
            }
            Kind::Fold(fold) if fold.bind => {
                let sum = self.cost(fold.range).plus(self.cost(fold.init));
                self.bind(&fold.accu, fold.init);
                let sum = sum.plus(self.cost(fold.result));
                self.locals.pop();
                if let Some(size) = self.size(fold.result) {
                    self.sizes.insert(id, size);
                }
                if let Some(entries) = self.entries_of(fold.result) {
                    self.entries.insert(id, entries);
                }
                sum
            }
            Kind::Fold(fold) => self.fold(id, &fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn bind(&mut self, name: &str, id: Id) {
        let local = Local {
            name: name.to_owned(),
            path: self.path(id),
            size: self.size(id),
            entries: self.entries_of(id),
        };
        self.locals.push(local);
    }

    fn fold(&mut self, id: Id, fold: &Fold) -> Estimate {
        let sum = self.cost(fold.range).plus(self.cost(fold.init));
        let base = self.locals.len();
        self.bind(&fold.accu, fold.init);
        let entries = self.entries_of(fold.range);
        let list = match &entries {
            Some(entries) => entries.list,
            None => matches!(self.ty(fold.range), Type::List(_)),
        };
        let path = self.path(fold.range);
        let local = |name: &str, step: &str, size: Option<Estimate>| Local {
            name: name.to_owned(),
            path: Some({
                let mut path = path.clone().unwrap_or_default();
                path.push(step.to_owned());
                path
            }),
            size,
            entries: None,
        };
        let (key, value) = (entries.map(|e| e.key), entries.map(|e| e.value));
        match (&fold.var2, list) {
            (Some(var2), true) => {
                self.locals.push(local(&fold.var, "@indices", key));
                self.locals.push(local(var2, "@items", value));
            }
            (Some(var2), false) => {
                self.locals.push(local(&fold.var, "@keys", key));
                self.locals.push(local(var2, "@values", value));
            }
            (None, true) => self.locals.push(local(&fold.var, "@items", value)),
            (None, false) => self.locals.push(local(&fold.var, "@keys", key)),
        }
        let loop_cost = self.cost(fold.condition);
        let step_cost = self.cost(fold.step);
        self.locals.truncate(base + 1);
        let sum = sum.plus(self.cost(fold.result));
        self.locals.truncate(base);
        let count = self.size_or_unknown(fold.range);
        let sum = sum.plus(count.times(step_cost.plus(loop_cost)));
        match self.kind(fold.init) {
            Kind::Literal(_) => {
                if let Some(size) = self.size(fold.init) {
                    self.sizes.insert(id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(id, count);
                if let Some(entries) = self.entries_of(fold.step) {
                    self.entries.insert(id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn path(&self, id: Id) -> Option<Vec<String>> {
        if let Kind::Name(name) = self.kind(id)
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&id).cloned()
    }

    fn size_or_unknown(&mut self, id: Id) -> Estimate {
        self.size(id).unwrap_or(UNKNOWN)
    }

    fn size(&mut self, id: Id) -> Option<Estimate> {
        if let Some(size) = self.sizes.get(&id) {
            return Some(*size);
        }
        match self.kind(id) {
            Kind::Literal(Literal::Text(text)) => return Some(fixed(text.chars().count() as u64)),
            Kind::Literal(Literal::Bytes(bytes)) => return Some(fixed(bytes.len() as u64)),
            Kind::Literal(_) => return Some(fixed(1)),
            Kind::List(items) => return Some(fixed(items.len() as u64)),
            Kind::Map(entries) => return Some(fixed(entries.len() as u64)),
            _ => {}
        }
        if let Some(path) = self.path(id)
            && let Some(size) = self.allowed(&path)
        {
            self.sizes.insert(id, size);
            return Some(size);
        }
        if self.ty(id).is_scalar() {
            return Some(fixed(1));
        }
        match self.kind(id) {
            Kind::Name(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    /// What the shapes allow at a path. Whatever name it begins with: upstream takes all for the one variable of a rule.
    fn allowed(&self, path: &[String]) -> Option<Estimate> {
        let (_, steps) = path.split_first()?;
        let mut at = self.env.shape()?;
        for (i, step) in steps.iter().enumerate() {
            match at.step(step)? {
                Step::To(next) => at = next,
                Step::Key if i + 1 == steps.len() => return Some(fixed(0)),
                Step::Key => return None,
            }
        }
        Some(Estimate {
            least: 0,
            most: at.most,
        })
    }

    fn entries_of(&self, id: Id) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&id) {
            return Some(*entries);
        }
        match self.kind(id) {
            Kind::Name(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        }
    }

    fn arg(&mut self, id: Id) -> Arg {
        let path = self
            .path(id)
            .filter(|path| path.first().is_none_or(|first| first != crate::ast::ACCU));
        Arg {
            id,
            path,
            size: self.size(id),
        }
    }

    fn call(&mut self, id: Id, function: &str, target: Option<Id>, args: &[Id]) -> Estimate {
        if let ("dyn", [of]) = (function, args) {
            let cost = self.cost(*of);
            if let Some(size) = self.size(*of) {
                self.sizes.insert(id, size);
            }
            if let Some(entries) = self.entries_of(*of) {
                self.entries.insert(id, entries);
            }
            return cost.plus(fixed(1));
        }
        let costs: Vec<Estimate> = args.iter().map(|arg| self.cost(*arg)).collect();
        let given: Vec<Arg> = args.iter().map(|arg| self.arg(*arg)).collect();
        let Some((_, overloads)) = self.checked.calls.get(&id) else {
            return fixed(0);
        };
        let mut sum = fixed(0);
        let target = target.map(|target| {
            sum = sum.plus(self.cost(target));
            self.arg(target)
        });
        let mut total = Estimate {
            least: u64::MAX,
            most: 0,
        };
        let mut result: Option<Estimate> = None;
        for overload in overloads {
            let (cost, size) = self.one(id, function, overload, target.as_ref(), &given, &costs);
            total = total.or(cost);
            result = match (result, size) {
                (Some(a), Some(b)) => Some(a.or(b)),
                (a, b) => a.or(b),
            };
            if let ("index_list" | "index_map", Some(of)) = (*overload, args.first()) {
                result = self.entries_of(*of).map(|entries| entries.value);
                let mut path = self.path(*of).unwrap_or_default();
                path.push(if *overload == "index_list" { "@items" } else { "@values" }.to_owned());
                self.paths.insert(id, path);
            }
            if result.is_none() {
                result = self.size(id);
            }
        }
        if let Some(size) = result {
            self.sizes.insert(id, size);
        }
        sum.plus(total)
    }

    /// What one overload costs with its arguments, and the size of its result.
    fn one(
        &mut self,
        id: Id,
        function: &str,
        overload: &str,
        target: Option<&Arg>,
        args: &[Arg],
        costs: &[Estimate],
    ) -> (Estimate, Option<Estimate>) {
        let all = costs.iter().fold(fixed(0), |sum, cost| sum.plus(*cost));
        if let Some((cost, size)) = self.extension(function, overload, target, args) {
            return (cost.plus(all), size);
        }
        let size = |arg: &Arg| arg.size.unwrap_or(UNKNOWN);
        match (overload, target, args) {
            ("string_format", Some(target), _) => (size(target).by(PER_CHARACTER).plus(all), None),
            ("string_to_bytes", None, [text]) => {
                let length = size(text);
                let bytes = Estimate {
                    least: length.least,
                    most: length.most.wrapping_mul(4),
                };
                (length.by(PER_CHARACTER).plus(all), Some(bytes))
            }
            ("bytes_to_string", None, [bytes]) => {
                let length = size(bytes);
                let text = Estimate {
                    least: length.least / 4,
                    most: length.most,
                };
                (length.by(PER_CHARACTER).plus(all), Some(text))
            }
            ("strings_quote", None, [text]) => {
                let length = size(text);
                let quoted = Estimate {
                    least: length.least + 2,
                    most: length.most.wrapping_mul(2).wrapping_add(2),
                };
                (length.by(PER_CHARACTER).plus(all), Some(quoted))
            }
            ("starts_with_string" | "ends_with_string", _, [part]) => (size(part).by(PER_CHARACTER).plus(all), None),
            ("in_list", None, [_, list]) => (size(list).plus(all), None),
            ("matches_string", Some(target), [pattern]) => {
                let text = size(target).plus(fixed(1)).by(PER_CHARACTER);
                (text.times(size(pattern).by(PER_PATTERN_CHARACTER)).plus(all), None)
            }
            ("contains_string", Some(target), [part]) => {
                let text = size(target).by(PER_CHARACTER);
                (text.times(size(part).by(PER_CHARACTER)).plus(all), None)
            }
            ("logical_or" | "logical_and", _, _) => {
                let (left, right) = (costs[0], costs[1]);
                let cost = Estimate {
                    least: left.least,
                    most: left.plus(right).most,
                };
                (cost, None)
            }
            ("conditional", _, [_, yes, no]) => {
                let sum = size(yes).or(size(no));
                if let (Some(a), Some(b)) = (self.entries_of(yes.id), self.entries_of(no.id)) {
                    self.entries.insert(id, join(a, b));
                }
                (costs[0].plus(costs[1].or(costs[2])), Some(sum))
            }
            ("add_string" | "add_bytes" | "add_list", _, [left, right]) => {
                let sum = size(left).plus(size(right));
                if let (Some(a), Some(b)) = (self.entries_of(left.id), self.entries_of(right.id)) {
                    self.entries.insert(id, join(a, b));
                }
                let own = if overload == "add_list" {
                    fixed(1)
                } else {
                    sum.by(PER_CHARACTER)
                };
                (own.plus(all), Some(sum))
            }
            ("equals" | "not_equals", _, [left, right]) => (compare(size(left), size(right)).plus(all), None),
            (overload, _, [left, right]) if is_ordering(overload) => (compare(size(left), size(right)).plus(all), None),
            _ => (fixed(1).plus(all), None),
        }
    }

    /// Sizes as the libraries see them: unknown to the tree, perhaps known to the shapes.
    fn known(&self, arg: &Arg) -> Estimate {
        arg.size
            .or_else(|| self.allowed(arg.path.as_deref()?))
            .unwrap_or(UNKNOWN)
    }

    /// The elements of a list: their type, and how long they may be.
    fn element(&self, list: &Arg) -> Option<(Type, Estimate)> {
        let of = match self.ty(list.id) {
            Type::List(of) => (**of).clone(),
            Type::Map(of) => of.0.clone(),
            other => other.unwrap_optional()?.clone(),
        };
        let size = list.path.as_ref().and_then(|path| {
            let mut path = path.clone();
            path.push("@items".into());
            self.allowed(&path)
        });
        Some((of, size.unwrap_or(UNKNOWN)))
    }

    fn whole(&self, id: Id, otherwise: u64) -> u64 {
        match self.kind(id) {
            Kind::Literal(Literal::Int(number)) => (*number).max(0) as u64,
            _ => otherwise,
        }
    }
}

fn join(a: Entries, b: Entries) -> Entries {
    Entries {
        list: a.list,
        key: a.key.or(b.key),
        value: a.value.or(b.value),
    }
}

fn compare(left: Estimate, right: Estimate) -> Estimate {
    let most = left.most.min(right.most);
    Estimate {
        least: u64::from(most > 0),
        most,
    }
    .by(PER_CHARACTER)
}
