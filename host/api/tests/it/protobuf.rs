//! The session of a client that speaks protobuf, as client-go's typed clients and the kubelet do.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use model::Gvk;
use schema::protobuf::wire::{Fields, Wire};
use schema::protobuf::{TAIL, decode, head, schema_of};
use serde_json::{Value, json};

use crate::support::TestCluster;

const MEDIA: &str = "application/vnd.kubernetes.protobuf";
const BOTH: &str = "application/vnd.kubernetes.protobuf,application/json";
const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) fn encode(document: &Value) -> Bytes {
    let text = |name: &str| document[name].as_str().unwrap();
    let gvk = Gvk::from_api_version(text("apiVersion"), text("kind"));
    let schema = schema_of(&gvk).unwrap();
    let value = schema.decode(document.to_string().as_bytes()).unwrap().value;
    let message = schema.encode_protobuf(&value).unwrap();
    [&head(&gvk, message.len()), &message[..], TAIL].concat().into()
}

struct Answer {
    status: StatusCode,
    content: String,
    body: Bytes,
}

impl Answer {
    fn value(&self) -> Value {
        match self.content.as_str() {
            MEDIA => decode(&self.body).unwrap().1,
            _ => serde_json::from_slice(&self.body).unwrap(),
        }
    }

    /// In protobuf and no other way.
    fn protobuf(&self) -> Value {
        assert_eq!(self.content, MEDIA, "{:?}", self.body);
        self.value()
    }
}

