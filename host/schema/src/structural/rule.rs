//! One rule of `x-kubernetes-validations` without compiling it, and how complaints show it.

use model::Cause;
use serde_json::Value;

use super::{REASONS, field_path, list, text};

/// What can be said of rules without compiling them.
pub(super) fn rule_texts(schema: &Value, path: &str, wrong: &mut Vec<Cause>) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (i, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        let at = |key: &str| format!("{path}.x-kubernetes-validations[{i}].{key}");
        let (source, message) = (text(rule, "rule").trim(), text(rule, "message"));
        let shown = |text: &str| Value::from(text).to_string();
        if source.is_empty() {
            wrong.push(Cause::required(at("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            wrong.push(Cause::invalid(
                at("message"),
                shown(message),
                "must be non-empty if specified",
            ));
        } else if breaks(message.trim()) {
            wrong.push(Cause::invalid(
                at("message"),
                shown(message),
                "must not contain line breaks",
            ));
        } else if breaks(source) && message.trim().is_empty() {
            wrong.push(Cause::required(
                at("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        let expression = text(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let says = "messageExpression must be non-empty if specified";
            wrong.push(Cause::required(at("messageExpression"), says));
        }
        if let Some(reason) = rule
            .get("reason")
            .filter(|r| !r.is_null() && !REASONS.iter().any(|known| r == known))
        {
            wrong.push(Cause::not_supported(at("reason"), reason, &REASONS));
        }
        let field = text(rule, "fieldPath");
        if !field.is_empty() {
            if field.trim().is_empty() {
                wrong.push(Cause::invalid(
                    at("fieldPath"),
                    shown(field),
                    "must be non-empty if specified",
                ));
            }
            if breaks(field) {
                wrong.push(Cause::invalid(
                    at("fieldPath"),
                    shown(field),
                    "must not contain line breaks",
                ));
            }
            if field_path(schema, field, true).is_err() {
                wrong.push(Cause::invalid(at("fieldPath"), shown(field), "must be a valid path"));
            }
        }
    }
}

/// The rule as upstream's complaints print it.
pub(super) fn shown(rule: &Value) -> String {
    let quoted = |key: &str| {
        let text = Value::from(text(rule, key)).to_string();
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    };
    let or_null = |key: &str| rule.get(key).unwrap_or(&Value::Null).to_string();
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        quoted("rule"),
        quoted("message"),
        quoted("messageExpression"),
        or_null("reason"),
        quoted("fieldPath"),
        or_null("optionalOldSelf")
    )
}

pub(super) fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
