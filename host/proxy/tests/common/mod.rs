//! What the integration tests share: worlds from YAML, and a cluster that only lists and watches.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use client::{
    Cluster, Collection, List, ListOptions, ReadVersion, Target, WatchEvent, WatchOptions, WatchStream, Write, Written,
};
use futures::StreamExt;
use model::{Caller, Failure, Gvk, Kind, Object, ObjectKey, ResourceVersion};
use proxy::facts::World;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;
use tokio::sync::broadcast;

/// Services, EndpointSlices and a Node, as documents of one text.
pub fn world(text: &str) -> World {
    fn all<T: DeserializeOwned>(documents: &[Value], kind: &str) -> Vec<Arc<T>> {
        let of_kind = documents.iter().filter(|document| document["kind"] == kind);
        of_kind.map(|document| Arc::new(serde_yaml_ng::from_value(document.clone()).unwrap())).collect()
    }
    let documents = documents(text);
    World {
        services: all(&documents, "Service"),
        slices: all(&documents, "EndpointSlice"),
        node: all(&documents, "Node").pop(),
    }
}

fn documents(text: &str) -> Vec<Value> {
    let all = serde_yaml_ng::Deserializer::from_str(text).map(|document| Value::deserialize(document).unwrap());
    all.filter(|document| !document.is_null()).collect()
}

/// A ClusterIP Service `test/NAME` with one TCP port, and a slice with these endpoints.
pub fn service(name: &str, spec: &str, target: u16, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|ip| format!("{{addresses: [\"{ip}\"], nodeName: node}}")).collect();
    let family = if endpoints.iter().any(|endpoint| endpoint.contains("::")) { "IPv6" } else { "IPv4" };
    format!(
        "kind: Service\nmetadata: {{namespace: test, name: {name}}}\nspec: {spec}\n---\nkind: EndpointSlice\n\
         metadata: {{namespace: test, name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: {family}\nendpoints: [{}]\n\
         ports: [{{port: {target}}}, {{name: u, port: {target}, protocol: UDP}}]\n---\n",
        endpoints.join(", ")
    )
}

/// Lists and watches what a test puts into it.
pub struct FakeCluster {
    state: Mutex<State>,
    events: broadcast::Sender<Result<WatchEvent, ()>>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    log: Vec<(u64, WatchEvent)>,
    /// Watches from before this version are refused.
    compacted: u64,
    lists: usize,
    failing: usize,
}

impl FakeCluster {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), events: broadcast::channel(1024).0 })
    }

    /// Creates or replaces every object of `text`.
    pub fn apply(&self, text: &str) {
        for document in documents(text) {
            let json: serde_json::Value = serde_json::to_value(&document).unwrap();
            let (kind, plural, group) = match json["kind"].as_str().unwrap() {
                "Service" => ("Service", "services", ""),
                "EndpointSlice" => ("EndpointSlice", "endpointslices", "discovery.k8s.io"),
                "Node" => ("Node", "nodes", ""),
                other => panic!("no {other} here"),
            };
            let resource = model::GroupResource::new(group, plural);
            let meta = &json["metadata"];
            let key = ObjectKey::new(resource, meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().unwrap());
            let mut state = self.state.lock().unwrap();
            state.version += 1;
            let mut object = Object::from_value(Arc::new(Gvk::new(group, "v1", kind)), key.clone(), &json).unwrap();
            object.version = ResourceVersion(state.version);
            let object = Arc::new(object);
            let event = match state.objects.insert(key, object.clone()) {
                None => WatchEvent::Added(object),
                Some(_) => WatchEvent::Modified(object),
            };
            let version = state.version;
            state.log.push((version, event.clone()));
            let _ = self.events.send(Ok(event));
        }
    }

    pub fn delete(&self, plural: &str, group: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let key = ObjectKey::new(model::GroupResource::new(group, plural), "test", name);
        let mut object = Object::clone(&state.objects.remove(&key).unwrap());
        state.version += 1;
        object.version = ResourceVersion(state.version);
        let event = WatchEvent::Deleted(Arc::new(object));
        let version = state.version;
        state.log.push((version, event.clone()));
        let _ = self.events.send(Ok(event));
    }

    /// Every watch breaks, and none can be taken up where it was.
    pub fn expire(&self) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        state.compacted = state.version;
        let _ = self.events.send(Err(()));
    }

    /// The next so many calls find nobody.
    pub fn fail(&self, calls: usize) {
        self.state.lock().unwrap().failing = calls;
    }

    pub fn lists(&self) -> usize {
        self.state.lock().unwrap().lists
    }
}

fn down(state: &mut State) -> Result<(), Failure> {
    if state.failing > 0 {
        state.failing -= 1;
        return Err(Failure::Unavailable { what: "the test's cluster", source: "it was told to fail".into() });
    }
    Ok(())
}

fn object_of(event: &WatchEvent) -> Option<&Arc<Object>> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => Some(object),
        WatchEvent::Bookmark { .. } => None,
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    fn kinds(&self) -> Arc<Vec<Arc<Kind>>> {
        Arc::default()
    }

    async fn kinds_changed(&self) {
        std::future::pending().await
    }

    async fn get(&self, _: &Caller, target: &Target, _: ReadVersion) -> Result<Arc<Object>, Failure> {
        Err(Failure::NoSuchResource { asked: target.gvr.to_string() })
    }

    async fn list(&self, caller: &Caller, of: &Collection, options: &ListOptions) -> Result<List, Failure> {
        assert!(caller.user().name.starts_with("system:kube-"), "reads are somebody's");
        let mut state = self.state.lock().unwrap();
        down(&mut state)?;
        state.lists += 1;
        let resource = of.gvr.group_resource();
        let items: Vec<_> = state.objects.values().filter(|object| object.key.resource == resource).cloned().collect();
        // Pages of two, so that paging is walked too.
        let from: usize = options.continue_token.parse().unwrap_or(0);
        let continue_token = if items.len() > from + 2 { (from + 2).to_string() } else { String::new() };
        let items = items.into_iter().skip(from).take(2).collect();
        Ok(List { version: ResourceVersion(state.version), items, continue_token, remaining: None })
    }

    async fn watch(&self, _: &Caller, of: &Collection, options: &WatchOptions) -> Result<WatchStream, Failure> {
        let mut state = self.state.lock().unwrap();
        down(&mut state)?;
        let from = options.from.unwrap().0;
        if from < state.compacted {
            return Err(Failure::Expired("too old resource version".into()));
        }
        let resource = of.gvr.group_resource();
        let wanted = move |event: &WatchEvent| object_of(event).is_some_and(|object| object.key.resource == resource);
        let past: Vec<_> = state.log.iter().filter(|(version, event)| *version > from && wanted(event)).cloned().collect();
        let past = futures::stream::iter(past.into_iter().map(|(_, event)| Ok(event)));
        let future = futures::stream::unfold(self.events.subscribe(), |mut events| async move {
            let event = match events.recv().await.ok()? {
                Ok(event) => Ok(event),
                Err(()) => Err(Failure::Expired("compacted".into())),
            };
            Some((event, events))
        });
        let future = future.filter(move |event| futures::future::ready(event.as_ref().map_or(true, &wanted)));
        Ok(past.chain(future).boxed())
    }

    async fn write(&self, _: &Caller, write: Write) -> Result<Written, Failure> {
        panic!("a proxy writes nothing, but this: {write:?}")
    }
}
