//! The macros: `has`, and what walks lists and maps, spread out into folds.

use crate::ast::{ACCU, Entry, Fold, Id, Kind, Literal};
use crate::parse::{Mistake, Parser};

type Spread = Option<Result<Id, Mistake>>;

/// What a bind gives a name to is walked not at all.
const UNUSED: &str = "#unused";
const SORTED: &str = "@__sortBy_input__";

pub(crate) fn global(p: &mut Parser, at: u32, name: &str, args: &[Id]) -> Spread {
    let ("has", [of]) = (name, args) else {
        return None;
    };
    Some(match p.tree.kind(*of).clone() {
        Kind::Select { of, field, test: false } => Ok(p.tree.push(at, Kind::Select { of, field, test: true })),
        _ => Err((place(p, *of), "invalid argument to has() macro".into())),
    })
}

fn place(p: &Parser, id: Id) -> u32 {
    p.tree.nodes[id as usize].at
}

pub(crate) fn method(p: &mut Parser, at: u32, name: &str, target: Id, args: &[Id]) -> Spread {
    let spread = match (name, args) {
        ("all" | "exists" | "exists_one", [var, predicate]) => quantify(p, at, name, target, (*var, None), *predicate),
        ("all" | "exists" | "exists_one" | "existsOne", [var, var2, predicate]) => {
            quantify(p, at, name, target, (*var, Some(*var2)), *predicate)
        }
        ("map", [var, value]) => gather(p, at, target, (*var, None), None, *value),
        ("map", [var, filter, value]) => gather(p, at, target, (*var, None), Some(*filter), *value),
        ("filter", [var, filter]) => {
            let value = match variable(p, *var) {
                Ok(name) => p.tree.push(place(p, *var), Kind::Name(name)),
                Err(mistake) => return Some(Err(mistake)),
            };
            gather(p, at, target, (*var, None), Some(*filter), value)
        }
        ("transformList", [var, var2, value]) => gather(p, at, target, (*var, Some(*var2)), None, *value),
        ("transformList", [var, var2, filter, value]) => {
            gather(p, at, target, (*var, Some(*var2)), Some(*filter), *value)
        }
        ("transformMap" | "transformMapEntry", [var, var2, value]) => {
            transform(p, at, name, target, (*var, *var2), None, *value)
        }
        ("transformMap" | "transformMapEntry", [var, var2, filter, value]) => {
            transform(p, at, name, target, (*var, *var2), Some(*filter), *value)
        }
        ("optMap" | "optFlatMap", [var, value]) => optional(p, at, name, target, *var, *value),
        ("sortBy", [var, key]) => sort_by(p, at, target, *var, *key),
        _ => return None,
    };
    Some(spread)
}

fn variable(p: &Parser, id: Id) -> Result<String, Mistake> {
    match p.tree.kind(id) {
        Kind::Name(name) if name == ACCU || name == "__result__" => Err((
            place(p, id),
            "iteration variable overwrites accumulator variable".into(),
        )),
        Kind::Name(name) => Ok(name.clone()),
        _ => Err((place(p, id), "argument must be a simple name".into())),
    }
}

fn variables(p: &Parser, (var, var2): (Id, Option<Id>)) -> Result<(String, Option<String>), Mistake> {
    let first = variable(p, var)?;
    let second = match var2 {
        Some(id) => Some((variable(p, id)?, id)),
        None => None,
    };
    if let Some((name, id)) = &second
        && *name == first
    {
        return Err((place(p, *id), format!("duplicate variable name: {name}")));
    }
    Ok((first, second.map(|(name, _)| name)))
}

/// Shorthand for building nodes at one place.
struct At<'p> {
    p: &'p mut Parser,
    at: u32,
}

impl At<'_> {
    fn literal(&mut self, literal: Literal) -> Id {
        self.p.tree.push(self.at, Kind::Literal(literal))
    }

    fn accu(&mut self) -> Id {
        self.name(ACCU)
    }

    fn name(&mut self, name: &str) -> Id {
        self.p.tree.push(self.at, Kind::Name(name.to_owned()))
    }

    fn call(&mut self, function: &'static str, args: Vec<Id>) -> Id {
        self.p.call(self.at, function, args)
    }

    fn method(&mut self, function: &'static str, target: Id) -> Id {
        let kind = Kind::Call {
            function: function.into(),
            target: Some(target),
            args: Vec::new(),
        };
        self.p.tree.push(self.at, kind)
    }

    fn fold(&mut self, fold: Fold) -> Id {
        self.p.tree.push(self.at, Kind::Fold(Box::new(fold)))
    }

    fn bind(&mut self, name: String, init: Id, result: Id) -> Id {
        let range = self.p.tree.push(self.at, Kind::List(Vec::new()));
        let condition = self.literal(Literal::Bool(false));
        let step = self.name(&name);
        self.fold(Fold {
            range,
            var: UNUSED.into(),
            var2: None,
            accu: name,
            init,
            condition,
            step,
            result,
            bind: true,
        })
    }
}

