//! What goes over the wire, without a client library in between.

use std::fmt::Write;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::TestCluster;

fn get(path: &str) -> Request<String> {
    Request::get(path).body(String::new()).unwrap()
}

fn accepting(path: &str, accept: &str) -> Request<String> {
    Request::get(path).header("Accept", accept).body(String::new()).unwrap()
}

fn post(path: &str, body: &Value) -> Request<String> {
    Request::post(path)
        .header("Content-Type", "application/json")
        .body(body.to_string())
        .unwrap()
}

fn read(response: &Response<String>) -> Value {
    serde_json::from_str(response.body()).unwrap_or_else(|e| panic!("{e}: {}", response.body()))
}

fn config_map(name: &str, size: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "a"}}, "data": {"x": "y".repeat(size)}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Every way to be refused, in the words a client sees. `BLESS=1` rewrites the answers.
///
/// A case is a request line, headers, `as USER` (nobody without it), an empty line, the body; `----`; the answer.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_is_wrong() {
    let cluster = TestCluster::start().await;
    let made = cluster.send("admin", post(MAPS, &config_map("here", 1))).await;
    assert_eq!(made.status(), StatusCode::CREATED, "{}", made.body());
    let uid = read(&made)["metadata"]["uid"].as_str().unwrap().to_owned();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases/refusals.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut now = String::new();
    for case in text.split("\n====\n") {
        let question = case.split("\n----\n").next().unwrap().trim_end();
        let (user, request) = request(question);
        let response = cluster.send(&user, request).await;
        let _ = write!(
            now,
            "{}{question}\n----\n{}",
            if now.is_empty() { "" } else { "\n====\n" },
            refusal(&response).replace(&uid, "UID")
        );
    }
    now.push('\n');
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, now).unwrap();
    } else {
        for (now, then) in now.split("\n====\n").zip(text.split("\n====\n")) {
            assert_eq!(now, then, "run with BLESS=1 and read the diff");
        }
        assert_eq!(now.len(), text.len());
    }
}

