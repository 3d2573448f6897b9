//! Label selectors: from the form objects carry to the text that questions take.

use std::collections::BTreeMap;

use crate::{Error, Result, Value};

/// `metav1.LabelSelector` as text. An empty one selects everything; `null` is refused, as it selects nothing.
///
/// # Errors
/// `invalid`, with what is wrong.
pub fn text(selector: &Value) -> Result<String> {
    let Some(selector) = selector.as_object() else {
        return Err(Error::invalid("the object has no selector"));
    };
    let mut parts = Vec::new();
    for (key, value) in selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in selector
        .get("matchExpressions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            other => {
                return Err(Error::invalid(format!("{other:?} is not a selector's operator")));
            }
        });
    }
    Ok(parts.join(","))
}

/// Objects that carry all of these labels.
pub fn of_labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn says_in_text_what_the_object_says() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "zone", "operator": "Exists"},
                {"key": "env", "operator": "NotIn", "values": ["dev"]},
            ],
        });
        assert_eq!(
            text(&selector).unwrap(),
            "app=web,tier in (a,b),!old,zone,env notin (dev)"
        );
        assert_eq!(text(&json!({})).unwrap(), "");
        assert!(text(&Value::Null).is_err());
    }
}
