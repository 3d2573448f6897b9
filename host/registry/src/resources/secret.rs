//! Secret: data that is not for everybody. `stringData` is written as text and kept in `data` as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::Cause;
use serde_json::Value;

use crate::meta;
use crate::resource::Resource;
use crate::resources::common::{child, data_keys, default, immutable, immutable_data};
use crate::table::{Column, at, text_at};

/// Keys that a type of Secret must have. The list form: any one of them will do.
const KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
];

pub(crate) fn resource() -> Resource {
    let count = |o: &Value, _| {
        at(o, "data")
            .and_then(Value::as_object)
            .map_or(0, serde_json::Map::len)
            .into()
    };
    Resource::namespaced("", "v1", "Secret", "secrets")
        .no_generation()
        .columns(vec![
            Column::text_or("Type", "type", "").about("Used to facilitate programmatic handling of secret data."),
            Column::counted("Data", count).about("The number of entries."),
            Column::age(),
        ])
        .selectable(&["type"])
        .prepare(prepare)
        .validate(validate)
}

fn prepare(new: &mut Value, _old: Option<&Value>) {
    default(new, "type", "Opaque");
    let Some(Value::Object(texts)) = new.get_mut("stringData").map(Value::take) else {
        return meta::put(new, "stringData", None);
    };
    meta::put(new, "stringData", None);
    let data = child(new, "data");
    for (key, text) in texts {
        data[key] = BASE64.encode(text.as_str().unwrap_or_default()).into();
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    data_keys(new, &["data"], wrong);
    immutable_data(new, old, &["data"], wrong);
    immutable(new, old, "type", wrong);
    let kind = text_at(new, "type");
    let has = |key: &str| new["data"].get(key).is_some();
    for (of, keys) in KEYS {
        if kind == *of {
            for key in keys.iter().filter(|k| !has(k)) {
                wrong.push(Cause::required(format!("data[{key}]"), ""));
            }
        }
    }
    match kind {
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].iter().filter(|k| !has(k)) {
                wrong.push(Cause::required(format!("data[{key}]"), ""));
            }
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            for key in ["username", "password"] {
                wrong.push(Cause::required(format!("data[{key}]"), ""));
            }
        }
        "kubernetes.io/service-account-token" => {
            let name = new["metadata"]["annotations"]["kubernetes.io/service-account.name"]
                .as_str()
                .unwrap_or_default();
            if name.is_empty() {
                wrong.push(Cause::required(
                    "metadata.annotations[kubernetes.io/service-account.name]",
                    "",
                ));
            }
        }
        _ => {}
    }
    // What is inside is never shown.
    for key in [".dockercfg", ".dockerconfigjson"]
        .into_iter()
        .filter(|_| kind.starts_with("kubernetes.io/docker"))
    {
        let Some(text) = new["data"].get(key).and_then(Value::as_str) else {
            continue;
        };
        let bytes = BASE64.decode(text).unwrap_or_default();
        if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
            let shown = "\"<secret contents redacted>\"";
            wrong.push(Cause::invalid(format!("data[{key}]"), shown, &error.to_string()));
        }
    }
}
