//! What a stock kube-apiserver keeps in an older version than the one it serves, brought into the newer one.
//!
//! Of the kinds here that is CustomResourceDefinition alone: Kubernetes 1.36 still stores it as v1beta1, so that old
//! servers could read it. Both versions are described under "CustomResourceDefinition versioning" in its documentation.

use serde_json::{Map, Value};

const OLD: &str = "apiextensions.k8s.io/v1beta1";

/// Whether documents of this version need [`upgrade`].
pub(crate) fn is_old(api_version: &str) -> bool {
    api_version == OLD
}

/// A v1beta1 definition as v1: what it says once of all versions is said of each, and the webhook lies in one place.
pub(crate) fn upgrade(definition: &mut Value) {
    definition["apiVersion"] = "apiextensions.k8s.io/v1".into();
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let version = spec.remove("version");
    let common: Vec<(&str, Value)> = [
        ("validation", "schema"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ]
    .into_iter()
    .filter_map(|(old, new)| Some((new, spec.remove(old)?)))
    .collect();
    // Before there were several versions there was one, by its name alone.
    if let (Some(Value::String(name)), None) = (version, spec.get("versions")) {
        let only = serde_json::json!([{"name": name, "served": true, "storage": true}]);
        spec.insert("versions".into(), only);
    }
    let versions = spec.get_mut("versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten().filter_map(Value::as_object_mut) {
        for (name, value) in &common {
            version.entry(*name).or_insert_with(|| value.clone());
        }
        let columns = version
            .get_mut("additionalPrinterColumns")
            .and_then(Value::as_array_mut);
        for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(path) = column.remove("JSONPath") {
                column.insert("jsonPath".into(), path);
            }
        }
    }
    // In v1 it is left out when it is false.
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        let config = conversion.remove("webhookClientConfig");
        let versions = conversion.remove("conversionReviewVersions");
        let webhook: Map<String, Value> = [("clientConfig", config), ("conversionReviewVersions", versions)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.filter(|v| !v.is_null())?)))
            .collect();
        if webhook.contains_key("clientConfig") {
            conversion.insert("webhook".into(), webhook.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_of_old_says_the_same_in_the_new_version() {
        let mut definition = json!({
            "apiVersion": OLD, "kind": "CustomResourceDefinition",
            "spec": {
                "group": "example.com", "version": "v1", "preserveUnknownFields": false,
                "validation": {"openAPIV3Schema": {"type": "object"}},
                "additionalPrinterColumns": [{"name": "Legs", "type": "integer", "JSONPath": ".spec.legs"}],
                "versions": [
                    {"name": "v1", "served": true, "storage": true},
                    {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "string"}}},
                ],
                "conversion": {
                    "strategy": "Webhook", "conversionReviewVersions": ["v1"],
                    "webhookClientConfig": {"url": "https://x"},
                },
            },
        });
        upgrade(&mut definition);
        let columns = json!([{"name": "Legs", "type": "integer", "jsonPath": ".spec.legs"}]);
        assert_eq!(
            definition,
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "spec": {
                    "group": "example.com",
                    "versions": [
                        {
                            "name": "v1", "served": true, "storage": true, "additionalPrinterColumns": columns,
                            "schema": {"openAPIV3Schema": {"type": "object"}},
                        },
                        {
                            "name": "v2", "served": true, "storage": false, "additionalPrinterColumns": columns,
                            "schema": {"openAPIV3Schema": {"type": "string"}},
                        },
                    ],
                    "conversion": {
                        "strategy": "Webhook",
                        "webhook": {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v1"]},
                    },
                },
            })
        );
        let mut oldest = json!({"apiVersion": OLD, "spec": {"version": "v1"}});
        upgrade(&mut oldest);
        assert_eq!(
            oldest["spec"],
            json!({"versions": [{"name": "v1", "served": true, "storage": true}]})
        );
    }
}
