//! Defaults hold what their schema knows of, and fit it.

use model::{Cause, CauseReason};
use serde_json::Value;

use super::{members, sub};
use crate::custom::compile;
use crate::form::Type;
use crate::laws::{Before, Court};
use crate::{rules, schema};

pub(super) fn check_defaults(schema: &Value, path: &str, root: bool, budget: &mut i64, causes: &mut Vec<Cause>) {
    let default = schema.get("default").filter(|default| !default.is_null());
    if let Some(default) = default {
        let mut own = schema.clone();
        if let (true, Some(members)) = (root, own.as_object_mut()) {
            members.insert("x-kubernetes-embedded-resource".into(), true.into());
        }
        if let Ok((form, id)) = compile(&own, false) {
            let of = Type { form: &form, id };
            let field = format!("{path}.default");
            let mut pruned = default.clone();
            schema::prune(of, &mut pruned);
            if pruned != *default {
                causes.push(Cause::invalid(&field, default, "must not have unknown fields"));
            }
            let mut wrong = Vec::new();
            rules::check(of, default, None, "", &mut wrong);
            if wrong.is_empty() {
                let mut court = Court::new(&mut wrong);
                court.budget = *budget;
                let before = Before {
                    value: None,
                    held: false,
                };
                court.check(of, default, before, "");
                *budget = court.budget;
            }
            causes.extend(wrong.into_iter().map(|cause| below(&field, cause)));
        }
    }
    if let Some(items) = sub(schema, "items") {
        check_defaults(items, &format!("{path}.items"), false, budget, causes);
    }
    for (name, property) in members(schema) {
        check_defaults(property, &format!("{path}.properties[{name}]"), false, budget, causes);
    }
}

/// A complaint about a default, told where the default stands.
fn below(field: &str, cause: Cause) -> Cause {
    let at = match cause.field.as_str() {
        "" | "<nil>" => field.to_owned(),
        inner if inner.starts_with('[') => format!("{field}{inner}"),
        inner => format!("{field}.{inner}"),
    };
    let message = match cause.reason {
        CauseReason::Required => "Required value".to_owned(),
        _ => cause.message,
    };
    Cause {
        reason: cause.reason,
        field: at,
        message,
    }
}
