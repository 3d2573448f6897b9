//! ConfigMap: plain data for pods. Data is text, binaryData base64; together at most 1 MiB.

use model::Cause;
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::common::{data_keys, immutable_data};
use crate::table::{Column, at};

pub(crate) fn resource() -> Resource {
    let count = |object: &Value, _| {
        let len = |path| {
            at(object, path)
                .and_then(Value::as_object)
                .map_or(0, serde_json::Map::len)
        };
        (len("data") + len("binaryData")).into()
    };
    Resource::namespaced("", "v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .no_generation()
        .columns(vec![
            Column::counted("Data", count).about("The number of entries."),
            Column::age(),
        ])
        .validate(validate)
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    data_keys(new, &["binaryData", "data"], wrong);
    immutable_data(new, old, &["data", "binaryData"], wrong);
}
