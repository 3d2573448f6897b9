//! Every built-in kind through every verb, with the documents that the registry keeps of it (`host/registry/cases/kinds`).
//!
//! What holds for all of them: a dry run leaves nothing; what was read is no change when it is written back, in JSON, in
//! protobuf, as any patch; what a client sent first is no change when it is sent as a patch or applied a second time; a
//! watch tells of each version once and in order; and a refusal has the causes that the registry keeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use model::Gvk;
use schema::protobuf::{decode, schema_of};
use serde_json::{Value, json};

use crate::protobuf::encode;
use crate::support::TestCluster;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// What discovery tells of a kind.
struct Kind {
    gvk: Gvk,
    plural: String,
    /// `/apis/apps/v1/namespaces/default/deployments`
    collection: String,
    verbs: Vec<String>,
    has_status: bool,
    /// Kubernetes' own, so that it has a form in protobuf and strategic merge patches.
    native: bool,
}

/// A document that may be created, and one that may not, with `REASON FIELD: MESSAGE` of each cause.
#[derive(Default)]
struct Documents {
    good: Option<Value>,
    bad: Option<(Value, Vec<String>)>,
}

impl Kind {
    /// Those that take a part of the document, by a name for each.
    fn patches(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let strategic = self
            .native
            .then_some(("strategic", "application/strategic-merge-patch+json"));
        [("merge", "application/merge-patch+json")].into_iter().chain(strategic)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_goes_through_every_verb() {
    let cluster = TestCluster::start().await;
    let mut documents = documents();
    let mut wrong = Vec::new();
    for kind in kinds(&cluster).await {
        let of_this = documents.remove(&format!("{}/{}", kind.gvk.api_version(), kind.plural));
        let told = match of_this.and_then(|documents| documents.good.zip(documents.bad)) {
            Some((good, (bad, causes))) => through(&cluster, &kind, good, bad, &causes).await,
            None => Err("has no case that is taken and one that is refused".into()),
        };
        if let Err(why) = told {
            wrong.push(format!("{}: {why}", kind.gvk));
        }
    }
    let left: Vec<&String> = documents.keys().collect();
    assert!(left.is_empty(), "kept and not in discovery: {left:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first of each sort, by `GROUP/VERSION/PLURAL`. (How the files are read says `registry::tests::cases`.)
fn documents() -> BTreeMap<String, Documents> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../registry/cases/kinds");
    let mut all: BTreeMap<String, Documents> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for case in format!("\n{text}").split("\n> create ").skip(1) {
            let (path, rest) = case.split_once('\n').unwrap();
            // Until the next case, whatever its verb.
            let rest = rest.split("\n> ").next().unwrap();
            let (document, answer) = rest.split_once("----\n").unwrap();
            let mut document: Value = serde_yaml_ng::from_str(document).unwrap();
            let meta = &mut document["metadata"];
            if meta["generateName"].is_null() && meta["name"].is_null() {
                meta["name"] = "a".into();
            }
            let of_kind = all.entry(resource(path)).or_default();
            if !answer.starts_with("FieldValue") {
                of_kind.good.get_or_insert(document);
            } else if of_kind.bad.is_none() {
                let causes = answer.trim_end().lines().map(str::to_owned).collect();
                of_kind.bad = Some((document, causes));
            }
        }
    }
    all
}

/// `apps/v1/deployments` of `apps/v1/deployments/default`, and `v1/pods` of `pods/default`.
fn resource(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let is_version = |part: &&str| part.starts_with('v') && part[1..].starts_with(|c: char| c.is_ascii_digit());
    match parts.iter().position(is_version) {
        Some(at) => parts[..=at + 1].join("/"),
        None => format!("v1/{}", parts[0]),
    }
}

/// Those that discovery lists and whose objects can be made and read.
async fn kinds(cluster: &TestCluster) -> Vec<Kind> {
    let get = async |path: &str| {
        ask(cluster, "GET", path, JSON, JSON, Bytes::new())
            .await
            .is(200)
            .unwrap()
    };
    let mut roots = vec![("/api/v1".to_owned(), "v1".to_owned())];
    for group in get("/apis").await["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let version = version["groupVersion"].as_str().unwrap();
            roots.push((format!("/apis/{version}"), version.to_owned()));
        }
    }
    let mut kinds = Vec::new();
    for (root, version) in roots {
        let list = get(&root).await;
        let resources = list["resources"].as_array().unwrap();
        let names: Vec<&str> = resources.iter().filter_map(|one| one["name"].as_str()).collect();
        for one in resources {
            let plural = one["name"].as_str().unwrap();
            let verbs: Vec<String> = serde_json::from_value(one["verbs"].clone()).unwrap();
            if plural.contains('/') || !["create", "get"].iter().all(|verb| verbs.iter().any(|v| v == verb)) {
                continue;
            }
            let within = if one["namespaced"] == true {
                "/namespaces/default"
            } else {
                ""
            };
            let gvk = Gvk::from_api_version(&version, one["kind"].as_str().unwrap());
            kinds.push(Kind {
                native: schema_of(&gvk).is_ok(),
                gvk,
                collection: format!("{root}{within}/{plural}"),
                has_status: names.contains(&format!("{plural}/status").as_str()),
                plural: plural.to_owned(),
                verbs,
            });
        }
    }
    kinds
}

/// An answer, and what was asked.
struct Answer {
    asked: String,
    status: u16,
    content: String,
    body: Bytes,
}

impl Answer {
    fn is(self, status: u16) -> Result<Value, String> {
        let value = match self.content.as_str() {
            PROTOBUF => decode(&self.body).map_err(|error| error.to_string())?.1,
            _ => serde_json::from_slice(&self.body).map_err(|error| error.to_string())?,
        };
        match self.status == status {
            true => Ok(value),
            false => Err(format!(
                "{}: {status} was expected, not {}: {value}",
                self.asked, self.status
            )),
        }
    }
}

async fn open(
    cluster: &TestCluster,
    method: &str,
    path: &str,
    content: &str,
    accept: &str,
    body: Bytes,
) -> http::Response<Incoming> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("Content-Type", content).header("Accept", accept);
    cluster.open("admin", request.body(body).unwrap()).await
}

