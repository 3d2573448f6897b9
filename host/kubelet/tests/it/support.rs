//! A node with the fake cluster, and pods for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::fake::Fake;
use client::node::{ContainerRef, LogOptions, NodeStreams};
use futures::StreamExt;
use kubelet::KubeletConfig;
use kubelet::runtime::Runtime;
use model::{GroupResource, ObjectKey, Uid};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

pub struct TestNode {
    pub fake: Fake,
    pub config: KubeletConfig,
    pub runtime: Arc<dyn Runtime>,
    pub streams: Arc<dyn NodeStreams>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl TestNode {
    pub fn start(root: PathBuf, fake: Fake, runtime: Arc<dyn Runtime>) -> Self {
        let mut config = KubeletConfig::new("n1", root);
        config.heartbeat = Duration::from_millis(200);
        config.volume_refresh = Duration::from_millis(200);
        config.max_pods = 10_000;
        let streams = kubelet::streams(&config, fake.cluster(), runtime.clone());
        let mut node = Self {
            fake,
            config,
            runtime,
            streams,
            stop: CancellationToken::new(),
            task: None,
        };
        node.resume();
        node
    }

    /// A kubelet on what is there.
    pub fn resume(&mut self) {
        self.stop = CancellationToken::new();
        let (config, cluster, runtime, stop) = (
            self.config.clone(),
            self.fake.cluster(),
            self.runtime.clone(),
            self.stop.clone(),
        );
        self.task = Some(tokio::spawn(async move {
            kubelet::run(config, cluster, runtime, stop)
                .await
                .expect("the kubelet runs");
        }));
    }

    /// For a test that fails: the kubelet does nothing more.
    pub fn abandon(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// The kubelet ends; its pods do not.
    pub async fn halt(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.expect("the kubelet ends well");
        }
    }

    pub fn put(&self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.fake.put(pod).uid.0.to_string()
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        let key = ObjectKey::new(GroupResource::new("", "pods"), "default", name);
        self.fake.object(&key).map(|o| o.value())
    }

    pub fn status(&self, name: &str) -> Value {
        self.pod(name).map_or(Value::Null, |mut pod| pod["status"].take())
    }

    /// As `kubectl debug POD` does: an ephemeral container more.
    pub fn look(&self, name: &str, container: Value) {
        let mut pod = self.pod(name).expect("the pod is there");
        match &mut pod["spec"]["ephemeralContainers"] {
            Value::Array(list) => list.push(container),
            none => *none = json!([container]),
        }
        self.fake.put(pod);
    }

    /// As the API server marks a pod that somebody deletes; with no grace at all it would be gone at once.
    pub fn delete(&self, name: &str, grace: u64) {
        let mut pod = self.pod(name).expect("the pod is there");
        pod["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace.max(1));
        self.fake.put(pod);
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = tokio::time::timeout(LIMIT, self.fake.until(|_| holds(self))).await;
        assert!(wait.is_ok(), "waited in vain until {what}; pods: {:#?}", self.pods());
    }

    pub async fn until_running(&self, name: &str) {
        self.until(&format!("{name} is ready"), |n| condition(&n.status(name), "Ready"))
            .await;
    }

    pub async fn until_gone(&self, name: &str) {
        self.until(&format!("{name} is gone"), |n| n.pod(name).is_none()).await;
    }

    fn pods(&self) -> Vec<Value> {
        let brief = |pod: Value| json!({"name": pod["metadata"]["name"], "status": pod["status"]});
        self.fake.objects("pods").iter().map(|o| brief(o.value())).collect()
    }

    pub fn container(&self, pod: &str, container: &str) -> ContainerRef {
        ContainerRef {
            namespace: "default".into(),
            pod: pod.into(),
            uid: Uid::default(),
            container: container.into(),
        }
    }

    /// `stats/summary`.
    pub async fn summary(&self) -> Value {
        let page = self.streams.page("/stats/summary").await.expect("there is a summary");
        serde_json::from_str(&page.text).expect("it is JSON")
    }

    pub async fn logs(&self, pod: &str, container: &str, options: LogOptions) -> String {
        let mut stream = self
            .streams
            .logs(&self.container(pod, container), &options)
            .await
            .expect("there are logs");
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await {
            all.extend_from_slice(&chunk.expect("the log is read"));
        }
        String::from_utf8(all).expect("the log is text")
    }
}

pub fn condition(status: &Value, name: &str) -> bool {
    status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == name && c["status"] == "True")
}

pub fn state<'a>(status: &'a Value, container: usize, state: &str) -> &'a Value {
    &status["containerStatuses"][container]["state"][state]
}

/// As [`state`], of an ephemeral container.
pub fn looking<'a>(status: &'a Value, container: usize, state: &str) -> &'a Value {
    &status["ephemeralContainerStatuses"][container]["state"][state]
}

/// Waits for what happens outside the cluster: processes, files.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Skips a test, in one line.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}