fn request(question: &str) -> (String, Request<String>) {
    let (head, body) = question.split_once("\n\n").unwrap_or((question, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(path);
    let mut user = String::new();
    for line in lines {
        match line.strip_prefix("as ") {
            Some(name) => user = name.to_owned(),
            None => {
                let (name, value) = line.split_once(": ").unwrap();
                builder = builder.header(name, value);
            }
        }
    }
    (user, builder.body(body.to_owned()).unwrap())
}

fn refusal(response: &Response<String>) -> String {
    // Some ask for YAML, which JSON is as well.
    let status: Value = serde_yaml_ng::from_str(response.body()).unwrap_or_else(|e| panic!("{e}: {}", response.body()));
    assert_eq!(status["kind"], "Status", "{status}");
    assert_eq!(status["code"], response.status().as_u16(), "{status}");
    let mut text = format!(
        "{} {}\n{}",
        status["code"],
        status["reason"].as_str().unwrap(),
        status["message"].as_str().unwrap()
    );
    if let Some(details) = status["details"].as_object() {
        for (key, value) in details {
            let _ = write!(text, "\n{key}: {value}");
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_a_limit_and_large_answers_are_compressed() {
    let cluster = TestCluster::start().await;
    let too_large = cluster.send("admin", post(MAPS, &config_map("big", 4 << 20))).await;
    assert_eq!(
        too_large.status(),
        StatusCode::PAYLOAD_TOO_LARGE,
        "{}",
        too_large.body()
    );
    assert_eq!(read(&too_large)["reason"], "RequestEntityTooLarge");
    let made = cluster.send("admin", post(MAPS, &config_map("large", 200_000))).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let gzip = |path: &str| {
        Request::get(path)
            .header("Accept-Encoding", "gzip")
            .body(String::new())
            .unwrap()
    };
    let list = cluster.open("admin", gzip(MAPS)).await;
    assert_eq!(list.headers()["content-encoding"], "gzip");
    let small = list.into_body().collect().await.unwrap().to_bytes().len();
    assert!(small < 20_000, "{small} bytes of a repeated letter");
    let other = cluster
        .send("admin", gzip("/api/v1/namespaces/kube-system/configmaps"))
        .await;
    assert!(
        !other.headers().contains_key("content-encoding"),
        "a small answer is left alone"
    );
    let plain = cluster.send("admin", get(MAPS)).await;
    assert_eq!(
        plain.headers()["content-length"],
        plain.body().len().to_string(),
        "the length of a list is known"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_object_in_every_form() {
    let cluster = TestCluster::start().await;
    cluster.send("admin", post(MAPS, &config_map("one", 1))).await;
    let one = format!("{MAPS}/one");
    let whole = read(&cluster.send("admin", get(&one)).await);
    assert_eq!(
        (&whole["kind"], &whole["data"]["x"]),
        (&json!("ConfigMap"), &json!("y"))
    );

    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for path in [one.as_str(), MAPS] {
        let table = read(&cluster.send("admin", accepting(path, table)).await);
        assert_eq!(
            (&table["kind"], &table["apiVersion"]),
            (&json!("Table"), &json!("meta.k8s.io/v1"))
        );
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        let row = table["rows"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["cells"][0] == "one")
            .unwrap();
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(row["object"]["metadata"]["uid"], whole["metadata"]["uid"]);
    }
    let none = read(
        &cluster
            .send("admin", accepting(&format!("{MAPS}?includeObject=None"), table))
            .await,
    );
    assert_eq!(none["rows"][0]["object"], Value::Null);

    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = read(&cluster.send("admin", accepting(MAPS, metadata)).await);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let item = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["metadata"]["name"] == "one")
        .unwrap();
    assert_eq!(
        (item["kind"].as_str(), item.get("data")),
        (Some("PartialObjectMetadata"), None)
    );

    let yaml = cluster.send("admin", accepting(&one, "application/yaml")).await;
    assert_eq!(yaml.headers()["content-type"], "application/yaml");
    assert!(yaml.body().contains("kind: ConfigMap"), "{}", yaml.body());
    let from_yaml = Request::post(MAPS)
        .header("Content-Type", "application/yaml")
        .body("kind: ConfigMap\napiVersion: v1\nmetadata: {name: two}\ndata: {x: \"1\"}\n".to_owned());
    let made = cluster.send("admin", from_yaml.unwrap()).await;
    assert_eq!(made.status(), StatusCode::CREATED, "{}", made.body());
    assert_eq!(read(&made)["data"]["x"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let cluster = TestCluster::start().await;
    for i in 0..5 {
        cluster
            .send("admin", post(MAPS, &config_map(&format!("m{i}"), 1)))
            .await;
    }
    let mut names = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("{MAPS}?limit=2&labelSelector=app%3Da&continue={next}");
        let page = read(&cluster.send("admin", get(&path)).await);
        names.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = token.to_owned(),
            _ => break,
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
}

/// Lines of a watch as they come; panics when none comes for long.
struct Lines {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame())
                .await
                .expect("an event in time");
            match frame {
                Some(frame) => self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                None => return None,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_everything_and_ends_with_the_server() {
    let mut cluster = TestCluster::start().await;
    let path = format!(
        "{MAPS}?watch=true&labelSelector=app%3Da&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    cluster.send("admin", post(MAPS, &config_map("before", 1))).await;
    let response = cluster.open("admin", get(&path)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut lines = Lines {
        body: response.into_body(),
        buffer: Vec::new(),
    };
    let first = lines.next().await.unwrap();
    assert_eq!(
        (&first["type"], &first["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("before"))
    );
    let bookmark = lines.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");

    let table = Request::get(format!("{MAPS}?watch=true&labelSelector=app%3Da"))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let response = cluster.open("admin", table.body(String::new()).unwrap()).await;
    let mut tables = Lines {
        body: response.into_body(),
        buffer: Vec::new(),
    };
    let first = tables.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "before");

    let one = format!("{MAPS}/before");
    let patch = Request::patch(&one)
        .header("Content-Type", "application/merge-patch+json")
        .body(r#"{"data":{"z":"1"}}"#.to_owned());
    cluster.send("admin", patch.unwrap()).await;
    cluster
        .send("admin", Request::delete(&one).body(String::new()).unwrap())
        .await;
    for expected in ["MODIFIED", "DELETED"] {
        let event = loop {
            let event = lines.next().await.unwrap();
            if event["type"] != "BOOKMARK" {
                break event;
            }
        };
        assert_eq!(event["type"], expected);
        let row = tables.next().await.unwrap();
        assert_eq!(
            (&row["type"], &row["object"]["columnDefinitions"]),
            (&json!(expected), &Value::Null)
        );
    }
    cluster.stop().await;
    assert_eq!(tables.next().await, None, "the stream ends as a stream should");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_forgotten_version_says_so_in_an_event() {
    let cluster = TestCluster::start().await;
    cluster.send("admin", post(MAPS, &config_map("late", 1))).await;
    let response = cluster
        .open("admin", get(&format!("{MAPS}?watch=true&resourceVersion=1")))
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut lines = Lines {
        body: response.into_body(),
        buffer: Vec::new(),
    };
    let event = lines.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["kind"], "Status");
    assert_eq!(event["object"]["code"], 410);
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(lines.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_version_and_discovery() {
    let cluster = TestCluster::start().await;
    for page in ["/healthz", "/livez", "/readyz"] {
        let answer = cluster.send("", get(page)).await;
        assert_eq!(
            (answer.status(), answer.body().as_str()),
            (StatusCode::OK, "ok"),
            "{page}"
        );
    }
    let verbose = cluster.send("", get("/readyz?verbose")).await;
    assert!(
        verbose.body().contains("[+]ping ok\n") && verbose.body().ends_with("readyz check passed\n"),
        "{}",
        verbose.body()
    );
    assert_eq!(cluster.send("admin", get("/livez/ping")).await.body(), "ok");
    assert_eq!(
        read(&cluster.send("", get("/version")).await)["gitVersion"],
        "v1.36.0+pilotis"
    );
    let metrics = cluster.send("admin", get("/metrics")).await;
    assert!(
        metrics.body().contains("apiserver_request_total{verb=\"GET\""),
        "{}",
        metrics.body()
    );
    assert_eq!(cluster.send("", get("/metrics")).await.status(), StatusCode::FORBIDDEN);

    let plain = read(&cluster.send("admin", get("/api/v1")).await);
    let names = |list: &Value, key: &str| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|r| r[key].as_str().unwrap().to_owned())
            .collect()
    };
    let resources = names(&plain["resources"], "name");
    assert!(
        resources.contains(&"configmaps".into()) && resources.contains(&"pods/status".into()),
        "{resources:?}"
    );
    let of = |name: &str| {
        plain["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        of("pods")["storageVersionHash"],
        "xPOwRZ+Yhw8=",
        "as a kube-apiserver has it"
    );
    assert_eq!(of("componentstatuses")["storageVersionHash"], Value::Null);
    assert_eq!(
        (&of("pods/exec")["version"], &of("pods/eviction")["version"]),
        (&Value::Null, &json!("v1"))
    );
    for (path, kind) in [
        ("/api/", "APIVersions"),
        ("/api/v1/", "APIResourceList"),
        ("/apis/", "APIGroupList"),
        ("/apis/apps/", "APIGroup"),
        ("/apis/apps/v1/", "APIResourceList"),
    ] {
        let answer = cluster.send("admin", get(path)).await;
        assert_eq!(
            (answer.status(), &read(&answer)["kind"]),
            (StatusCode::OK, &json!(kind)),
            "{path}"
        );
    }
    for path in [
        "/openapi/v2/",
        "/openapi/v3/",
        "/healthz/",
        "/apis/nothing/",
        "/api/v2/",
    ] {
        assert_eq!(
            cluster.send("admin", get(path)).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let paths = read(&cluster.send("admin", get("/")).await)["paths"].clone();
    for path in ["/api/v1", "/apis/apps/v1", "/livez/ping", "/openapi/v3", "/version"] {
        assert!(paths.as_array().unwrap().contains(&path.into()), "{path}");
    }
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let response = cluster.send("admin", accepting("/api", v2)).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let tag = response.headers()["etag"].clone();
    let aggregated = read(&response);
    assert!(names(&aggregated["items"][0]["versions"][0]["resources"], "resource").contains(&"configmaps".into()));
    let again = Request::get("/api")
        .header("Accept", v2)
        .header("If-None-Match", tag)
        .body(String::new())
        .unwrap();
    assert_eq!(cluster.send("admin", again).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(
        read(&cluster.send("admin", accepting("/apis", "application/json")).await)["kind"],
        "APIGroupList"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_nobody_stores() {
    let cluster = TestCluster::start().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(
        cluster.send("admin", post(pods, &pod)).await.status(),
        StatusCode::CREATED
    );
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let bound = cluster
        .send("admin", post("/api/v1/namespaces/default/bindings", &binding))
        .await;
    assert_eq!(bound.status(), StatusCode::CREATED, "{}", bound.body());
    let pod = read(&cluster.send("admin", get("/api/v1/namespaces/default/pods/p")).await);
    assert_eq!(pod["spec"]["nodeName"], "n");

    let all = cluster.send("admin", get("/api/v1/componentstatuses")).await;
    assert_eq!(
        all.headers()["warning"],
        "299 - \"v1 ComponentStatus is deprecated in v1.19+\""
    );
    let all = read(&all);
    assert_eq!(all["kind"], "ComponentStatusList");
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
    let one = read(&cluster.send("admin", get("/api/v1/componentstatuses/etcd-0")).await);
    assert_eq!(
        one["conditions"],
        json!([{"type": "Healthy", "status": "True", "message": "ok"}])
    );
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = read(
        &cluster
            .send("admin", accepting("/api/v1/componentstatuses/scheduler", table))
            .await,
    );
    assert_eq!(table["rows"][0]["cells"], json!(["scheduler", "Healthy", "ok", ""]));
}

/// Of what an apply in YAML names twice the last counts, and the client is told of each.
#[tokio::test(flavor = "multi_thread")]
async fn doubled_keys_of_yaml_are_warned_of() {
    let cluster = TestCluster::start().await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  a: one\n  a: two\n  b: x\n  b: z\n";
    let apply = Request::patch(format!("{MAPS}/a?fieldManager=m"))
        .header("Content-Type", "application/apply-patch+yaml")
        .body(text.to_owned())
        .unwrap();
    let applied = cluster.send("admin", apply).await;
    assert_eq!(applied.status(), StatusCode::CREATED, "{}", applied.body());
    let warnings: Vec<_> = applied.headers().get_all("warning").iter().collect();
    assert_eq!(
        warnings,
        [
            "299 - \"line 6: key \\\"a\\\" already set in map\"",
            "299 - \"line 8: key \\\"b\\\" already set in map\""
        ]
    );
    assert_eq!(read(&applied)["data"], json!({"a": "two", "b": "z"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_told_to_come_back() {
    let cluster = TestCluster::start_with(|config| config.in_flight = (400, 0)).await;
    let refused = cluster.send("admin", post(MAPS, &config_map("x", 1))).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(
        cluster.send("admin", get(MAPS)).await.status(),
        StatusCode::OK,
        "reads have their own share"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_too_much_is_limited_and_named() {
    let cluster = TestCluster::start_with(|config| {
        config.watches_each = 2;
        config.request_timeout = Duration::from_millis(300);
    })
    .await;
    let watch = || get(&format!("{MAPS}?watch=true"));
    let (one, two) = (
        cluster.open("admin", watch()).await,
        cluster.open("admin", watch()).await,
    );
    let refused = cluster.send("admin", watch()).await;
    assert_eq!(
        refusal(&refused),
        "429 TooManyRequests\nadmin has 2 watches open, and no user may have more; close some, or share one among readers\nretryAfterSeconds: 1"
    );
    let too_large = cluster.send("admin", post(MAPS, &config_map("big", 4 << 20))).await;
    assert_eq!(too_large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let mut liar = cluster.connect("admin").await;
    let head =
        format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{");
    liar.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    liar.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504");

    let metrics = cluster.send("admin", get("/metrics")).await.into_body();
    let limited: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("pilotis_apiserver_limited"))
        .collect();
    assert_eq!(
        limited,
        [
            "pilotis_apiserver_limited_total{limit=\"watches\",user=\"admin\"} 1",
            "pilotis_apiserver_limited_total{limit=\"body_size\",user=\"admin\"} 1",
            "pilotis_apiserver_limited_total{limit=\"request_time\",user=\"admin\"} 1",
        ]
    );
    drop((one, two));
}

/// Keeps what it is told.
#[derive(Default)]
struct Kept(std::sync::Mutex<Vec<Value>>);

impl auth::audit::Sink for Kept {
    fn record(&self, event: &auth::audit::Event) {
        self.0
            .lock()
            .unwrap()
            .push(serde_json::from_str(&event.json()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_reaches_the_registry_is_audited_too() {
    let kept = std::sync::Arc::new(Kept::default());
    let cluster = TestCluster::start_with(|config| config.audit = kept.clone()).await;
    let forged = Request::get(MAPS)
        .header("Authorization", "Bearer x")
        .header("Audit-ID", "mine")
        .body(String::new())
        .unwrap();
    let refused = cluster.send("", forged).await;
    assert_eq!(refused.headers()["audit-id"], "mine");
    cluster
        .send(
            "admin",
            Request::get("/version")
                .header("Impersonate-User", "jane")
                .body(String::new())
                .unwrap(),
        )
        .await;
    cluster.send("admin", get(MAPS)).await;
    let events = kept.0.lock().unwrap().clone();
    assert_eq!(events.len(), 2, "the list is the registry's to tell: {events:?}");
    let said = |event: &Value| {
        let part = |path: &str| event.pointer(path).cloned().unwrap_or_default();
        [
            part("/auditID"),
            part("/verb"),
            part("/requestURI"),
            part("/user/username"),
            part("/responseStatus/code"),
        ]
    };
    assert_eq!(
        said(&events[0]),
        [json!("mine"), json!("list"), json!(MAPS), json!(""), json!(401)]
    );
    assert_eq!(
        said(&events[1])[1..],
        [json!("get"), json!("/version"), json!("admin"), json!(200)]
    );
    assert_eq!(events[1]["impersonatedUser"]["username"], "jane");
    assert_eq!(
        (&events[0]["kind"], &events[0]["level"]),
        (&json!("Event"), &json!("Metadata"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_openapi_document_holds_together() {
    let cluster = TestCluster::start().await;
    let index = read(&cluster.send("admin", get("/openapi/v3")).await);
    for (path, entry) in index["paths"].as_object().unwrap() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let response = cluster.send("admin", get(url)).await;
        assert!(
            response.headers()["cache-control"]
                .to_str()
                .unwrap()
                .contains("immutable"),
            "{path}"
        );
        let document = read(&response);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        references(&document, &mut |reference| {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(
                schemas.contains_key(name),
                "{path}: {name} is referred to and not there"
            );
        });
    }
    let core = read(&cluster.send("admin", get("/openapi/v3/api/v1")).await);
    let containers = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let document = read(&cluster.send("admin", get("/openapi/v2")).await);
    references(&document, &mut |reference| {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        assert!(
            document["definitions"].get(name).is_some(),
            "{name} is referred to and not there"
        );
    });
}

fn references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(reference) if key == "$ref" => found(reference),
                    value => references(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}
