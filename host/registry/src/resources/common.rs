//! Rules that several kinds share.

use jiff::Timestamp;
use model::{Cause, text};
use serde_json::{Value, json};

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

/// The elements of the list at a key, to be changed.
pub(crate) fn each_mut<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    let list = object.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// A new object begins with an empty status.
pub(crate) fn born_with_status(new: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        new["status"] = json!({});
    }
}

/// The first `most`, and how many more there are.
pub(crate) fn some<T: AsRef<str>>(all: &[T], most: usize) -> String {
    let shown: Vec<&str> = all.iter().take(most).map(AsRef::as_ref).collect();
    match all.len() {
        n if n > most => format!("{} + {} more...", shown.join(","), n - most),
        _ => shown.join(","),
    }
}

/// What upstream says of an address that cannot be read.
pub(crate) const NOT_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// A path behind a domain: `acme.io/foo`.
pub(crate) fn domain_path(value: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let whole = value.as_str().unwrap_or_default();
    if whole.is_empty() {
        return wrong.push(Cause::required(field, ""));
    }
    let Some((domain, path)) = whole.split_once('/').filter(|(d, p)| !d.is_empty() && !p.is_empty()) else {
        let says = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return wrong.push(Cause::invalid(field, value, says));
    };
    for complaint in text::dns1123_subdomain(domain) {
        wrong.push(Cause::invalid(field, format!("{domain:?}"), &complaint));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(fits) {
        let says = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        wrong.push(Cause::invalid(field, format!("{path:?}"), says));
    }
}

/// `metav1.Condition`s: each complete, each type once.
pub(crate) fn conditions(list: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let mut seen: Vec<&Value> = Vec::new();
    for (i, condition) in list.as_array().into_iter().flatten().enumerate() {
        let mut at = crate::resources::check::At::new(condition, format!("{field}[{i}]"), wrong);
        if seen.contains(&&condition["type"]) {
            at.under("type").duplicate();
        }
        seen.push(&condition["type"]);
        at.under("type").fits(text::qualified_name);
        if !matches!(at.text("status"), "True" | "False" | "Unknown") {
            at.under("status").not_supported(&["False", "True", "Unknown"]);
        }
        if at.int("observedGeneration").is_some_and(|n| n < 0) {
            at.under("observedGeneration")
                .invalid("must be greater than or equal to zero");
        }
        if !at.has("lastTransitionTime") {
            at.under("lastTransitionTime").required("");
        }
        at.need_fit("reason", text::condition_reason);
    }
}

/// Puts a condition, told without its times, among those of a pod. It is as old as its `status` is.
pub(crate) fn put_condition(pod: &mut Value, mut condition: Value, now: Timestamp) {
    let conditions = child(child(pod, "status"), "conditions");
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    condition["lastProbeTime"] = Value::Null;
    condition["lastTransitionTime"] = model::time::seconds(now).into();
    match list.iter_mut().find(|held| held["type"] == condition["type"]) {
        Some(held) => {
            if held["status"] == condition["status"] {
                condition["lastTransitionTime"] = held["lastTransitionTime"].take();
            }
            *held = condition;
        }
        None => list.push(condition),
    }
}

/// Conditions of an object's status, of each type one.
pub(crate) fn unique_conditions(object: &Value, wrong: &mut Vec<Cause>) {
    let mut seen: Vec<&Value> = Vec::new();
    crate::resources::check::At::new(object, "", wrong).each("status.conditions", |mut condition| {
        let kind = &condition.value["type"];
        if seen.contains(&kind) {
            condition.under("type").duplicate();
        }
        seen.push(kind);
        condition.need("type", "");
    });
}
