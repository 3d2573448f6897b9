//! What CustomResourceDefinitions say about their kinds, as they say it.

use std::collections::HashMap;
use std::sync::Arc;

use auth::users;
use client::{Collection, ListOptions, ReadVersion};
use model::{Failure, Gvk, Gvr, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::App;

pub(super) type Schemas = HashMap<Gvk, One>;

pub(super) struct One {
    /// `openAPIV3Schema`.
    pub(super) schema: Value,
    /// Changes with the CRD.
    pub(super) fingerprint: String,
}

/// All served versions of all CRDs, from the watch cache.
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
        Ok(list) => Ok(list.items.iter().flat_map(kinds).collect()),
        Err(Failure::NoSuchResource { .. }) => Ok(Schemas::new()),
        Err(failure) => Err(failure),
    }
}

fn kinds(definition: &Arc<Object>) -> Vec<(Gvk, One)> {
    #[derive(Deserialize)]
    struct Document {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        group: String,
        names: Names,
        #[serde(default)]
        versions: Vec<Version>,
    }
    #[derive(Deserialize)]
    struct Names {
        kind: String,
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
        open_api: Value,
    }
    let Ok(Document { spec }) = definition.parse::<Document>() else {
        return Vec::new();
    };
    let fingerprint = format!("{}/{}", definition.uid, definition.version);
    let of = |version: Version| {
        let gvk = Gvk::new(&spec.group, &version.name, &spec.names.kind);
        (
            gvk,
            One {
                schema: version.schema.open_api,
                fingerprint: fingerprint.clone(),
            },
        )
    };
    spec.versions.into_iter().map(of).collect()
}
