//! Decisions as data: a cluster goes in, intents come out, and `BLESS=1` rewrites what is expected.
//!
//! A case is one YAML file of two documents. The first is written by hand, the second by `BLESS=1 cargo test`:
//! ```yaml
//! run: apps/v1/ReplicaSet default/web
//! now: 2026-01-01T00:00:00Z
//! objects:
//!   - apiVersion: apps/v1
//!     kind: ReplicaSet
//!     metadata: {name: web}
//!     spec: {replicas: 1}
//! ---
//! - create: {apiVersion: v1, kind: Pod}
//! ```
//! The objects are read through the host's own view, so that selectors, orders and paths mean here what they mean there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use client::Cluster;
use client::fake::Fake;
use serde::Deserialize;
use view::AllGranted;

use crate::controller::{Intent, Outcome, Precondition, Propagation, Reconcile, Refusal, Request};
use crate::error::Reason;
use crate::view::View;
use crate::{Error, Instant, ObjectKey, Result, Value, json};

/// What is written by hand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Kind, then namespace and name: `apps/v1/ReplicaSet default/web`.
    run: String,
    #[serde(default = "new_year")]
    now: String,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    memo: String,
    /// The refusal of the last run's intents.
    refused: Option<Refused>,
    objects: Vec<Value>,
    /// What changes after a first run, whose answer is only remembered: the case is about the run after that, with the
    /// first one's memo. `metadata` with a `deletionTimestamp` and no finalizers: the object goes.
    #[serde(default)]
    then: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    intent: u32,
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default = "one")]
    times: u32,
}

fn new_year() -> String {
    "2026-01-01T00:00:00Z".to_owned()
}

fn one() -> u32 {
    1
}

/// Runs one case; `path` is relative to the crate.
///
/// # Panics
/// When the answer is not the expected one, with both; or when the file cannot be read as a case.
pub fn case<Args>(reconcile: impl Reconcile<Args>, path: impl AsRef<Path>) {
    let path = in_crate(path.as_ref());
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (input, expected) = text.split_once("\n---\n").unwrap_or((text.trim_end(), ""));
    let case: Case = serde_yaml_ng::from_str(input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let answer = run(&reconcile, &case).map_or_else(
        |error| json!([{"failure": {"reason": format!("{:?}", error.reason), "message": error.message}}]),
        |outcome| told(&outcome),
    );
    if env::var("BLESS").is_ok_and(|value| value == "1") {
        let answer = serde_yaml_ng::to_string(&answer).expect("JSON is YAML");
        fs::write(&path, format!("{input}\n---\n{answer}")).expect("the case can be written");
        return;
    }
    let expected: Value =
        serde_yaml_ng::from_str(expected).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        answer == expected,
        "{}: the answer is not the expected one (BLESS=1 takes the new one)\n--- answer\n{}--- expected\n{}",
        path.display(),
        serde_yaml_ng::to_string(&answer).expect("JSON is YAML"),
        serde_yaml_ng::to_string(&expected).expect("JSON is YAML"),
    );
}

/// Runs every case of a folder, in name order, and tells of all that fail.
///
/// # Panics
/// When one fails, or there is none.
pub fn cases<Args>(reconcile: impl Reconcile<Args>, folder: impl AsRef<Path>) {
    let folder = in_crate(folder.as_ref());
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no case", folder.display());
    let failed = paths.iter().filter(|path| {
        let one = std::panic::AssertUnwindSafe(|| case(ByRef(&reconcile), path));
        std::panic::catch_unwind(one).is_err()
    });
    let failed: Vec<String> = failed.map(|path| path.display().to_string()).collect();
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

struct ByRef<'a, R>(&'a R);

impl<Args, R: Reconcile<Args>> Reconcile<Args> for ByRef<'_, R> {
    fn reconcile(&self, request: &Request, view: &View) -> Result<Outcome> {
        self.0.reconcile(request, view)
    }
}

fn in_crate(path: &Path) -> PathBuf {
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("tests are run by cargo");
    Path::new(&root).join(path)
}

fn run<Args>(reconcile: &impl Reconcile<Args>, case: &Case) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let fake = Fake::new();
        case.objects.iter().cloned().for_each(|object| drop(fake.put(object)));
        let now = Instant::parse(&case.now).ok_or_else(|| Error::invalid("`now` is not a time"))?;
        let caller = model::Caller::component("system:test", &[]);
        let cluster: Arc<dyn Cluster> = fake.cluster();
        let view = ::view::View::new(cluster, caller, Arc::new(move || now.0));
        crate::controller::set_config(case.config.to_string().as_bytes())?;
        let request = request(case, now)?;
        let first = filled(reconcile, &request, &view).await;
        if case.then.is_empty() {
            return first;
        }
        let mut floor = ::view::Floor::default();
        for object in &case.then {
            let goes = !object["metadata"]["deletionTimestamp"].is_null() && object["metadata"]["finalizers"].is_null();
            let put = fake.put(object.clone());
            floor.at_least(&put.gvk, put.version);
            if goes && fake.remove(&put.key) {
                floor.gone(&put.gvk, &put.key.namespace, &put.key.name, put.uid.clone());
            }
        }
        view.reach(&floor).await;
        filled(
            reconcile,
            &Request {
                memo: first?.memo,
                refused: None,
                ..request
            },
            &view,
        )
        .await
    })
}

