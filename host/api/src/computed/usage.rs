//! `metrics.k8s.io`: what nodes and pods use at present, as metrics-server tells it (`kubectl top`, autoscalers).
//!
//! Whatever nothing is known of is left out of lists, and not found by its name.

use std::sync::Arc;
use std::time::Duration;

use auth::users;
use axum::response::Response;
use client::usage::{PodUsed, Usages, Used};
use client::{Collection, ListOptions, ReadVersion, Target};
use http::request;
use jiff::Timestamp;
use model::time::seconds;
use model::{Failure, FieldSelector, Format, GroupResource, Gvk, Gvr, Kind, Object, ObjectKey, Quantity, Scope, Verb};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::options;
use crate::path::Addressed;
use crate::tables::Printer;
use crate::verbs::Doing;

pub(super) const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    Node,
    Pod,
}

impl Measured {
    pub(super) const ALL: [Measured; 2] = [Measured::Node, Measured::Pod];

    fn gvk(self) -> Gvk {
        let kind = match self {
            Measured::Node => "NodeMetrics",
            Measured::Pod => "PodMetrics",
        };
        Gvk::new(GROUP, VERSION, kind)
    }

    /// Of the objects whose use is told, and of what tells it.
    fn plural(self) -> &'static str {
        match self {
            Measured::Node => "nodes",
            Measured::Pod => "pods",
        }
    }

    fn measured(self) -> Gvr {
        Gvr::new("", "v1", self.plural())
    }
}

pub(super) fn kind(measured: Measured) -> Kind {
    Kind {
        gvk: measured.gvk(),
        plural: measured.plural().into(),
        // As metrics-server has it: clients make it of the kind (`kubectl get podmetrics`).
        singular: "".into(),
        scope: match measured {
            Measured::Node => Scope::Cluster,
            Measured::Pod => Scope::Namespaced,
        },
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: vec![Verb::Get, Verb::List],
        subresources: Vec::new(),
        stored: None,
    }
}

pub(super) fn of(gvr: &Gvr) -> Option<Measured> {
    let named = |measured: &Measured| gvr.resource == measured.plural();
    Measured::ALL.into_iter().filter(|_| gvr.version == VERSION).find(named)
}

/// # Errors
/// `BadRequest` for a selector that cannot be read, `NotFound` for what is not there and for what nothing is known of.
pub(super) async fn answer(doing: &Doing<'_>, measured: Measured, parts: &request::Parts) -> Result<Response, Failure> {
    // Who may know what is used need not be one who may read the objects.
    let (at, cluster, server) = (doing.at, &*doing.app.cluster, users::api_server());
    if !at.name.is_empty() {
        let target = Target::new(measured.measured(), &at.namespace, &at.name);
        let found = client::find(cluster, &server, &target).await?;
        let object = found.ok_or_else(|| Failure::NotFound(key(measured.measured().group_resource(), at)))?;
        let usages = doing.app.meter.read().await?;
        let made = document(measured, &object, &usages, Timestamp::now())?;
        return super::object(
            doing,
            parts,
            made.ok_or_else(|| Failure::NotFound(nothing_known(measured, at)))?,
        );
    }
    let asked = options::list(&doing.query)?;
    let fields = selector(&asked.fields)?;
    let of = Collection {
        gvr: measured.measured(),
        namespace: (!at.namespace.is_empty()).then(|| at.namespace.clone()),
    };
    let options = ListOptions {
        labels: asked.labels,
        version: ReadVersion::Any,
        ..ListOptions::default()
    };
    let mut objects = cluster.list(&server, &of, &options).await?.items;
    objects.retain(|object| selects(&fields, &object.key));
    let usages = doing.app.meter.read().await?;
    let now = Timestamp::now();
    let made = objects
        .iter()
        .map(|object| document(measured, object, &usages, now).transpose());
    let items = made
        .flatten()
        .map(|made| made.map(Arc::new))
        .collect::<Result<_, _>>()?;
    super::list(doing, parts, items).await
}

fn key(of: GroupResource, at: &Addressed) -> ObjectKey {
    ObjectKey::new(of, &at.namespace, &at.name)
}

/// In metrics-server's words: `podmetrics.metrics.k8s.io "default/web" not found`.
fn nothing_known(measured: Measured, at: &Addressed) -> ObjectKey {
    let name = match measured {
        Measured::Node => at.name.clone(),
        Measured::Pod => format!("{}/{}", at.namespace, at.name),
    };
    ObjectKey::new(
        GroupResource::new(GROUP, &measured.gvk().kind.to_lowercase()),
        "",
        &name,
    )
}

/// # Errors
/// `BadRequest` in kube-apiserver's words for another field than those every object has.
fn selector(fields: &str) -> Result<FieldSelector, Failure> {
    let selector = FieldSelector::parse(fields)?;
    let known = |field: &&str| matches!(*field, "metadata.name" | "metadata.namespace");
    if let Some(field) = selector.fields().find(|field| !known(field)) {
        return Err(Failure::BadRequest(format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )));
    }
    Ok(selector)
}

fn selects(fields: &FieldSelector, key: &ObjectKey) -> bool {
    fields.matches_with(|field| match field {
        "metadata.name" => Some(&key.name),
        "metadata.namespace" => Some(&key.namespace),
        _ => None,
    })
}

