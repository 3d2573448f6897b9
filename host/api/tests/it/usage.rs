//! What nodes and pods use, through real kubectl and as documents, of a node that is a stand-in.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use auth::users;
use client::node::{ContainerRef, Duplex, ExecRequest, LogOptions, LogStream, NodeStreams, Nodes, Page, Session};
use client::usage::Meter;
use http::{Request, Response};
use jiff::Timestamp;
use model::Failure;
use serde_json::{Value, json};

use crate::support::{TestCluster, kubectl, kubectls};

/// Uses a processor and a half; of its containers `web/main` half a one, `web/side` and `idle/main` nothing, and there is
/// nothing to be known of `silent/main`.
struct Worker {
    since: Instant,
}

#[async_trait]
impl NodeStreams for Worker {
    async fn page(&self, path: &str) -> Result<Page, Failure> {
        assert_eq!(path, "/metrics/resource");
        let (passed, at) = (self.since.elapsed().as_secs_f64(), Timestamp::now().as_millisecond());
        let mut page = format!(
            "node_cpu_usage_seconds_total {} {at}\nnode_memory_working_set_bytes 2147483648 {at}\n",
            passed * 1.5
        );
        for (pod, container, cpu, memory) in [
            ("web", "main", passed / 2.0, 300 << 20),
            ("web", "side", 0.0, 1 << 20),
            ("idle", "main", 7.0, 50 << 20),
        ] {
            let of = format!("{{container=\"{container}\",namespace=\"default\",pod=\"{pod}\"}}");
            page += &format!("container_cpu_usage_seconds_total{of} {cpu} {at}\n");
            page += &format!("container_memory_working_set_bytes{of} {memory} {at}\n");
        }
        Ok(Page::text(page))
    }

    async fn logs(&self, _: &ContainerRef, _: &LogOptions) -> Result<LogStream, Failure> {
        unreachable!("only its page is read")
    }

    async fn exec(&self, _: &ContainerRef, _: &ExecRequest) -> Result<Session, Failure> {
        unreachable!("only its page is read")
    }

    async fn attach(&self, _: &ContainerRef, _: &ExecRequest) -> Result<Session, Failure> {
        unreachable!("only its page is read")
    }

    async fn port_forward(&self, _: &ContainerRef, _: u16) -> Result<Box<dyn Duplex>, Failure> {
        unreachable!("only its page is read")
    }
}

impl Nodes for Worker {
    fn streams(&self, node: &str) -> Option<Arc<dyn NodeStreams>> {
        (node == "n1").then(|| Arc::new(Worker { since: self.since }) as Arc<dyn NodeStreams>)
    }
}

/// Two nodes, of which one is not reachable, and three pods.
async fn cluster() -> TestCluster {
    let cluster = TestCluster::start_with(|config| {
        let nodes = Arc::new(Worker { since: Instant::now() });
        config.meter = Arc::new(Meter::new(config.cluster.clone(), users::api_server(), nodes));
    })
    .await;
    let four = json!({"cpu": "4", "memory": "4Gi"});
    for name in ["n1", "n2"] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"on": name}},
            "status": {"capacity": four, "allocatable": four}});
        post(&cluster, "/api/v1/nodes", &node).await;
    }
    for name in ["web", "idle", "silent"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "i"}]}});
        post(&cluster, "/api/v1/namespaces/default/pods", &pod).await;
    }
    cluster
}

async fn post(cluster: &TestCluster, path: &str, document: &Value) {
    let request = Request::post(path).header("Content-Type", "application/json");
    let made = cluster.send("admin", request.body(document.to_string()).unwrap()).await;
    assert_eq!(made.status(), 201, "{}", made.body());
}

async fn get(cluster: &TestCluster, user: &str, path: &str, accept: &str) -> Response<String> {
    let request = Request::get(format!("/apis/metrics.k8s.io/v1beta1{path}")).header("Accept", accept);
    cluster.send(user, request.body(String::new()).unwrap()).await
}