fn quantify(
    p: &mut Parser,
    at: u32,
    name: &str,
    range: Id,
    vars: (Id, Option<Id>),
    predicate: Id,
) -> Result<Id, Mistake> {
    let (var, var2) = variables(p, vars)?;
    let mut b = At { p, at };
    let (init, condition, step, result) = match name {
        "all" => {
            let init = b.literal(Literal::Bool(true));
            let accu = b.accu();
            let condition = b.call("@not_strictly_false", vec![accu]);
            let accu = b.accu();
            let step = b.call("_&&_", vec![accu, predicate]);
            (init, condition, step, b.accu())
        }
        "exists" => {
            let init = b.literal(Literal::Bool(false));
            let accu = b.accu();
            let not = b.call("!_", vec![accu]);
            let condition = b.call("@not_strictly_false", vec![not]);
            let accu = b.accu();
            let step = b.call("_||_", vec![accu, predicate]);
            (init, condition, step, b.accu())
        }
        _ => {
            let init = b.literal(Literal::Int(0));
            let condition = b.literal(Literal::Bool(true));
            let (accu, one) = (b.accu(), b.literal(Literal::Int(1)));
            let more = b.call("_+_", vec![accu, one]);
            let accu = b.accu();
            let step = b.call("_?_:_", vec![predicate, more, accu]);
            let (accu, one) = (b.accu(), b.literal(Literal::Int(1)));
            (init, condition, step, b.call("_==_", vec![accu, one]))
        }
    };
    Ok(b.fold(Fold {
        range,
        var,
        var2,
        accu: ACCU.into(),
        init,
        condition,
        step,
        result,
        bind: false,
    }))
}

fn gather(
    p: &mut Parser,
    at: u32,
    range: Id,
    vars: (Id, Option<Id>),
    filter: Option<Id>,
    value: Id,
) -> Result<Id, Mistake> {
    let (var, var2) = variables(p, vars)?;
    let mut b = At { p, at };
    let init = b.p.tree.push(at, Kind::List(Vec::new()));
    let item = b.p.tree.push(at, Kind::List(vec![(value, false)]));
    let accu = b.accu();
    let longer = b.call("_+_", vec![accu, item]);
    Ok(finish(b, range, (var, var2), init, filter, longer))
}

fn transform(
    p: &mut Parser,
    at: u32,
    name: &str,
    range: Id,
    (var, var2): (Id, Id),
    filter: Option<Id>,
    value: Id,
) -> Result<Id, Mistake> {
    let (var, var2) = variables(p, (var, Some(var2)))?;
    let mut b = At { p, at };
    let init = b.p.tree.push(at, Kind::Map(Vec::<Entry>::new()));
    let accu = b.accu();
    let larger = if name == "transformMap" {
        let key = b.name(&var);
        b.call("cel.@mapInsert", vec![accu, key, value])
    } else {
        b.call("cel.@mapInsert", vec![accu, value])
    };
    Ok(finish(b, range, (var, var2), init, filter, larger))
}

fn finish(
    mut b: At<'_>,
    range: Id,
    (var, var2): (String, Option<String>),
    init: Id,
    filter: Option<Id>,
    grown: Id,
) -> Id {
    let condition = b.literal(Literal::Bool(true));
    let step = match filter {
        Some(filter) => {
            let accu = b.accu();
            b.call("_?_:_", vec![filter, grown, accu])
        }
        None => grown,
    };
    let result = b.accu();
    b.fold(Fold {
        range,
        var,
        var2,
        accu: ACCU.into(),
        init,
        condition,
        step,
        result,
        bind: false,
    })
}

fn optional(p: &mut Parser, at: u32, name: &str, target: Id, var: Id, value: Id) -> Result<Id, Mistake> {
    let Kind::Name(var) = p.tree.kind(var).clone() else {
        return Err((
            place(p, var),
            format!("{name}() variable name must be a simple identifier"),
        ));
    };
    let mut b = At { p, at };
    let has = b.method("hasValue", target);
    let inner = b.method("value", target);
    let bound = b.bind(var, inner, value);
    let some = if name == "optMap" {
        b.call("optional.of", vec![bound])
    } else {
        bound
    };
    let none = b.call("optional.none", Vec::new());
    Ok(b.call("_?_:_", vec![has, some, none]))
}

fn sort_by(p: &mut Parser, at: u32, target: Id, var: Id, key: Id) -> Result<Id, Mistake> {
    let mut b = At { p, at };
    let list = b.name(SORTED);
    let keys = gather(b.p, at, list, (var, None), None, key)?;
    let list = b.name(SORTED);
    let sorted = b.p.tree.push(
        at,
        Kind::Call {
            function: "@sortByAssociatedKeys".into(),
            target: Some(list),
            args: vec![keys],
        },
    );
    Ok(b.bind(SORTED.into(), target, sorted))
}