async fn ask(cluster: &TestCluster, method: &str, path: &str, accept: &str, body: Option<Bytes>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("Accept", accept);
    if body.is_some() {
        request = request.header("Content-Type", MEDIA);
    }
    let response = cluster
        .open("admin", request.body(body.unwrap_or_default()).unwrap())
        .await;
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        content: parts.headers["content-type"].to_str().unwrap().to_owned(),
        body: body.collect().await.unwrap().to_bytes(),
    }
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "n", "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "web:1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1500m"}}, "readinessProbe": {"httpGet": {"port": "http"}},
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protobuf_client_sees_what_a_json_client_sees() {
    let cluster = TestCluster::start().await;
    let made = ask(&cluster, "POST", PODS, BOTH, Some(encode(&pod("web")))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.value());
    assert_eq!(made.protobuf()["spec"]["containers"][0]["image"], "web:1");
    let one = format!("{PODS}/web");
    let mut read = ask(&cluster, "GET", &one, BOTH, None).await.protobuf();
    assert_eq!(read, ask(&cluster, "GET", &one, "application/json", None).await.value());

    read["metadata"]["labels"]["app"] = "shop".into();
    let updated = ask(&cluster, "PUT", &one, BOTH, Some(encode(&read))).await;
    assert_eq!(updated.protobuf()["metadata"]["labels"]["app"], "shop");

    // Lists, whole and as metadata; short and long.
    for i in 0..300 {
        let made = ask(&cluster, "POST", PODS, BOTH, Some(encode(&pod(&format!("many-{i}"))))).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.value());
    }
    for query in ["?labelSelector=app%3Dshop", "?limit=2", ""] {
        let path = format!("{PODS}{query}");
        let list = ask(&cluster, "GET", &path, BOTH, None).await.protobuf();
        let mut json = ask(&cluster, "GET", &path, "application/json", None).await.value();
        for item in json["items"].as_array_mut().unwrap() {
            // Items in a list do not repeat their kind in protobuf.
            let item = item.as_object_mut().unwrap();
            item.remove("apiVersion");
            item.remove("kind");
        }
        assert_eq!(list, json, "{query}");
        let partial = format!("{MEDIA};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
        let list = ask(&cluster, "GET", &path, &partial, None).await.protobuf();
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!(list["items"][0]["metadata"], json["items"][0]["metadata"]);
    }
    let table = format!("{MEDIA};as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io");
    assert_eq!(ask(&cluster, "GET", PODS, &table, None).await.value()["kind"], "Table");

    // Subresources have kinds of their own.
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = ask(&cluster, "POST", deployments, BOTH, Some(encode(&deployment))).await;
    assert_eq!(made.protobuf()["spec"]["replicas"], 2);
    let mut scale = ask(&cluster, "GET", &format!("{deployments}/d/scale"), BOTH, None)
        .await
        .protobuf();
    assert_eq!(scale["kind"], "Scale");
    // It prints as itself, not as the Deployment whose it is.
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = ask(&cluster, "GET", &format!("{deployments}/d/scale"), table, None)
        .await
        .value();
    assert_eq!(table["columnDefinitions"][1]["name"], "Desired", "{table}");
    assert_eq!(table["rows"][0]["cells"][1], 2, "{table}");
    scale["spec"]["replicas"] = 5.into();
    let scaled = ask(
        &cluster,
        "PUT",
        &format!("{deployments}/d/scale"),
        BOTH,
        Some(encode(&scale)),
    )
    .await;
    assert_eq!(scaled.protobuf()["spec"]["replicas"], 5);

    // A delete with options that do not hold, then one whose options do.
    let options = |uid: &str| {
        encode(
            &json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}}),
        )
    };
    let refused = ask(&cluster, "DELETE", &one, BOTH, Some(options("other"))).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.protobuf()["reason"], "Conflict");
    let uid = read["metadata"]["uid"].as_str().unwrap();
    let gone = ask(&cluster, "DELETE", &one, BOTH, Some(options(uid))).await;
    assert_eq!(gone.status, StatusCode::OK, "{}", gone.value());
    let missing = ask(&cluster, "GET", &one, BOTH, None).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let status = missing.protobuf();
    assert_eq!(
        (&status["kind"], &status["details"]["name"]),
        (&json!("Status"), &json!("web"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_kinds_fall_back_to_json() {
    let cluster = TestCluster::start().await;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "pets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "pets", "kind": "Pet"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"toys": {"type": "object", "additionalProperties": {"type": "string"}}},
            }}}],
        },
    });
    let made = ask(
        &cluster,
        "POST",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        BOTH,
        Some(encode(&crd)),
    )
    .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.value());
    let schema = &made.protobuf()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(
        schema["properties"]["toys"]["additionalProperties"],
        json!({"type": "string"})
    );
    let pets = "/apis/example.com/v1/pets";
    let pet = json!({"apiVersion": "example.com/v1", "kind": "Pet", "metadata": {"name": "rex"}}).to_string();
    let post = || {
        Request::post(pets)
            .header("Content-Type", "application/json")
            .body(pet.clone())
            .unwrap()
    };
    // The kind is served as soon as its definition is established.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while cluster.send("admin", post()).await.status() == StatusCode::NOT_FOUND {
        assert!(tokio::time::Instant::now() < deadline, "pets are not served");
        tokio::task::yield_now().await;
    }
    let rex = format!("{pets}/rex");
    let read = ask(&cluster, "GET", &rex, BOTH, None).await;
    assert_eq!(
        (read.content.as_str(), &read.value()["kind"]),
        ("application/json", &json!("Pet"))
    );
    let refused = ask(&cluster, "GET", &rex, MEDIA, None).await;
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(
        refused.protobuf()["message"],
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let partial = format!("{MEDIA};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let metadata = ask(&cluster, "GET", &rex, &partial, None).await.protobuf();
    assert_eq!(
        (&metadata["kind"], &metadata["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("rex"))
    );
    // A body of a kind without a protobuf form, and one that is damaged.
    let envelope = [&head(&Gvk::new("example.com", "v1", "Pet"), 0), TAIL].concat();
    let refused = ask(&cluster, "POST", pets, BOTH, Some(envelope.into())).await;
    assert_eq!(
        refused.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "{}",
        refused.value()
    );
    let refused = ask(&cluster, "POST", PODS, BOTH, Some(Bytes::from_static(b"k8s\0\x0a\x7f"))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_in_frames() {
    let cluster = TestCluster::start().await;
    let made = ask(&cluster, "POST", PODS, BOTH, Some(encode(&pod("web")))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.value());
    let query = "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let request = Request::get(format!("{PODS}{query}")).header("Accept", format!("{MEDIA};stream=watch,{BOTH}"));
    let response = cluster.open("admin", request.body(Bytes::new()).unwrap()).await;
    assert_eq!(
        response.headers()["content-type"],
        format!("{MEDIA};stream=watch").as_str()
    );
    let mut body = response.into_body();
    let mut left = BytesMut::new();
    let mut next = async || loop {
        if left.len() >= 4 {
            let length = u32::from_be_bytes(left[..4].try_into().unwrap()) as usize;
            if left.len() >= 4 + length {
                return event(&left.split_to(4 + length)[4..]);
            }
        }
        let frame = tokio::time::timeout(Duration::from_secs(30), body.frame())
            .await
            .expect("an event");
        left.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
    };
    let (kind, object) = next().await;
    assert_eq!((kind.as_str(), &object["metadata"]["name"]), ("ADDED", &json!("web")));
    let (kind, object) = next().await;
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let gone = ask(
        &cluster,
        "DELETE",
        &format!("{PODS}/web?gracePeriodSeconds=0"),
        BOTH,
        None,
    )
    .await;
    assert_eq!(gone.status, StatusCode::OK);
    let (mut kind, mut object) = next().await;
    while kind == "MODIFIED" {
        (kind, object) = next().await;
    }
    assert_eq!((kind.as_str(), &object["kind"]), ("DELETED", &json!("Pod")));
    // A deleted object is at the version of its deletion, in each form.
    assert_ne!(
        object["metadata"]["resourceVersion"],
        made.value()["metadata"]["resourceVersion"]
    );
    let yaml = ask(&cluster, "GET", &format!("{PODS}?watch=1"), "application/yaml", None).await;
    assert_eq!(yaml.status, StatusCode::NOT_ACCEPTABLE);
}

fn event(frame: &[u8]) -> (String, Value) {
    let (mut kind, mut object) = (String::new(), Value::Null);
    for field in Fields(frame) {
        match field.unwrap() {
            (1, Wire::Bytes(text)) => kind = String::from_utf8(text.to_vec()).unwrap(),
            (2, Wire::Bytes(raw)) => {
                let Some(Ok((1, Wire::Bytes(document)))) = Fields(raw).next() else {
                    panic!("an event without an object");
                };
                object = decode(document).unwrap().1;
            }
            other => panic!("{other:?}"),
        }
    }
    (kind, object)
}