const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_what_is_used() {
    let found = kubectls();
    if found.is_empty() {
        eprintln!("skipped: no kubectl of a known version on this machine");
        return;
    }
    let cluster = cluster().await;
    let admin = cluster.config_of("admin");
    for (version, program) in &found {
        let run = async |line: &str| {
            let ran = kubectl(program, &admin, "", &line.split(' ').collect::<Vec<_>>()).await;
            let rows = ran
                .out
                .lines()
                .map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "));
            (rows.collect::<Vec<_>>(), ran.err)
        };
        // Use is told in whole thousandths, rounded up: a hair more than what is used.
        let about = |row: &str, parts: &[&str], millis: u32| {
            let words: Vec<&str> = row.split(' ').collect();
            let cpu = words
                .iter()
                .find_map(|word| word.strip_suffix('m')?.parse::<u32>().ok());
            let others: Vec<&str> = words.into_iter().filter(|word| !word.ends_with('m')).collect();
            assert_eq!(others, parts, "{version}: {row}");
            assert!(
                cpu.is_some_and(|cpu| cpu.abs_diff(millis) <= millis / 10 + 1),
                "{version}: {row}"
            );
        };
        let (nodes, err) = run("top nodes --no-headers").await;
        about(nodes.first().unwrap_or(&err), &["n1", "37%", "2048Mi", "50%"], 1500);
        // What newer ones print of a node that is left out begins with its name.
        assert!(
            nodes[1..].iter().all(|row| row.starts_with("n2 <unknown>")),
            "{version}: {nodes:?}"
        );

        let (pods, err) = run("top pods --sort-by=cpu").await;
        assert_eq!(
            pods.first(),
            Some(&"NAME CPU(cores) MEMORY(bytes)".to_owned()),
            "{version}: {err}"
        );
        about(&pods[1], &["web", "301Mi"], 500);
        assert_eq!(pods[2..], ["idle 0m 50Mi"], "{version}: silent is left out");
        let (containers, _) = run("top pod web --containers --no-headers").await;
        about(&containers[0], &["web", "main", "300Mi"], 500);
        assert_eq!(containers[1..], ["web side 0m 1Mi"], "{version}");
        let (chosen, _) = run("top pods -A -l app=idle --no-headers").await;
        assert_eq!(chosen, ["default idle 0m 50Mi"], "{version}");
        let (sums, _) = run("top pods --field-selector metadata.name=idle --sum --no-headers").await;
        assert_eq!(sums[0], "idle 0m 50Mi", "{version}");
        assert_eq!(sums.last().map(String::as_str), Some("0m 50Mi"), "{version}: {sums:?}");
        let (_, err) = run("top pod silent").await;
        assert_eq!(
            err, "Error from server (NotFound): podmetrics.metrics.k8s.io \"default/silent\" not found\n",
            "{version}"
        );
        let (_, err) = run("top pod nothing").await;
        assert_eq!(
            err, "Error from server (NotFound): pods \"nothing\" not found\n",
            "{version}"
        );

        let (rows, err) = run("get podmetrics idle").await;
        assert_eq!(
            rows.first(),
            Some(&"NAME CPU MEMORY WINDOW".to_owned()),
            "{version}: {err}"
        );
        assert!(rows[1].starts_with("idle 0 50Mi "), "{version}: {rows:?}");
        let (kinds, _) = run("api-resources --api-group=metrics.k8s.io --no-headers").await;
        let expected = [
            "nodes metrics.k8s.io/v1beta1 false NodeMetrics",
            "pods metrics.k8s.io/v1beta1 true PodMetrics",
        ];
        assert_eq!(kinds, expected, "{version}");
        let (told, err) = run("explain podmetrics.containers").await;
        let told = told.join(" ");
        assert!(
            told.contains("Each container that runs.") && told.contains("usage <map["),
            "{version}: {told} {err}"
        );
        let (pods, _) = run("get pods -o name").await;
        assert_eq!(
            pods,
            ["pod/idle", "pod/silent", "pod/web"],
            "{version}: pods are still pods"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_those_of_metrics_server() {
    let cluster = cluster().await;
    let read = |response: Response<String>| -> Value { serde_json::from_str(response.body()).expect("JSON") };
    let begun = Instant::now();
    let mut all = read(get(&cluster, "admin", "/pods", JSON).await);
    assert!(begun.elapsed().as_secs_f32() < 30.0, "the first who asks is answered");
    let idle = all["items"][0].take();
    assert_eq!((&all["kind"], &all["metadata"]), (&json!("PodMetricsList"), &json!({})));
    let meta = &idle["metadata"];
    assert_eq!((&meta["name"], &meta["namespace"]), (&json!("idle"), &json!("default")));
    assert_eq!((&meta["labels"], &meta["uid"]), (&json!({"app": "idle"}), &Value::Null));
    assert_eq!(
        idle["containers"],
        json!([{"name": "main", "usage": {"cpu": "0", "memory": "50Mi"}}])
    );
    let window = idle["window"].as_str().unwrap();
    assert!(window.starts_with("2.") && window.ends_with('s'), "{window}");
    assert!(idle["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
    let web = &all["items"][1];
    assert_eq!(
        (&web["metadata"]["name"], &all["items"][2]),
        (&json!("web"), &Value::Null)
    );
    let cpu = web["containers"][0]["usage"]["cpu"].as_str().unwrap();
    assert!(cpu.ends_with(['n', 'u', 'm']), "{cpu}");

    let node = read(get(&cluster, "admin", "/nodes/n1", JSON).await);
    assert_eq!(
        (&node["usage"]["memory"], &node["metadata"]["labels"]),
        (&json!("2Gi"), &json!({"on": "n1"}))
    );
    let selected = read(get(&cluster, "admin", "/nodes?labelSelector=on%3Dn2", JSON).await);
    assert_eq!(selected["items"], json!([]));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = read(get(&cluster, "admin", "/namespaces/default/pods", table).await);
    assert_eq!(table["rows"].as_array().map(Vec::len), Some(2), "{table}");
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(columns, ["Name", "cpu", "memory", "Window"]);

    for (path, code, says) in [
        ("/nodes/n2", 404, "nodemetrics.metrics.k8s.io \"n2\" not found"),
        ("/nodes/n3", 404, "nodes \"n3\" not found"),
        (
            "/nodes/n1/status",
            404,
            "the server could not find the requested resource",
        ),
        (
            "/namespaces/default/nodes",
            404,
            "the server could not find the requested resource",
        ),
        (
            "/pods?watch=true",
            405,
            "the server does not allow this method on the requested resource",
        ),
        ("/pods?labelSelector=a%3D%3D%3D", 400, "unable to parse"),
        (
            "/pods?fieldSelector=spec.nodeName%3Dn1",
            400,
            "\"spec.nodeName\" is not a known field selector",
        ),
    ] {
        let refused = get(&cluster, "admin", path, JSON).await;
        let status = read(refused);
        assert_eq!(status["code"], code, "{path}: {status}");
        assert!(status["message"].as_str().unwrap().contains(says), "{path}: {status}");
    }
}

/// Who may see a namespace's pods may see what they use, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_view_may_see_what_is_used() {
    let cluster = cluster().await;
    let refused = get(&cluster, "jane", "/namespaces/default/pods", JSON).await;
    assert_eq!(refused.status(), 403, "{}", refused.body());
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    post(
        &cluster,
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
        &binding,
    )
    .await;
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    while get(&cluster, "jane", "/namespaces/default/pods", JSON).await.status() != 200 {
        assert!(Instant::now() < deadline, "the binding is not taken notice of");
    }
    for path in ["/pods", "/nodes", "/namespaces/kube-system/pods"] {
        assert_eq!(get(&cluster, "jane", path, JSON).await.status(), 403, "{path}");
    }
}

/// As kubectl asks.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_in_protobuf_too() {
    let cluster = cluster().await;
    let request = Request::get("/apis/metrics.k8s.io/v1beta1/nodes");
    let request = request.header("Accept", "application/vnd.kubernetes.protobuf");
    let response = cluster.open("admin", request.body(String::new()).unwrap()).await;
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    let (gvk, list) = schema::protobuf::decode(&body).unwrap();
    assert_eq!(
        gvk.to_string(),
        model::Gvk::new("metrics.k8s.io", "v1beta1", "NodeMetricsList").to_string()
    );
    let node = &list["items"][0];
    assert_eq!(
        (&node["metadata"]["name"], &node["usage"]["memory"]),
        (&json!("n1"), &json!("2Gi"))
    );
    assert!(node["window"].as_str().unwrap().starts_with("2."), "{node}");
}
