//! Checks a plugin's configuration against the schema it declares.

use serde_json::Value;

/// # Errors
/// One sentence for each thing that is wrong, with its place: `spec.config.weight: must be at most 100`.
pub(crate) fn check(schema: &str, config: &str) -> Result<(), String> {
    let config: Value = serde_json::from_str(config).map_err(|error| format!("spec.config is not JSON: {error}"))?;
    if schema.is_empty() {
        let empty = config.is_null() || config.as_object().is_some_and(serde_json::Map::is_empty);
        return if empty {
            Ok(())
        } else {
            Err("spec.config must be empty: this plugin takes none".into())
        };
    }
    let schema: Value = serde_json::from_str(schema).map_err(|error| {
        format!("the plugin declares a schema that is not JSON ({error}); this is for its author to mend")
    })?;
    let mut wrong = Vec::new();
    walk(&schema, &config, "spec.config", &mut wrong);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

/// The keywords that Kubernetes' structural schemas have for values of one type; others are left to the plugin itself.
fn walk(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let says = |wrong: &mut Vec<String>, what: String| wrong.push(format!("{at}: {what}"));
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if let Some(wanted) = schema["type"].as_str()
        && !is_a(value, wanted)
    {
        return says(wrong, format!("must be of type {wanted}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        return says(wrong, format!("must be one of {}", list.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            says(wrong, format!("must be at least {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            says(wrong, format!("must be at most {most}"));
        }
    }
    if let Some(length) = value.as_str().map(|text| text.chars().count() as u64) {
        if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            says(wrong, format!("must have at least {least} characters"));
        }
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            says(wrong, format!("must have at most {most} characters"));
        }
    }
    if let Some(list) = value.as_array() {
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| list.len() as u64 > *most) {
            says(wrong, format!("must have at most {most} items"));
        }
        for (index, item) in list.iter().enumerate() {
            walk(&schema["items"], item, &format!("{at}[{index}]"), wrong);
        }
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !object.contains_key(name) {
                wrong.push(format!("{at}.{name}: is required"));
            }
        }
        let (known, others) = (&schema["properties"], &schema["additionalProperties"]);
        for (name, member) in object {
            match known.get(name) {
                Some(schema) => walk(schema, member, &format!("{at}.{name}"), wrong),
                None if others.is_object() => walk(others, member, &format!("{at}.{name}"), wrong),
                // Strict where the schema lists members: a misspelt setting should not pass in silence.
                None if known.is_object() && *others != true => {
                    wrong.push(format!("{at}.{name}: is not a setting of this plugin"))
                }
                None => {}
            }
        }
    }
}

fn is_a(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"object","required":["mode"],"properties":{
        "mode":{"type":"string","enum":["spread","pack"]},
        "weight":{"type":"integer","minimum":1,"maximum":100},
        "zones":{"type":"array","items":{"type":"string","minLength":1}},
        "labels":{"type":"object","additionalProperties":{"type":"string"}}}}"#;

    #[test]
    fn says_what_is_wrong_and_where() {
        for (config, says) in [
            (r#"{"mode":"pack","weight":5,"zones":["a"],"labels":{"x":"y"}}"#, ""),
            ("{}", "spec.config.mode: is required"),
            (
                r#"{"mode":"stack"}"#,
                r#"spec.config.mode: must be one of "spread", "pack""#,
            ),
            (
                r#"{"mode":"pack","weight":101}"#,
                "spec.config.weight: must be at most 100",
            ),
            (
                r#"{"mode":"pack","weight":1.5}"#,
                "spec.config.weight: must be of type integer",
            ),
            (
                r#"{"mode":"pack","zones":["a",""]}"#,
                "spec.config.zones[1]: must have at least 1 characters",
            ),
            (
                r#"{"mode":"pack","labels":{"x":1}}"#,
                "spec.config.labels.x: must be of type string",
            ),
            (
                r#"{"mode":"pack","wieght":1}"#,
                "spec.config.wieght: is not a setting of this plugin",
            ),
            ("[]", "spec.config: must be of type object"),
        ] {
            assert_eq!(check(SCHEMA, config).err().unwrap_or_default(), says, "{config}");
        }
    }

    #[test]
    fn a_plugin_without_schema_takes_nothing() {
        assert!(check("", "{}").is_ok() && check("", "null").is_ok());
        assert_eq!(
            check("", r#"{"a":1}"#).unwrap_err(),
            "spec.config must be empty: this plugin takes none"
        );
    }
}
