//! Rules that several kinds share.

use model::Cause;
use serde_json::Value;

use crate::names::config_map_key;

/// ConfigMaps and Secrets hold at most this much, keys and values together.
const DATA_LIMIT: usize = 1024 * 1024;

/// Keys of data maps: they become file names. No key may be in two of the maps.
pub(crate) fn data_keys(object: &Value, maps: &[&str], wrong: &mut Vec<Cause>) {
    let mut size = 0;
    let mut seen: Vec<&str> = Vec::new();
    for map in maps {
        for (key, value) in object.get(map).and_then(Value::as_object).into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            let field = format!("{map}[{key}]");
            for complaint in config_map_key(key) {
                wrong.push(Cause::invalid(field.clone(), format!("{key:?}"), &complaint));
            }
            if seen.contains(&key.as_str()) {
                let says = format!("duplicate of key present in {}", maps[0]);
                wrong.push(Cause::invalid(field, format!("{key:?}"), &says));
            }
            seen.push(key);
        }
    }
    if size > DATA_LIMIT {
        wrong.push(Cause::too_long("", DATA_LIMIT));
    }
}

/// `immutable: true` cannot be taken back, and what is immutable does not change.
pub(crate) fn immutable_data(new: &Value, old: Option<&Value>, maps: &[&str], wrong: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return;
    };
    let says = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        wrong.push(Cause::forbidden("immutable", says));
    }
    for map in maps {
        if new.get(map) != old.get(map) {
            wrong.push(Cause::forbidden(*map, says));
        }
    }
}

/// Refuses a change of the value at a dotted path.
pub(crate) fn immutable(new: &Value, old: Option<&Value>, path: &str, wrong: &mut Vec<Cause>) {
    let Some(old) = old else { return };
    let (new, old) = (crate::table::at(new, path), crate::table::at(old, path));
    if new != old {
        wrong.push(Cause::invalid(path, new.unwrap_or(&Value::Null), "field is immutable"));
    }
}

/// A number at `path` that may not be below zero.
pub(crate) fn not_negative(object: &Value, path: &str, wrong: &mut Vec<Cause>) {
    if let Some(number) = crate::table::at(object, path)
        .and_then(Value::as_i64)
        .filter(|n| *n < 0)
    {
        wrong.push(Cause::invalid(path, number, "must be greater than or equal to 0"));
    }
}

/// Sets a member of an object where there is none.
pub(crate) fn default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(key).is_none_or(Value::is_null)
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// The member as an object, made where it is missing.
pub(crate) fn child<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    default(object, key, Value::Object(Default::default()));
    &mut object[key]
}
