//! Lists: cel-go's extension and Kubernetes' own.

use std::cmp::Ordering;

use super::{Answer, standard};
use crate::eval::{Fault, Machine};
use crate::value::{List, Val};

type M<'a, 'v> = Machine<'a, 'v>;

fn list<'v, 'a>(val: &'v Val<'a>) -> Result<&'v List<'a>, Fault> {
    match val {
        Val::List(list) => Ok(list),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn set_contains<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(holds(list(&args[0])?, list(&args[1])?)))
}

fn holds<'a>(all: &List<'a>, some: &List<'a>) -> bool {
    some.iter().all(|item| item.is_ok_and(|item| all.has(&item)))
}

pub(super) fn set_equivalent<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (a, b) = (list(&args[0])?, list(&args[1])?);
    Ok(Val::Bool(holds(a, b) && holds(b, a)))
}

pub(super) fn set_intersects<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (a, b) = (list(&args[0])?, list(&args[1])?);
    Ok(Val::Bool(a.iter().any(|item| item.is_ok_and(|item| b.has(&item)))))
}

pub(super) fn slice<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let items = list(&args[0])?;
    let (Val::Int(start), Val::Int(end)) = (&args[1], &args[2]) else {
        return Err(Fault::no_overload());
    };
    let length = items.len() as i64;
    if *start < 0 || *end < 0 {
        return Err(Fault::new(format!(
            "cannot slice({start}, {end}), negative indexes not supported"
        )));
    }
    if start > end {
        return Err(Fault::new(format!(
            "cannot slice({start}, {end}), start index must be less than or equal to end index"
        )));
    }
    if length < *end {
        return Err(Fault::new(format!(
            "cannot slice({start}, {end}), list is length {length}"
        )));
    }
    let items = (*start..*end).filter_map(|at| items.get(at as usize));
    Ok(Val::list(items.collect::<Result<_, _>>()?))
}

pub(super) fn flatten<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let depth = match args.get(1) {
        None => 1,
        Some(Val::Int(depth)) if *depth >= 0 => *depth,
        Some(Val::Int(_)) => return Err(Fault::new("level must be non-negative")),
        Some(_) => return Err(Fault::no_overload()),
    };
    let mut flat = Vec::new();
    spread(list(&args[0])?, depth, &mut flat)?;
    Ok(Val::list(flat))
}

fn spread<'a>(items: &List<'a>, depth: i64, into: &mut Vec<Val<'a>>) -> Result<(), Fault> {
    for item in items.iter() {
        match item? {
            Val::List(inner) if depth > 0 => spread(&inner, depth - 1, into)?,
            item => into.push(item),
        }
    }
    Ok(())
}

/// Longer ranges would cost more than any call may.
const LONGEST: i64 = 1_000_000;

pub(super) fn range<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let Val::Int(count) = &args[0] else {
        return Err(Fault::no_overload());
    };
    if *count > LONGEST {
        return Err(Fault {
            message: "operation cancelled: actual cost limit exceeded".into(),
            over: true,
        });
    }
    Ok(Val::list((0..*count).map(Val::Int).collect()))
}

pub(super) fn reverse<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let mut items = list(&args[0])?.all()?;
    items.reverse();
    Ok(Val::list(items))
}

pub(super) fn distinct<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let mut items: Vec<Val<'a>> = Vec::new();
    for item in list(&args[0])?.all()? {
        if !items.iter().any(|had| had.equals(&item)) {
            items.push(item);
        }
    }
    Ok(Val::list(items))
}

pub(super) fn sort<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let items = list(&args[0])?.all()?;
    sorted(items.iter().cloned().zip(items.iter().cloned()).collect())
}

pub(super) fn sort_by_keys<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (items, keys) = (list(&args[0])?.all()?, list(&args[1])?.all()?);
    sorted(keys.into_iter().zip(items).collect())
}

fn sorted<'a>(mut items: Vec<(Val<'a>, Val<'a>)>) -> Answer<'a> {
    let first = items.first().map(|(key, _)| key.ty());
    if items.iter().any(|(key, _)| Some(key.ty()) != first) {
        return Err(Fault::new("list elements must have the same type"));
    }
    if items.first().is_some_and(|(key, _)| key.compare(key).is_none()) {
        return Err(Fault::new("list elements must be comparable"));
    }
    items.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(Ordering::Equal));
    Ok(Val::list(items.into_iter().map(|(_, item)| item).collect()))
}

pub(super) fn is_sorted<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let items = list(&args[0])?.all()?;
    for pair in items.windows(2) {
        if pair[0].compare(&pair[1]).ok_or_else(Fault::no_overload)? == Ordering::Greater {
            return Ok(Val::Bool(false));
        }
    }
    Ok(Val::Bool(true))
}

pub(super) fn sum<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let mut items = list(&args[0])?.all()?.into_iter();
    // The sum of nothing is 0 of whatever kind; which one cannot be told any more.
    let Some(first) = items.next() else {
        return Ok(Val::Int(0));
    };
    items.try_fold(first, |sum, item| standard::plus(&sum, &item))
}

fn extreme<'a>(args: &[Val<'a>], name: &str, wanted: Ordering) -> Answer<'a> {
    let mut best: Option<Val<'a>> = None;
    for item in list(&args[0])?.all()? {
        best = Some(match best {
            None => item,
            Some(had) if item.compare(&had).ok_or_else(Fault::no_overload)? == wanted => item,
            Some(had) => had,
        });
    }
    best.ok_or_else(|| Fault::new(format!("{name} called on empty list")))
}

pub(super) fn min<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    extreme(args, "min", Ordering::Less)
}

pub(super) fn max<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    extreme(args, "max", Ordering::Greater)
}

pub(super) fn first<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    optional(list(&args[0])?.get(0))
}

pub(super) fn last<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let items = list(&args[0])?;
    optional(items.len().checked_sub(1).and_then(|at| items.get(at)))
}

fn optional<'a>(item: Option<Answer<'a>>) -> Answer<'a> {
    match item {
        Some(item) => Ok(Val::some(item?)),
        None => Ok(Val::Optional(None)),
    }
}

pub(super) fn unwrap<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let mut items = Vec::new();
    for item in list(&args[0])?.all()? {
        match item {
            Val::Optional(Some(inner)) => items.push((*inner).clone()),
            Val::Optional(None) => {}
            _ => return Err(Fault::no_overload()),
        }
    }
    Ok(Val::list(items))
}
