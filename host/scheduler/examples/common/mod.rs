//! The cluster that the scheduler's benches place pods in, and its policies as components.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{GroupResource, Gvk, Object, ObjectKey};
use plugin::{Grants, Host, Load, Plugin, PluginName, Revision, World as Wanted};
use scheduler::world::World;
use serde_json::{Value, json};

/// The chain, in the order in which they are asked.
pub const POLICIES: [&str; 2] = ["scheduler-default", "scheduler-binpack"];
/// Pods that are on each node already.
pub const PODS_A_NODE: usize = 10;
pub const DEPLOYMENTS: usize = 40;
const ZONES: usize = 3;

/// The first argument, or where `cargo xtask guests` puts components.
pub fn guests() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests");
    std::env::args().nth(1).map_or_else(built, PathBuf::from)
}

/// A revision of a policy in the folder of guests, with this configuration.
pub async fn load(host: &Arc<Host>, plugin: &Plugin, config: String) -> Arc<Revision> {
    let file = guests().join(format!("{}.wasm", plugin.name().as_str()));
    let component =
        std::fs::read(&file).unwrap_or_else(|_| panic!("{}: `cargo xtask guests` builds it", file.display()));
    let revision = host.load(Load {
        name: plugin.name().clone(),
        component: component.into(),
        config: config.into(),
        grants: Grants::All,
        limits: None,
        world: Wanted::Policy,
        figures: plugin.figures().clone(),
    });
    revision.await.expect("it loads")
}

/// Each of [`POLICIES`], serving.
pub async fn plugins(host: &Arc<Host>) -> Vec<Arc<Plugin>> {
    let mut plugins = Vec::new();
    for name in POLICIES {
        let plugin = Plugin::new(PluginName::new(name));
        plugin.swap(load(host, &plugin, "{}".into()).await);
        plugins.push(plugin);
    }
    plugins
}

/// [`PODS_A_NODE`] pods for each of `nodes` nodes, each with its node: ten Deployments on each node, other ones on the next, so
/// that every zone has as many pods of each, give or take a few.
pub fn pods_there(nodes: usize) -> impl Iterator<Item = (Value, usize)> {
    (0..nodes * PODS_A_NODE).map(move |n| {
        let (on, nth) = (n % nodes, n / nodes);
        (pod(n, (on * PODS_A_NODE + nth) % DEPLOYMENTS), on)
    })
}

/// The nodes, and the pods that are there.
pub fn world(nodes: usize) -> World {
    let mut world = World::default();
    for n in 0..nodes {
        world.put_node(&object(&node(n))).expect("a node");
    }
    for (pod, on) in pods_there(nodes) {
        let there = object(&pod);
        world.know_object(&there).expect("a pod");
        world.assume(&there.uid, &node_name(on), false);
    }
    world
}

pub fn say(bench: &str, what: &str, value: f64, unit: &str) {
    let value = (value * 1e3).round() / 1e3;
    println!(
        "{}",
        json!({"bench": bench, "what": what, "value": value, "unit": unit})
    );
}

pub fn node_name(n: usize) -> String {
    format!("node-{n}")
}

/// The `n`th node's document.
pub fn node(n: usize) -> Value {
    let name = node_name(n);
    let labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": format!("zone-{}", n % ZONES),
    });
    let allocatable = json!({"cpu": "32", "memory": "128Gi", "ephemeral-storage": "200Gi", "pods": "110"});
    let meta = json!({"name": name, "uid": format!("{n:032x}"), "labels": labels});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"allocatable": allocatable}})
}

/// A replica of a Deployment: every fifth Deployment spreads over zones, and of those every second insists.
pub fn pod(n: usize, deployment: usize) -> Value {
    let app = format!("app-{deployment}");
    let requests =
        json!({"cpu": format!("{}m", 100 + 50 * (deployment % 4)), "memory": format!("{}Mi", 128 << (deployment % 3))});
    let mut spec = json!({"containers": [{"name": "app", "image": app, "resources": {"requests": requests}}]});
    if deployment.is_multiple_of(5) {
        let insists = deployment.is_multiple_of(10);
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": if insists { "DoNotSchedule" } else { "ScheduleAnyway" },
            "labelSelector": {"matchLabels": {"app": app}},
        }]);
    }
    // Uids of pods and nodes are apart, as everywhere.
    let meta = json!({"name": format!("{app}-{n}"), "namespace": "default", "uid": format!("1{n:031x}"), "labels": {"app": app}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
}

/// A document as the registry would hand it to the scheduler.
pub fn object(value: &Value) -> Object {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let kind = text("/kind");
    let resource = GroupResource::new("", &format!("{}s", kind.to_lowercase()));
    let key = ObjectKey::new(resource, text("/metadata/namespace"), text("/metadata/name"));
    Object::from_value(Arc::new(Gvk::new("", "v1", kind)), key, value).expect("an object")
}