async fn ask(cluster: &TestCluster, method: &str, path: &str, content: &str, accept: &str, body: Bytes) -> Answer {
    let response = open(cluster, method, path, content, accept, body).await;
    Answer {
        asked: format!("{method} {path} ({content})"),
        status: response.status().as_u16(),
        content: response.headers()["content-type"].to_str().unwrap().to_owned(),
        body: response.into_body().collect().await.unwrap().to_bytes(),
    }
}

/// Without what only tells that something was written.
fn content(object: &Value) -> Value {
    let mut object = object.clone();
    let meta = object["metadata"].as_object_mut().expect("metadata");
    for key in ["resourceVersion", "managedFields"] {
        meta.remove(key);
    }
    object
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

fn same(what: &str, found: &Value, wanted: &Value) -> Result<(), String> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what}:\n  {found}\nand not\n  {wanted}")),
    }
}

async fn through(
    cluster: &TestCluster,
    kind: &Kind,
    mut good: Value,
    mut bad: Value,
    causes: &[String],
) -> Result<(), String> {
    for document in [&mut good, &mut bad] {
        document["apiVersion"] = kind.gvk.api_version().into();
        document["kind"] = kind.gvk.kind.as_str().into();
    }
    let name = good["metadata"]["name"]
        .as_str()
        .ok_or("the document has no name")?
        .to_owned();
    let (all, one) = (&kind.collection, format!("{}/{name}", kind.collection));
    let send = async |method: &str, path: &str, content: &str, body: &Value| {
        let body = Some(body).filter(|body| !body.is_null()).map(ToString::to_string);
        ask(cluster, method, path, content, JSON, body.unwrap_or_default().into()).await
    };
    let get = async |path: &str| send("GET", path, JSON, &Value::Null).await.is(200);

    let refused = send("POST", all, JSON, &bad).await.is(422)?;
    same("the causes", &json!(told(&refused)), &json!(causes))?;

    let list = get(all).await?;
    let query = format!(
        "watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={}",
        version(&list)
    );
    let watch = open(cluster, "GET", &format!("{all}?{query}"), JSON, JSON, Bytes::new()).await;
    let tried = send("POST", &format!("{all}?dryRun=All"), JSON, &good).await.is(201)?;
    send("GET", &one, JSON, &Value::Null).await.is(404)?;
    let made = send("POST", &format!("{all}?fieldValidation=Strict"), JSON, &good)
        .await
        .is(201)?;
    same("the kind that was tried", &tried["kind"], &made["kind"])?;
    let mut now = settled(kind, get, &one).await?;

    // What was read, and what was sent, changes nothing when it comes again.
    let again = send("PUT", &one, JSON, &now).await.is(200)?;
    same("a PUT of what was read", &again, &now)?;
    for (patch, content) in kind.patches() {
        for (what, document) in [("what was read", &now), ("what was sent", &good)] {
            // A merge patch replaces lists, and with them what was filled in beside what was sent.
            if (patch, what) != ("merge", "what was sent") {
                let again = send("PATCH", &one, content, document).await.is(200)?;
                same(&format!("{what}, as a {patch} patch"), &again, &now)?;
            }
        }
    }
    let mut applied = Value::Null;
    for _ in 0..2 {
        let path = format!("{one}?fieldManager=applier&force=true");
        let next = send("PATCH", &path, "application/apply-patch+yaml", &good)
            .await
            .is(200)?;
        same("what was applied", &content(&next), &content(&now))?;
        applied = match applied {
            Value::Null => next,
            first => {
                same("what was applied twice", &next, &first)?;
                next
            }
        };
    }
    let owners = applied["metadata"]["managedFields"]
        .as_array()
        .ok_or("it has no managers")?;
    if !owners
        .iter()
        .any(|owner| owner["manager"] == "applier" && owner["operation"] == "Apply")
    {
        return Err(format!("the applier owns nothing: {applied}"));
    }

    // One label by each way to write it.
    now = applied;
    now["metadata"]["labels"]["put"] = "1".into();
    send("PUT", &one, JSON, &now).await.is(200)?;
    let steps = json!([{"op": "test", "path": "/metadata/name", "value": name}, {"op": "add", "path": "/metadata/labels/json", "value": "1"}]);
    send("PATCH", &one, "application/json-patch+json", &steps)
        .await
        .is(200)?;
    for (label, content) in kind.patches() {
        let document = json!({"metadata": {"labels": {label: "1"}}});
        send("PATCH", &format!("{one}?dryRun=All"), content, &document)
            .await
            .is(200)?;
        send("PATCH", &one, content, &document).await.is(200)?;
    }
    let late = send("PUT", &one, JSON, &made).await.is(409)?;
    same("the reason", &late["reason"], &json!("Conflict"))?;
    now = get(&one).await?;
    for label in ["put", "json"].into_iter().chain(kind.patches().map(|(name, _)| name)) {
        same(label, &now["metadata"]["labels"][label], &json!("1"))?;
    }
    same(
        "the generation",
        &now["metadata"]["generation"],
        &made["metadata"]["generation"],
    )?;
    if kind.has_status {
        let status = format!("{one}/status");
        same("its status", &get(&status).await?, &now)?;
        let again = send("PUT", &status, JSON, &now).await.is(200)?;
        same("a PUT of its status", &again, &now)?;
    }

    forms(cluster, kind, &one, &now).await?;
    let found = get(&format!(
        "{all}?labelSelector=put%3D1&fieldSelector=metadata.name%3D{name}"
    ))
    .await?;
    same(
        "how many are listed",
        &json!(found["items"].as_array().map(Vec::len)),
        &json!(1),
    )?;
    same(
        "the one that is listed",
        &content(&found["items"][0])["metadata"],
        &content(&now)["metadata"],
    )?;

    if kind.verbs.iter().any(|verb| verb == "delete") {
        send("DELETE", &format!("{one}?dryRun=All"), JSON, &Value::Null)
            .await
            .is(200)?;
        same("what a delete left that was a dry run", &get(&one).await?, &now)?;
        let at_once = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        send("DELETE", &one, JSON, &at_once).await.is(200)?;
        watched(watch, &name).await?;
    }
    Ok(())
}