/// A kind is filled when it is first read; then the call is made again, as the host does.
async fn filled<Args>(
    reconcile: &impl Reconcile<Args>,
    request: &Request,
    view: &Arc<::view::View>,
) -> Result<Outcome> {
    loop {
        let recorded = Arc::new(view.open(Arc::new(AllGranted)));
        let answer = reconcile.reconcile(request, &View::recorded(recorded.clone()));
        let unfilled = recorded.unfilled();
        if unfilled.is_empty() {
            return answer;
        }
        view.fill(&unfilled).await.map_err(Error::internal)?;
    }
}

fn request(case: &Case, now: Instant) -> Result<Request> {
    let (kind, whose) = case
        .run
        .split_once(' ')
        .ok_or_else(|| Error::invalid("`run` is a kind, a space, and namespace/name"))?;
    let (namespace, name) = whose.split_once('/').unwrap_or(("", whose));
    let refused = case.refused.as_ref().map(|refused| {
        let reason = match refused.reason.as_str() {
            "conflict" => Reason::Conflict,
            "already-exists" => Reason::AlreadyExists,
            "forbidden" => Reason::Forbidden,
            "invalid" => Reason::Invalid,
            "not-found" => Reason::NotFound,
            "too-many-requests" => Reason::TooManyRequests,
            _ => Reason::Internal,
        };
        let why = Error::new(reason, refused.message.clone()).into();
        Refusal {
            intent: refused.intent,
            why,
            times: refused.times,
        }
    });
    let memo = case.memo.clone().into_bytes();
    Ok(Request {
        key: ObjectKey::new(kind, namespace, name),
        refused,
        memo,
        now,
    })
}

/// Intents as a person reads them.
fn told(outcome: &Outcome) -> Value {
    let mut list: Vec<Value> = outcome.intents.iter().map(intent).collect();
    if !outcome.memo.is_empty() {
        list.push(json!({"memo": String::from_utf8_lossy(&outcome.memo)}));
    }
    list.into()
}

fn intent(intent: &Intent) -> Value {
    match intent {
        Intent::Apply((object, precondition)) => {
            json!({"apply": document(object), "when": when(precondition)})
        }
        Intent::Create(object) => json!({"create": document(object)}),
        Intent::SetStatus((object, precondition)) => {
            json!({"set-status": document(object), "when": when(precondition)})
        }
        Intent::Patch(patch) => json!({
            "patch": place(&patch.key), "subresource": patch.subresource, "body": document(&patch.body), "when": when(&patch.when),
        }),
        Intent::Remove((key, precondition, propagation)) => {
            let mut told = json!({"remove": place(key), "when": when(precondition)});
            if *propagation != Propagation::Background {
                told["propagation"] = format!("{propagation:?}").into();
            }
            told
        }
        Intent::RemoveAll((kind, which)) => json!({
            "remove-all": kind, "namespace": which.namespace, "labels": which.labels, "equals": which.equals,
        }),
        Intent::SetScale((key, replicas, precondition)) => {
            json!({"set-scale": place(key), "replicas": replicas, "when": when(precondition)})
        }
        Intent::RemoveFinalizer((key, finalizer, precondition)) => {
            json!({"remove-finalizer": place(key), "finalizer": finalizer, "when": when(precondition)})
        }
        Intent::Evict((key, precondition)) => {
            json!({"evict": place(key), "when": when(precondition)})
        }
        Intent::Event(event) => json!({
            "event": format!("{}{}: {}", if event.warning { "Warning " } else { "" }, event.reason, event.message),
            "about": place(&event.about),
        }),
        Intent::Other((number, bytes)) => json!({"other": number, "bytes": bytes.len()}),
    }
}

fn document(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(json).into_owned()))
}

fn place(key: &ObjectKey) -> String {
    if key.namespace.is_empty() {
        format!("{} {}", key.kind, key.name)
    } else {
        format!("{} {}/{}", key.kind, key.namespace, key.name)
    }
}

fn when(precondition: &Precondition) -> String {
    match precondition {
        Precondition::Uid(uid) => format!("uid {uid}"),
        Precondition::Version(version) => format!("version {version}"),
        Precondition::FieldsAsRead((uid, fields)) => format!("uid {uid}, as read: {fields}"),
        Precondition::Absent => "absent".to_owned(),
        Precondition::None => "none".to_owned(),
        Precondition::Other((number, _)) => format!("other {number}"),
    }
}
