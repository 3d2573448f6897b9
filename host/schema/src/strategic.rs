//! Strategic merge patch: JSON merge that knows which lists are merged by which key.
//!
//! Source of the rules: "Strategic Merge Patch" of the API conventions (sig-api-machinery) and apimachinery's behaviour for
//! the four directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…` and `$setElementOrder/…`.

use model::Failure;
use serde_json::{Map, Value};

use crate::Schema;
use crate::form::{Merge, REPLACE, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER_OF: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// `target` with `patch` merged in. On a failure `target` is as it was.
///
/// # Errors
/// [`Failure::BadRequest`] for a patch that is no object, an unknown directive, or an element without its merge key.
pub fn merge(schema: &Schema, target: &mut Value, patch: &Value) -> Result<(), Failure> {
    let Value::Object(patch) = patch else {
        return Err(Failure::BadRequest("the patch is not a JSON object".into()));
    };
    let original = target.as_object().cloned().unwrap_or_default();
    *target = Value::Object(objects(Some(schema.root()), original, patch.clone())?);
    Ok(())
}

fn objects(of: Option<Type<'_>>, mut original: Object, mut patch: Object) -> Result<Object, Failure> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => return Ok(patch),
        Some(Value::String(directive)) if directive == "delete" => return Ok(Object::new()),
        Some(other) => {
            return Err(Failure::BadRequest(format!("unknown patch type {other} in an object")));
        }
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(of, &mut original, &mut patch)?;
    for (key, value) in patch {
        if let Some(key) = key.strip_prefix(DELETE_FROM) {
            delete_primitives(&mut original, key, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let below = of.and_then(|of| of.under(&key));
        let replaces = of
            .and_then(|of| of.member(&key))
            .is_some_and(|member| member.has(REPLACE));
        let merged = match (original.remove(&key), value) {
            (_, value) if replaces => value,
            (Some(Value::Object(has)), Value::Object(wants)) => Value::Object(objects(below, has, wants)?),
            (Some(Value::Array(has)), Value::Array(wants)) => Value::Array(lists(below, has, wants)?),
            (_, value) => plain(value),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// What is new is taken without its directives and nulls.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            if members.get(PATCH).and_then(Value::as_str) == Some("delete") {
                return Value::Object(Object::new());
            }
            let directive = |key: &str| {
                key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ORDER_OF)
            };
            let kept = members
                .into_iter()
                .filter(|(key, value)| !directive(key) && !value.is_null());
            kept.map(|(key, value)| (key, plain(value))).collect::<Object>().into()
        }
        Value::Array(list) => {
            let special = |value: &Value| value.get(PATCH).is_some();
            list.into_iter()
                .filter(|value| !special(value))
                .map(plain)
                .collect::<Vec<_>>()
                .into()
        }
        scalar => scalar,
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Failure> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let wrong = || {
        Failure::BadRequest(format!(
            "invalid patch format of {RETAIN_KEYS}: it must be a list of all keys that are to stay"
        ))
    };
    let Value::Array(keys) = directive else {
        return Err(wrong());
    };
    let keys: Option<Vec<&str>> = keys.iter().map(Value::as_str).collect();
    let keys = keys.ok_or_else(wrong)?;
    if patch
        .iter()
        .any(|(key, value)| !key.starts_with('$') && !value.is_null() && !keys.contains(&key.as_str()))
    {
        return Err(wrong());
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

fn delete_primitives(original: &mut Object, key: &str, gone: &Value) -> Result<(), Failure> {
    let Some(gone) = gone.as_array() else {
        return Err(Failure::BadRequest(format!("{DELETE_FROM}{key} must be a list")));
    };
    if let Some(Value::Array(list)) = original.get_mut(key) {
        list.retain(|value| !gone.contains(value));
    }
    Ok(())
}

/// Lists whose order the patch sets are merged here, and then put in that order.
fn ordered_lists(of: Option<Type<'_>>, original: &mut Object, patch: &mut Object) -> Result<(), Failure> {
    let orders: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER_OF)).cloned().collect();
    for directive in orders {
        let key = &directive[ORDER_OF.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(Failure::BadRequest(format!("{directive} must be a list")));
        };
        let below = of.and_then(|of| of.under(key));
        let merge_key = match below.and_then(Type::merge) {
            Some(Merge::By(key)) => Some(key),
            _ => None,
        };
        let wants = match patch.remove(key) {
            Some(Value::Array(list)) => Some(list),
            None => None,
            Some(other) => {
                // Removed or replaced by something that is no list: the order has nothing to say.
                patch.insert(key.to_owned(), other);
                continue;
            }
        };
        // The elements of the patch must stand in the order the directive names them.
        let mut rest = order.iter();
        for element in wants.iter().flatten().filter(|element| element.get(PATCH).is_none()) {
            if !rest.any(|o| same(o, element, merge_key)) {
                let says = format!(
                    "The order in patch list doesn't match {directive} list: {element} is out of place or not in it"
                );
                return Err(Failure::BadRequest(says));
            }
        }
        let has = match original.get(key) {
            Some(Value::Array(list)) => Some(list.clone()),
            _ => None,
        };
        let merged = match (has.clone(), wants) {
            (Some(has), None) => has,
            (None, Some(wants)) => plain(Value::Array(wants)).as_array().cloned().unwrap_or_default(),
            (Some(has), Some(wants)) => lists(below, has, wants)?,
            (None, None) => continue,
        };
        let sorted = put_in_order(merged, &order, &has.unwrap_or_default(), merge_key);
        original.insert(key.to_owned(), Value::Array(sorted));
    }
    Ok(())
}

fn lists(of: Option<Type<'_>>, has: Vec<Value>, wants: Vec<Value>) -> Result<Vec<Value>, Failure> {
    let (Some(of), Some(strategy)) = (of, of.and_then(Type::merge)) else {
        return Ok(plain(Value::Array(wants)).as_array().cloned().unwrap_or_default());
    };
    let Merge::By(key) = strategy else {
        let mut merged = has.clone();
        merged.extend(wants.iter().cloned());
        let mut seen: Vec<Value> = Vec::new();
        merged.retain(|value| {
            !seen.contains(value) && {
                seen.push(value.clone());
                true
            }
        });
        return Ok(put_in_order(merged, &wants, &has, None));
    };
    let (mut merged, wants) = directives(has, wants, key)?;
    let server_order = merged.clone();
    for want in &wants {
        let Value::Object(members) = want else {
            return Err(Failure::BadRequest(format!(
                "{want} is not an object, as the elements of a list merged by {key:?} are"
            )));
        };
        let name = members.get(key).ok_or_else(|| no_merge_key(want, key))?;
        match merged.iter_mut().find(|element| element.get(key) == Some(name)) {
            Some(Value::Object(element)) => *element = objects(of.item(), std::mem::take(element), members.clone())?,
            _ => merged.push(plain(want.clone())),
        }
    }
    Ok(put_in_order(merged, &wants, &server_order, Some(key)))
}

/// Carries out `$patch` elements: what remains of both lists.
fn directives(mut has: Vec<Value>, wants: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let mut rest = Vec::new();
    let mut replace = false;
    for want in wants {
        match want.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => rest.push(want),
            Some("delete") => {
                let name = want.get(key).ok_or_else(|| no_merge_key(&want, key))?;
                has.retain(|element| element.get(key) != Some(name));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Failure::BadRequest(
                    "merging lists cannot yet be specified in the patch".into(),
                ));
            }
            Some(other) => {
                return Err(Failure::BadRequest(format!("unknown patch type \"{other}\" in a list")));
            }
        }
    }
    if replace {
        Ok((rest.into_iter().map(plain).collect(), Vec::new()))
    } else {
        Ok((has, rest))
    }
}

fn no_merge_key(element: &Value, key: &str) -> Failure {
    Failure::BadRequest(format!("map: {element} does not contain declared merge key: {key}"))
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

/// Elements named in `order` in that order; the others keep the places they had among them in `before`.
fn put_in_order(merged: Vec<Value>, order: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |list: &[Value], value: &Value| list.iter().position(|other| same(other, value, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|value| place(order, value).is_some());
    named.sort_by_key(|value| place(order, value));
    others.sort_by_key(|value| place(before, value));
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return sorted,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(name)) => {
                matches!((place(before, other), place(before, name)), (Some(a), Some(b)) if a < b)
            }
        };
        sorted.extend(if other_first { others.next() } else { named.next() });
    }
}