/// A definition is written to as soon as it is there, by those who serve it.
async fn settled(kind: &Kind, get: impl AsyncFn(&str) -> Result<Value, String>, path: &str) -> Result<Value, String> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let now = get(path).await?;
        let conditions = now["status"]["conditions"].as_array();
        let established =
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
        if established || kind.gvk.kind != "CustomResourceDefinition" {
            return Ok(now);
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("it is not established: {now}"));
        }
        tokio::task::yield_now().await;
    }
}

/// `REASON FIELD: MESSAGE` of each cause, as the registry keeps them; of the object as a whole, `REASON MESSAGE`.
fn told(status: &Value) -> Vec<String> {
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let one = |cause: &Value| {
        let [reason, field, message] =
            ["reason", "field", "message"].map(|key| cause[key].as_str().unwrap_or_default());
        match field {
            "" => format!("{reason} {message}"),
            _ => format!("{reason} {field}: {message}"),
        }
    };
    causes.map(one).collect()
}

/// The object as a row, as metadata, and in protobuf.
async fn forms(cluster: &TestCluster, kind: &Kind, one: &str, now: &Value) -> Result<(), String> {
    for path in [one, &kind.collection] {
        let table = ask(cluster, "GET", path, JSON, TABLE, Bytes::new()).await.is(200)?;
        let columns = table["columnDefinitions"].as_array().map(Vec::len);
        let rows = table["rows"].as_array().ok_or("a table without rows")?;
        let name = &now["metadata"]["name"];
        let row = rows
            .iter()
            .find(|row| row["object"]["metadata"]["name"] == *name)
            .ok_or("it has no row")?;
        same(
            "the cells of its row",
            &json!(row["cells"].as_array().map(Vec::len)),
            &json!(columns),
        )?;
    }
    let partial = format!("{JSON};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let partial = ask(cluster, "GET", one, JSON, &partial, Bytes::new()).await.is(200)?;
    same("its metadata", &partial["metadata"], &now["metadata"])?;
    let either = format!("{PROTOBUF},{JSON}");
    let answer = ask(cluster, "GET", one, JSON, &either, Bytes::new()).await;
    if !kind.native {
        return same("its form", &json!(answer.content), &json!(JSON));
    }
    same("its form", &json!(answer.content), &json!(PROTOBUF))?;
    let read = answer.is(200)?;
    same("it in protobuf", &read, now)?;
    let again = ask(cluster, "PUT", one, PROTOBUF, &either, encode(&read))
        .await
        .is(200)?;
    same("a PUT in protobuf of what was read", &again, now)
}

/// Each version once, in order, from its first to its end: gone, or, where a finalizer holds it, dying.
async fn watched(response: http::Response<Incoming>, name: &str) -> Result<(), String> {
    let mut body = response.into_body();
    let (mut left, mut seen, mut last) = (BytesMut::new(), 0, 0);
    loop {
        let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
            let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
            let frame = frame.map_err(|_| format!("the watch does not tell of its end after {seen} events"))?;
            let frame = frame.ok_or("the watch ended")?.map_err(|error| error.to_string())?;
            left.extend_from_slice(&frame.into_data().unwrap_or_default());
            continue;
        };
        let event: Value = serde_json::from_slice(&left.split_to(end + 1)).map_err(|error| error.to_string())?;
        let object = &event["object"];
        same("the object that is watched", &object["metadata"]["name"], &json!(name))?;
        let version: u64 = version(object)
            .parse()
            .map_err(|_| format!("an event without a version: {event}"))?;
        let held = [&object["metadata"], &object["spec"]]
            .iter()
            .any(|at| at["finalizers"].is_array());
        let dying = !object["metadata"]["deletionTimestamp"].is_null();
        match event["type"].as_str() {
            Some("ADDED") if seen == 0 => {}
            Some("MODIFIED") if seen > 0 && version > last => {}
            Some("DELETED") if seen > 0 && version > last => return Ok(()),
            _ => return Err(format!("event {seen} after version {last}: {event}")),
        }
        if dying && held {
            return Ok(());
        }
        (seen, last) = (seen + 1, version);
    }
}
