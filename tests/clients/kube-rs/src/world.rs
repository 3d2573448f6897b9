//! What the steps share: the client, the namespace NAMESPACE, the image IMAGE, and ways to wait and to be refused.

use std::env;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::Api;
use kube::core::{NamespaceResourceScope, Status};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// For anything; the machines of CI are slow.
pub const LIMIT: Duration = Duration::from_secs(90);

pub struct World {
    pub client: Client,
    pub namespace: String,
    /// One static busybox; the cluster's runtime has it.
    pub image: String,
}

impl World {
    pub async fn open() -> Result<Self> {
        let named = |name| env::var(name).with_context(|| format!("{name} is not set"));
        let world = Self {
            client: Client::try_default().await?,
            namespace: named("NAMESPACE")?,
            image: named("IMAGE")?,
        };
        // Pods are refused until their account is there.
        let accounts: Api<ServiceAccount> = world.api();
        await_condition(accounts, "default", conditions::is_created()).await?;
        Ok(world)
    }

    /// A kind's objects in the namespace of this run.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// The object that the JSON says.
pub fn object<K: DeserializeOwned>(json: Value) -> Result<K> {
    serde_json::from_value(json.clone()).with_context(|| format!("{json}"))
}

pub fn config_map(name: &str, data: Value) -> Result<ConfigMap> {
    object(json!({"metadata": {"name": name, "labels": {"app": name}}, "data": data}))
}

/// The first data of a ConfigMap of that key.
pub fn datum<'a>(map: &'a ConfigMap, key: &str) -> Option<&'a str> {
    map.data.as_ref()?.get(key).map(String::as_str)
}

#[track_caller]
pub fn same<T: PartialEq<U> + Debug, U: Debug>(found: T, wanted: U) -> Result<()> {
    let at = std::panic::Location::caller();
    ensure!(found == wanted, "{at}: found {found:?}, wanted {wanted:?}");
    Ok(())
}

/// What a request was refused with, which must be this.
#[track_caller]
pub fn refused<T: Debug>(code: u16, reason: &str, answer: kube::Result<T>) -> Result<Status> {
    let at = std::panic::Location::caller();
    match answer {
        Err(kube::Error::Api(status)) if status.code == code && status.reason == reason => Ok(*status),
        other => bail!("{at}: {code} {reason} was expected, not {other:?}"),
    }
}

/// `REASON FIELD` of each cause.
pub fn causes(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .map(|cause| format!("{} {}", cause.reason, cause.field))
        .collect()
}
