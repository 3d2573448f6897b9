//! What the integration tests share: worlds from YAML, and a cluster in memory with moods.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use client::fake::Fake;
use client::{Cluster, Collection, List, ListOptions, ReadVersion, Target, WatchOptions, WatchStream, Write, Written};
use model::{Caller, Failure, GroupResource, Kind, Object, ObjectKey};
use proxy::facts::World;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

/// Services, EndpointSlices and a Node, as documents of one text.
pub fn world(text: &str) -> World {
    fn all<T: DeserializeOwned>(documents: &[Value], kind: &str) -> Vec<Arc<T>> {
        let of_kind = documents.iter().filter(|document| document["kind"] == kind);
        of_kind
            .map(|document| Arc::new(serde_yaml_ng::from_value(document.clone()).unwrap()))
            .collect()
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
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|ip| format!("{{addresses: [\"{ip}\"], nodeName: node}}"))
        .collect();
    let family = if endpoints.iter().any(|endpoint| endpoint.contains("::")) {
        "IPv6"
    } else {
        "IPv4"
    };
    format!(
        "kind: Service\nmetadata: {{namespace: test, name: {name}}}\nspec: {spec}\n---\nkind: EndpointSlice\n\
         metadata: {{namespace: test, name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: {family}\nendpoints: [{}]\n\
         ports: [{{port: {target}}}, {{name: u, port: {target}, protocol: UDP}}]\n---\n",
        endpoints.join(", ")
    )
}

/// The cluster in memory, read through a door that can be shut, and in pages of two.
pub struct Moody {
    pub fake: Fake,
    failing: AtomicUsize,
    lists: AtomicUsize,
}

impl Moody {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            fake: Fake::new(),
            failing: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
        })
    }

    /// Creates or replaces every object of `text`.
    pub fn apply(&self, text: &str) {
        for mut document in documents(text) {
            let api = match document["kind"].as_str() {
                Some("EndpointSlice") => "discovery.k8s.io/v1",
                _ => "v1",
            };
            document["apiVersion"] = api.into();
            self.fake.put(serde_json::to_value(&document).unwrap());
        }
    }

    pub fn delete(&self, group: &str, plural: &str, name: &str) {
        let key = ObjectKey::new(GroupResource::new(group, plural), "test", name);
        assert!(self.fake.remove(&key), "{key} is there");
    }

    /// The next so many calls find nobody.
    pub fn fail(&self, calls: usize) {
        self.failing.store(calls, Ordering::SeqCst);
    }

    pub fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }

    fn enter(&self, caller: &Caller) -> Result<(), Failure> {
        assert!(
            caller.user().name.starts_with("system:kube-"),
            "who reads is known by name"
        );
        let left = |calls: usize| calls.checked_sub(1);
        match self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) {
            Ok(_) => Err(Failure::Unavailable {
                what: "the test's cluster",
                source: "it was told to fail".into(),
            }),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Cluster for Moody {
    fn kinds(&self) -> Arc<Vec<Arc<Kind>>> {
        self.fake.cluster().kinds()
    }

    async fn kinds_changed(&self) {
        self.fake.cluster().kinds_changed().await;
    }

    async fn get(&self, caller: &Caller, target: &Target, at: ReadVersion) -> Result<Arc<Object>, Failure> {
        self.fake.cluster().get(caller, target, at).await
    }

    async fn list(&self, caller: &Caller, of: &Collection, options: &ListOptions) -> Result<List, Failure> {
        self.enter(caller)?;
        self.lists.fetch_add(1, Ordering::SeqCst);
        let options = ListOptions {
            limit: 2,
            ..options.clone()
        };
        self.fake.cluster().list(caller, of, &options).await
    }

    async fn watch(&self, caller: &Caller, of: &Collection, options: &WatchOptions) -> Result<WatchStream, Failure> {
        self.enter(caller)?;
        self.fake.cluster().watch(caller, of, options).await
    }

    async fn write(&self, caller: &Caller, write: Write) -> Result<Written, Failure> {
        assert_eq!(write.target.gvr.resource, "events", "a proxy writes Events only");
        self.fake.cluster().write(caller, write).await
    }
}
