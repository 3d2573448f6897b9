//! Little stories of nodes and pods (`tests/cases/scheduler/*.txt`): what happens, `run`, and where every pod went then.
//!
//! `BLESS=1` rewrites the answers. Policies run natively here; the end-to-end tests run the same stories on the components.

mod native;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use model::{GroupResource, Gvk, Object, ObjectKey};
use scheduler::Dice;
use scheduler::place::{Chain, Placement};
use scheduler::policy::Policy;
use scheduler::world::World;
use serde_json::{Value, json};

use native::Native;

#[tokio::test]
async fn stories() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cases/scheduler"));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let before = std::fs::read_to_string(&file).unwrap();
        let after = tell(&before).await;
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, after).unwrap();
        } else if after != before {
            wrong.push(format!("{}:\n{after}", file.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "these stories end otherwise now (BLESS=1 rewrites them):\n{}",
        wrong.join("\n")
    );
}

/// Tells a story again with the answers of today.
async fn tell(text: &str) -> String {
    let mut story = Story::new();
    let mut out = String::new();
    for scene in text.split("\n\n").filter(|scene| !scene.trim().is_empty()) {
        let events = scene.split("\n----").next().unwrap_or_default();
        if !out.is_empty() {
            out.push('\n');
        }
        for line in events.lines().filter(|line| !line.is_empty()) {
            writeln!(out, "{line}").unwrap();
            story.happen(line).await;
        }
        writeln!(out, "----\n{}", story.told.drain(..).collect::<String>()).unwrap();
        while out.ends_with("\n\n") {
            out.pop();
        }
    }
    out
}

struct Story {
    world: World,
    chain: Chain,
    dice: Dice,
    pods: BTreeMap<String, (Arc<Object>, Option<String>)>,
    told: String,
}

impl Story {
    fn new() -> Self {
        let chain = Chain::new(vec![Box::new(Native::<scheduler_default::DefaultPolicy>::new(
            "default", 1,
        ))]);
        Self {
            world: World::default(),
            chain,
            dice: Dice::new(1),
            pods: BTreeMap::new(),
            told: String::new(),
        }
    }

    async fn happen(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["#", ..] => {}
            ["policies", names @ ..] => self.chain = Chain::new(names.iter().map(|name| policy(name)).collect()),
            ["node", name, what @ ..] => self.world.put_node(&node(name, what)).unwrap(),
            ["lose", name] => self.world.remove_node(name),
            ["remove", name] => {
                let (object, _) = self.pods.remove(*name).expect("a pod of the story");
                self.world.remove_pod(&object.uid);
            }
            ["pods", name, count, what @ ..] => {
                let count: usize = count.trim_start_matches('x').parse().expect("x3");
                for n in 0..count {
                    let pod = pod(name, n, what);
                    self.pods.insert(pod.key.name.to_string(), (pod, None));
                }
            }
            ["run"] => self.run().await,
            _ => panic!("a story does not know: {line}"),
        }
    }

    async fn run(&mut self) {
        // A pod whose node is gone is waiting again, as if its controller had made it anew.
        for (object, node) in self.pods.values_mut() {
            if node
                .as_ref()
                .is_some_and(|n| !self.world.slot(n).is_some_and(|s| self.world.live().contains(s)))
            {
                self.world.remove_pod(&object.uid);
                *node = None;
            }
        }
        for (name, (object, on)) in &mut self.pods {
            if on.is_none() {
                let pod = self.world.know_object(object).unwrap();
                self.chain.sync(&mut self.world).await.unwrap();
                match self.chain.place(pod, &self.world, &mut self.dice).await.unwrap() {
                    Placement::On(slot) => {
                        let node = self.world.node_name(slot).unwrap().to_string();
                        self.world.assume(&object.uid, &node, false);
                        *on = Some(node);
                    }
                    Placement::Nowhere(why) => writeln!(self.told, "{name} -> {}", why.message()).unwrap(),
                }
            }
            if let Some(node) = on {
                writeln!(self.told, "{name} -> {node}").unwrap();
            }
        }
    }
}

fn policy(name: &str) -> Box<dyn Policy> {
    let (name, weight) = name.split_once('*').unwrap_or((name, "1"));
    let weight = weight.parse().expect("name*weight");
    match name {
        "default" => Box::new(Native::<scheduler_default::DefaultPolicy>::new(name, weight)),
        "binpack" => Box::new(Native::<scheduler_binpack::Binpack>::new(name, weight)),
        other => panic!("no policy is called {other}"),
    }
}

fn object(kind: &str, resource: &str, value: Value) -> Arc<Object> {
    let meta = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    let key = ObjectKey::new(GroupResource::new("", resource), meta("namespace"), meta("name"));
    Arc::new(Object::from_value(Arc::new(Gvk::new("", "v1", kind)), key, &value).unwrap())
}

fn taint(text: &str) -> Value {
    let (pair, effect) = text.split_once(':').expect("key=value:Effect");
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    json!({ "key": key, "value": value, "effect": effect })
}

/// `cpu=4 zone=east taint=k=v:NoSchedule unschedulable`; unknown words are labels.
fn node(name: &str, what: &[&str]) -> Arc<Object> {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "uid": format!("node-{name}"), "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": { "allocatable": { "cpu": "4", "memory": "16Gi", "pods": "110" } },
    });
    for word in what {
        match word.split_once('=') {
            Some(("cpu" | "memory" | "pods", _)) => {
                let (resource, amount) = word.split_once('=').expect("matched");
                value["status"]["allocatable"][resource] = amount.into();
            }
            Some(("taint", text)) => value["spec"]["taints"] = json!([taint(text)]),
            Some((key, label)) => value["metadata"]["labels"][key] = label.into(),
            None => value["spec"]["unschedulable"] = true.into(),
        }
    }
    object("Node", "nodes", value)
}

/// `cpu=1 spread=zone select=disk=ssd tolerate=k=v:NoSchedule port=80`.
fn pod(app: &str, n: usize, what: &[&str]) -> Arc<Object> {
    let name = format!("{app}-{n}");
    let mut container = json!({ "name": "c", "image": "img", "resources": { "requests": {} } });
    let mut spec = json!({});
    for word in what {
        let (key, text) = word.split_once('=').expect("key=value");
        match key {
            "cpu" | "memory" => container["resources"]["requests"][key] = text.into(),
            "port" => container["ports"] = json!([{ "containerPort": 80, "hostPort": text.parse::<u16>().unwrap() }]),
            "select" => {
                let (key, value) = text.split_once('=').expect("select=key=value");
                spec["nodeSelector"] = json!({ key: value });
            }
            "tolerate" => {
                let mut toleration = taint(text);
                toleration["operator"] = "Equal".into();
                spec["tolerations"] = json!([toleration]);
            }
            "spread" => {
                spec["topologySpreadConstraints"] = json!([{
                    "maxSkew": 1, "topologyKey": text, "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": { "matchLabels": { "app": app } },
                }]);
            }
            other => panic!("a pod of a story has no {other}"),
        }
    }
    spec["containers"] = json!([container]);
    let meta = json!({ "name": name, "namespace": "default", "uid": format!("pod-{name}"), "labels": { "app": app } });
    object(
        "Pod",
        "pods",
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec }),
    )
}
