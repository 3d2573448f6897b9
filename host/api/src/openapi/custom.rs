//! What CustomResourceDefinitions say about their kinds: found by name, and read only when a document is made of them.

use std::collections::HashMap;
use std::sync::Arc;

use auth::users;
use client::{Collection, ListOptions, ReadVersion};
use model::{Failure, Gvr, Kind, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::App;

/// All CRDs by name, which is `PLURAL.GROUP`.
#[derive(Default)]
pub(super) struct Schemas(HashMap<String, Arc<Object>>);

/// From the watch cache.
///
/// # Errors
/// Those of a list; a cluster that serves no CRDs has none.
pub(super) async fn read(app: &App) -> Result<Schemas, Failure> {
    let all = Collection::all(Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions"));
    let options = ListOptions {
        version: ReadVersion::Any,
        ..ListOptions::default()
    };
    match app.cluster.list(&users::api_server(), &all, &options).await {
        Ok(list) => {
            let named = |object: Arc<Object>| (object.key.name.to_string(), object);
            Ok(Schemas(list.items.into_iter().map(named).collect()))
        }
        Err(Failure::NoSuchResource { .. }) => Ok(Schemas::default()),
        Err(failure) => Err(failure),
    }
}

impl Schemas {
    fn find(&self, kind: &Kind) -> Option<&Arc<Object>> {
        self.0.get(&format!("{}.{}", kind.plural, kind.gvk.group))
    }

    /// Changes with the CRD; `None` for what is built in.
    pub(super) fn fingerprint(&self, kind: &Kind) -> Option<String> {
        self.find(kind)
            .map(|definition| format!("{}/{}", definition.uid, definition.version))
    }

    /// `openAPIV3Schema` of the kind's version.
    pub(super) fn schema(&self, kind: &Kind) -> Option<Value> {
        #[derive(Deserialize)]
        struct Document {
            spec: Spec,
        }
        #[derive(Deserialize)]
        struct Spec {
            #[serde(default)]
            versions: Vec<Version>,
        }
        #[derive(Deserialize)]
        struct Version {
            name: String,
            #[serde(default)]
            schema: Schema,
        }
        #[derive(Default, Deserialize)]
        struct Schema {
            #[serde(default, rename = "openAPIV3Schema")]
            open_api: Option<Value>,
        }
        let Document { spec } = self.find(kind)?.parse::<Document>().ok()?;
        let version = spec.versions.into_iter().find(|v| v.name == kind.gvk.version)?;
        version.schema.open_api
    }
}