/// `NodeMetrics` or `PodMetrics` of an object; `None` if nothing is known.
fn document(measured: Measured, of: &Object, usages: &Usages, now: Timestamp) -> Result<Option<Object>, Failure> {
    let key = &of.key;
    let (window, mut document) = match measured {
        Measured::Node => match usages.node(&key.name) {
            Some(used) => ((used.at, used.window), json!({"usage": usage(&used)})),
            None => return Ok(None),
        },
        Measured::Pod => match usages.pod(&key.namespace, &key.name) {
            Some(used) if is_of(&used, of)? => (used.window(), json!({"containers": containers(&used)})),
            Some(_) | None => return Ok(None),
        },
    };
    let gvk = measured.gvk();
    document["kind"] = gvk.kind.as_str().into();
    document["apiVersion"] = gvk.api_version().into();
    document["metadata"] = json!({"name": key.name, "creationTimestamp": seconds(now)});
    if !key.namespace.is_empty() {
        document["metadata"]["namespace"] = key.namespace.as_str().into();
    }
    if !of.labels.is_empty() {
        document["metadata"]["labels"] = of.labels.iter().collect();
    }
    document["timestamp"] = seconds(window.0).into();
    document["window"] = duration(window.1).into();
    let key = ObjectKey::new(GroupResource::new(GROUP, measured.plural()), &key.namespace, &key.name);
    Object::from_value(Arc::new(gvk), key, &document).map(Some)
}

/// Whether it was this pod that used it, and not one before it of the same name.
fn is_of(used: &PodUsed, pod: &Object) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Pod {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        creation_timestamp: Timestamp,
    }
    let created = pod.parse::<Pod>()?.metadata.creation_timestamp;
    Ok(used.containers.iter().all(|(_, used)| used.at - used.window >= created))
}

fn containers(used: &PodUsed) -> Vec<Value> {
    let one = |(name, used): &(_, Used)| json!({"name": name, "usage": usage(used)});
    used.containers.iter().map(one).collect()
}

/// A `ResourceList`. Bytes are told in Ki where they are whole pages, as the kernel counts them.
fn usage(used: &Used) -> Value {
    let most = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
    let cpu = Quantity::from_nanos(most(used.cpu));
    let memory = Quantity::from_whole(most(used.memory), Format::Binary);
    json!({"cpu": cpu.to_string(), "memory": memory.to_string()})
}

fn duration(window: Duration) -> String {
    schema::duration::write(i64::try_from(window.as_nanos()).unwrap_or(i64::MAX))
}

/// Those of metrics-server: the sums over a pod's containers.
pub(super) struct Columns;

impl Printer for Columns {
    fn definitions(&self) -> Vec<Value> {
        let column = |name: &str, format: &str, says: &str| json!({"name": name, "type": "string", "format": format, "description": says, "priority": 0});
        vec![
            column("Name", "name", "Name of the resource"),
            column("cpu", "quantity", ""),
            column("memory", "quantity", ""),
            column("Window", "duration", ""),
        ]
    }

    fn row(&self, object: &Object) -> Vec<Value> {
        let document = object.value();
        let containers = document["containers"].as_array().map_or(&[][..], Vec::as_slice);
        let parts = || std::iter::once(&document).chain(containers);
        let sum = |resource: &str| {
            let figures = parts().filter_map(|part| Quantity::parse(part["usage"][resource].as_str()?).ok());
            figures.fold(Quantity::ZERO, |sum, figure| sum + figure).to_string()
        };
        vec![
            object.key.name.as_str().into(),
            sum("cpu").into(),
            sum("memory").into(),
            document["window"].clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_selected_by() {
        let key = ObjectKey::new(GroupResource::new("", "pods"), "default", "web");
        for (fields, selected) in [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name=web,metadata.namespace!=default", false),
            ("metadata.namespace=other", false),
        ] {
            assert_eq!(selects(&selector(fields).unwrap(), &key), selected, "{fields}");
        }
        assert_eq!(
            selector("spec.nodeName=n1").unwrap_err().to_string(),
            "\"spec.nodeName\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }

    fn used(cpu: u64, memory: u64) -> Used {
        Used {
            cpu,
            memory,
            at: Timestamp::UNIX_EPOCH,
            window: Duration::from_millis(15_250),
        }
    }

    #[test]
    fn figures_are_written_as_metrics_server_writes_them() {
        for (cpu, memory, written) in [
            (0, 0, ("0", "0")),
            (1_234_567, 4096, ("1234567n", "4Ki")),
            (250_000_000, 1 << 20, ("250m", "1Mi")),
            (2_000_000_000, 5 << 30, ("2", "5Gi")),
            (12_345_000, 1025, ("12345u", "1025")),
            (u64::MAX, 1, ("9223372036854775807n", "1")),
        ] {
            assert_eq!(
                usage(&used(cpu, memory)),
                json!({"cpu": written.0, "memory": written.1})
            );
        }
        assert_eq!(duration(Duration::from_millis(15_250)), "15.25s");
        assert_eq!(duration(Duration::from_secs(60)), "1m0s");
    }

    #[test]
    fn a_row_sums_the_containers() {
        let row = |document: Value| {
            let key = ObjectKey::new(GroupResource::new(GROUP, "pods"), "default", "web");
            let object = Object::from_value(Arc::new(Measured::Pod.gvk()), key, &document).unwrap();
            Columns.row(&object)
        };
        let web = PodUsed {
            containers: vec![("a".into(), used(1_000_000, 4096)), ("b".into(), used(500_000, 8192))],
        };
        let metadata = json!({"name": "web"});
        assert_eq!(
            row(json!({"metadata": metadata, "window": "15.25s", "containers": containers(&web)})),
            ["web", "1500u", "12Ki", "15.25s"]
        );
        assert_eq!(
            row(json!({"metadata": metadata, "window": "2s", "usage": usage(&used(2_000_000_000, 0))})),
            ["web", "2", "0", "2s"]
        );
    }
}
