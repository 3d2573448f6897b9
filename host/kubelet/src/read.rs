//! Reads of the cluster on behalf of pods: ConfigMaps, Secrets, tokens, Services. All as the node's own user.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use client::{Action, Cluster, Collection, ListOptions, Outcome, ReadVersion, Target, Write, WriteOptions};
use jiff::Timestamp;
use model::{Caller, Failure, Gvr};
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct Reader {
    pub cluster: Arc<dyn Cluster>,
    pub caller: Caller,
}

/// A ConfigMap's or Secret's keys.
pub(crate) type Keys = BTreeMap<String, Vec<u8>>;

impl Reader {
    /// `None` if it does not exist.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Keys>, Failure> {
        let Some(object) = self.get("configmaps", namespace, name).await? else {
            return Ok(None);
        };
        let mut keys = Keys::new();
        for (key, value) in object["data"].as_object().into_iter().flatten() {
            keys.insert(key.clone(), value.as_str().unwrap_or_default().into());
        }
        keys.extend(decoded(&object["binaryData"])?);
        Ok(Some(keys))
    }

    /// `None` if it does not exist.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Keys>, Failure> {
        match self.get("secrets", namespace, name).await? {
            Some(object) => Ok(Some(decoded(&object["data"])?)),
            None => Ok(None),
        }
    }

    async fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>, Failure> {
        let target = Target::new(Gvr::new("", "v1", resource), namespace, name);
        match self.cluster.get(&self.caller, &target, ReadVersion::Latest).await {
            Ok(object) => Ok(Some(object.value())),
            Err(Failure::NotFound(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub async fn services(&self, namespace: &str) -> Result<Vec<Value>, Failure> {
        let of = Collection {
            gvr: Gvr::new("", "v1", "services"),
            namespace: Some(namespace.into()),
        };
        let options = ListOptions {
            version: ReadVersion::Any,
            ..ListOptions::default()
        };
        let list = self.cluster.list(&self.caller, &of, &options).await?;
        Ok(list.items.iter().map(|o| o.value()).collect())
    }

    /// A token of the pod's service account, bound to the pod (KEP-1205), and when it expires.
    pub async fn token(
        &self,
        pod: &crate::pod::spec::Pod,
        audience: &str,
        seconds: u64,
    ) -> Result<(String, Timestamp), Failure> {
        let meta = &pod.metadata;
        let account = match pod.spec.service_account_name.as_str() {
            "" => "default",
            name => name,
        };
        let audiences: Vec<&str> = if audience.is_empty() {
            Vec::new()
        } else {
            vec![audience]
        };
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
            },
        });
        let gvr = Gvr::new("", "v1", "serviceaccounts");
        let target = Target::new(gvr, &meta.namespace, account).subresource("token");
        let body = serde_json::to_vec(&request).map_err(Failure::internal)?;
        let write = Write {
            target,
            action: Action::Create(body.into()),
            options: WriteOptions::default(),
        };
        let Outcome::Document { json, .. } = self.cluster.write(&self.caller, write).await?.outcome else {
            return Err(Failure::Internal("a TokenRequest was not answered by one".into()));
        };
        let answer: Value = serde_json::from_slice(&json).map_err(Failure::internal)?;
        let token = answer["status"]["token"].as_str().unwrap_or_default().to_owned();
        let expires = answer["status"]["expirationTimestamp"].as_str().unwrap_or_default();
        Ok((token, model::time::parse(expires)?))
    }
}

fn decoded(data: &Value) -> Result<Keys, Failure> {
    let mut keys = Keys::new();
    for (key, value) in data.as_object().into_iter().flatten() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
        keys.insert(key.clone(), bytes.map_err(Failure::internal)?);
    }
    Ok(keys)
}
