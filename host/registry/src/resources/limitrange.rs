//! LimitRange: what containers, pods and claims of a namespace may ask for, and what they get when they do not ask.

use model::{Cause, Quantity, text};
use serde_json::{Map, Value};

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default, each_mut};
use crate::table::{Column, plain};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "LimitRange", "limitranges")
        .short(&["limits"])
        .no_generation()
        .columns(vec![Column::created_at()])
        .prepare(|new, _| {
            for item in each_mut(child(new, "spec"), "limits") {
                fill_in(item);
            }
        })
        .create_on_update()
        .validate(validate)
}

/// A container's default is its maximum, its default request its default, or else the minimum.
fn fill_in(item: &mut Value) {
    if item["type"] != "Container" {
        return;
    }
    let amounts = |item: &Value, key: &str| item[key].as_object().cloned().unwrap_or_default();
    let max = amounts(item, "max");
    let to = child(item, "default");
    max.into_iter().for_each(|(name, amount)| default(to, &name, amount));
    for from in ["default", "min"] {
        let from = amounts(item, from);
        let to = child(item, "defaultRequest");
        from.into_iter().for_each(|(name, amount)| default(to, &name, amount));
    }
    for key in ["default", "defaultRequest"] {
        if item[key].as_object().is_some_and(Map::is_empty) {
            crate::meta::put(item, key, None);
        }
    }
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut kinds: Vec<&str> = Vec::new();
    At::new(new, "", wrong).each("spec.limits", |mut item| {
        let kind = item.text("type");
        item.under("type").fits(|kind| {
            let complaints = text::qualified_name(kind);
            if complaints.is_empty()
                && !kind.contains('/')
                && !matches!(kind, "Container" | "Pod" | "PersistentVolumeClaim")
            {
                return vec!["must be a standard limit type or fully qualified".into()];
            }
            complaints
        });
        if kinds.contains(&kind) {
            item.under("type").duplicate();
        }
        kinds.push(kind);
        limits(&mut item, kind);
    });
}

fn limits(item: &mut At<'_, '_>, kind: &str) {
    for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        item.entries(key, |_, mut amount| amount.must_be_quantity());
    }
    if kind == "Pod" {
        for key in ["default", "defaultRequest"] {
            if item.value[key].as_object().is_some_and(|m| !m.is_empty()) {
                item.under(key).forbidden("may not be specified when `type` is 'Pod'");
            }
        }
    }
    let amount = |key: &str, name: &str| {
        let text = item.value[key].get(name).map(plain)?;
        Some((Quantity::parse(&text).ok()?, text))
    };
    let mut names: Vec<&String> = ["max", "min", "default", "defaultRequest"]
        .iter()
        .filter_map(|key| item.value[key].as_object())
        .flat_map(Map::keys)
        .collect();
    names.sort();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let mut above = |low: &str, high: &str, words: (&str, &str)| {
            if let (Some((a, a_text)), Some((b, b_text))) = (amount(low, name), amount(high, name))
                && a > b
            {
                let says = format!("{} {a_text} is greater than {} {b_text}", words.0, words.1);
                // The one that was filled in is named, and the limits themselves only among themselves.
                let (field, shown) = match (low, high) {
                    ("min", "max") => (low, a_text),
                    ("min", high) => (high, b_text),
                    (low, _) => (low, a_text),
                };
                found.push((format!("{field}[{name}]"), shown, says));
            }
        };
        above("min", "max", ("min value", "max value"));
        above("min", "defaultRequest", ("min value", "default request value"));
        above("defaultRequest", "max", ("default request value", "max value"));
        above(
            "defaultRequest",
            "default",
            ("default request value", "default limit value"),
        );
        above("min", "default", ("min value", "default value"));
        above("default", "max", ("default value", "max value"));
    }
    for (field, shown, says) in found {
        let cause = Cause::invalid(item.path_of(&field), format!("{shown:?}"), &says);
        item.push(cause);
    }
}
