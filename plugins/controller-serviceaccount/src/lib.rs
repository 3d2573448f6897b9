//! Gives every namespace its `default` account, and the certificate by which pods know the API server.

use std::collections::BTreeMap;

use sdk::controller::{PatchFormat, Precondition};
use sdk::{Fields, ObjectKey, Outcome, View, json};
use serde::Deserialize;

const ACCOUNT: &str = "v1/ServiceAccount";
const CONFIG_MAP: &str = "v1/ConfigMap";
const ROOT_CA: &str = "kube-root-ca.crt";

#[derive(Fields)]
struct Namespace {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
}

#[derive(Fields)]
struct Published {
    #[at(".metadata.uid")]
    uid: String,
    #[at(".data")]
    data: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    /// PEM. Empty: no certificate is published.
    root_ca: String,
}

const SCHEMA: &str =
    r#"{"type": "object", "properties": {"rootCa": {"type": "string"}}, "additionalProperties": false}"#;

#[sdk::controller(
    of = "v1/Namespace",
    asks = ["get namespaces", "get create serviceaccounts", "get create patch configmaps"],
    config = SCHEMA,
)]
fn reconcile(namespace: Namespace, view: &View) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    if namespace.deleting {
        return Ok(outcome);
    }
    if view.get::<()>(ACCOUNT, &namespace.name, "default")?.is_none() {
        let metadata = json!({"name": "default", "namespace": namespace.name});
        outcome.create(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    }
    let Config { root_ca } = sdk::config()?;
    if root_ca.is_empty() {
        return Ok(outcome);
    }
    let data = json!({"ca.crt": root_ca});
    match view.get::<Published>(CONFIG_MAP, &namespace.name, ROOT_CA)? {
        None => outcome.create(&json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": ROOT_CA,
                "namespace": namespace.name,
                "annotations": {"kubernetes.io/description": "Contains the certificate by which pods know the API server."},
            },
            "data": data,
        })),
        Some(published) if published.data.get("ca.crt") != Some(&root_ca) => {
            let key = ObjectKey::new(CONFIG_MAP, &namespace.name, ROOT_CA);
            outcome.patch(key, PatchFormat::Merge, &json!({"data": data}), "", Precondition::Uid(published.uid));
        }
        Some(_) => {}
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
