//! What every controller is promised, told with small native ones on a fake cluster.

mod chance;
mod reads;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::sdk_columns::Columns;
use async_trait::async_trait;
use bytes::Bytes;
use client::fake::Fake;
use model::{Caller, Failure, Gvk, ObjectKey};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use view::{AllGranted, RecordedView, Recording, Selection, View};

use crate::{
    Controller, Intent, Key, Observer, Options, Outcome, Precondition, Propagation, Reconciler, Refusal, Request, Run,
};

type Decide = Arc<dyn Fn(&Request, &RecordedView) -> Result<Outcome, Failure> + Send + Sync>;

/// A reconciler that is a function, and may be exchanged for another like a plugin's revision.
struct Native {
    subject: Gvk,
    decide: Mutex<Decide>,
    revision: watch::Sender<u64>,
}

impl Native {
    fn new(
        subject: &str,
        decide: impl Fn(&Request, &RecordedView) -> Result<Outcome, Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            subject: Gvk::parse(subject).unwrap(),
            decide: Mutex::new(Arc::new(decide)),
            revision: watch::Sender::new(0),
        })
    }

    fn swap(&self, decide: impl Fn(&Request, &RecordedView) -> Result<Outcome, Failure> + Send + Sync + 'static) {
        *self.decide.lock() = Arc::new(decide);
        self.revision.send_modify(|n| *n += 1);
    }
}

#[async_trait]
impl Reconciler for Native {
    fn subject(&self) -> Option<Gvk> {
        Some(self.subject.clone())
    }

    fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    async fn reconcile(&self, request: &Request, view: Arc<RecordedView>) -> Result<Outcome, Failure> {
        let decide = self.decide.lock().clone();
        decide(request, &view)
    }
}

/// Every run there was.
#[derive(Default)]
struct Log {
    runs: Mutex<Vec<Ran>>,
    moved: watch::Sender<usize>,
}

#[derive(Clone)]
struct Ran {
    key: Key,
    refused_before: Option<Refusal>,
    refused: Option<Refusal>,
    why: String,
    recording: Recording,
    answer: Option<Outcome>,
}

impl Observer for Log {
    fn ran(&self, run: &Run<'_>) {
        let ran = Ran {
            key: run.request.key.clone(),
            refused_before: run.request.refused.clone(),
            refused: run.refused.cloned(),
            why: run.why.map(ToString::to_string).unwrap_or_default(),
            recording: run.recording(),
            answer: run.answer.as_ref().ok().cloned(),
        };
        self.runs.lock().push(ran);
        self.moved.send_modify(|n| *n += 1);
    }
}

impl Log {
    async fn until(&self, what: &str, mut holds: impl FnMut(&[Ran]) -> bool) {
        let mut moved = self.moved.subscribe();
        let wait = moved.wait_for(|_| holds(&self.runs.lock()));
        let in_time = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(in_time.is_ok(), "not in 20 s: {what}; runs: {:?}", self.whys());
    }

    fn of(&self, name: &str) -> Vec<Ran> {
        self.runs
            .lock()
            .iter()
            .filter(|ran| ran.key.name == name)
            .cloned()
            .collect()
    }

    fn whys(&self) -> Vec<(String, String)> {
        self.runs
            .lock()
            .iter()
            .map(|ran| (ran.key.name.clone(), ran.why.clone()))
            .collect()
    }
}

struct Stage {
    fake: Fake,
    view: Arc<View>,
    log: Arc<Log>,
    controller: Controller,
}

fn stage(fake: &Fake, reconciler: Arc<Native>) -> Stage {
    stage_with(fake, reconciler, 1, None)
}

fn stage_with(
    fake: &Fake,
    reconciler: Arc<Native>,
    at_once: usize,
    term: Option<watch::Receiver<Option<u64>>>,
) -> Stage {
    let view = View::new(
        fake.cluster(),
        Caller::component("system:view", &[]),
        view::system_time(),
    );
    let log = Arc::new(Log::default());
    let options = Options {
        name: "replicaset".into(),
        cluster: fake.cluster(),
        view: view.clone(),
        grants: Arc::new(AllGranted),
        at_once,
        term,
        observer: Some(log.clone()),
    };
    let controller = Controller::start(reconciler, options);
    Stage {
        fake: fake.clone(),
        view,
        log,
        controller,
    }
}

async fn until(fake: &Fake, what: &str, holds: impl FnMut(&Fake) -> bool) {
    let in_time = tokio::time::timeout(Duration::from_secs(20), fake.until(holds)).await;
    assert!(in_time.is_ok(), "not in 20 s: {what}");
}

fn pods() -> Gvk {
    Gvk::new("", "v1", "Pod")
}

fn set(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": {"replicas": replicas}})
}

fn key(resource: (&str, &str), name: &str) -> ObjectKey {
    ObjectKey::new(model::GroupResource::new(resource.0, resource.1), "default", name)
}

const SETS: (&str, &str) = ("apps", "replicasets");

fn number(answer: &Bytes, row: usize, column: usize) -> i64 {
    Columns::parse(answer).unwrap().cell(row, column).i64().unwrap_or(0)
}

fn text(answer: &Bytes, row: usize, column: usize) -> String {
    Columns::parse(answer).unwrap().cell(row, column).str().to_owned()
}

fn owned_by(uid: &str) -> Selection {
    Selection::namespace("default").equals(".metadata.ownerReferences[controller=true].uid", uid)
}

/// Keeps as many pods as a set asks for; `mark` tells pods of one revision of it from another's.
fn replicas(mark: &'static str) -> impl Fn(&Request, &RecordedView) -> Result<Outcome, Failure> + Send + Sync {
    move |request, view| {
        let Key { kind, namespace, name } = &request.key;
        let own = view.get(kind, namespace, name, ".metadata.uid .spec.replicas .status.replicas")?;
        if Columns::parse(&own).unwrap().is_empty() {
            return Ok(Outcome::default());
        }
        let (uid, wanted) = (text(&own, 0, 0), number(&own, 0, 1));
        let tally = view.tally(&pods(), &owned_by(&uid), ".status.phase", "")?;
        let there: i64 = (0..Columns::parse(&tally).unwrap().rows())
            .map(|row| number(&tally, row, 1))
            .sum();
        let mut intents = Vec::new();
        for _ in there..wanted {
            let owner =
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid, "controller": true}]);
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"generateName": format!("{name}-"), "namespace": namespace, "labels": {"by": mark}, "ownerReferences": owner},
            });
            intents.push(Intent::Create {
                body: pod.to_string().into(),
            });
        }
        if there > wanted {
            let extra = view.find(
                &pods(),
                &owned_by(&uid),
                ".metadata.name .metadata.uid",
                "",
                (there - wanted) as u32,
            )?;
            for row in Columns::parse(&extra).unwrap().iter() {
                let key = Key::new(pods(), namespace, row.str(0));
                let when = Precondition::Uid(row.str(1).into());
                intents.push(Intent::Remove {
                    key,
                    when,
                    propagation: Propagation::Background,
                });
            }
        }
        if number(&own, 0, 2) != there {
            let body = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": name, "namespace": namespace}, "status": {"replicas": there}});
            intents.push(Intent::SetStatus {
                body: body.to_string().into(),
                when: Precondition::Uid(uid),
            });
        }
        Ok(Outcome {
            intents,
            memo: Bytes::new(),
        })
    }
}

/// A ReplicaSet `web` that has all its pods.
async fn web(replicas: i64) -> (Fake, Stage) {
    let fake = Fake::new();
    fake.put(set("web", replicas));
    let stage = stage(&fake, Native::new("apps/v1/ReplicaSet", self::replicas("a")));
    has_pods(&fake, replicas).await;
    (fake, stage)
}

/// Until there are that many pods, and the status of `web` says so.
async fn has_pods(fake: &Fake, count: i64) {
    let what = format!("{count} pods and a status that says so");
    until(fake, &what, |f| {
        f.objects("pods").len() as i64 == count && status(f, "web") == count
    })
    .await;
}

fn status(fake: &Fake, name: &str) -> i64 {
    fake.object(&key(SETS, name))
        .map_or(-1, |set| set.value()["status"]["replicas"].as_i64().unwrap_or(0))
}

/// Until the view has all there is and nothing waits to run.
async fn settle(stage: &Stage) {
    let quiet = async {
        loop {
            let newest = |resource| {
                stage
                    .fake
                    .objects(resource)
                    .iter()
                    .map(|o| o.version)
                    .max()
                    .unwrap_or_default()
            };
            let shown = stage.view.version(&pods()) >= newest("pods")
                && stage.view.version(&Gvk::new("apps", "v1", "ReplicaSet")) >= newest("replicasets.apps");
            let runs = stage.controller.figures().runs;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            let after = stage.controller.figures();
            if shown && after.waiting == 0 && after.runs == runs && stage.log.runs.lock().len() as u64 == runs {
                return;
            }
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), quiet).await.is_ok(),
        "never quiet: {:?}",
        stage.log.whys()
    );
}

fn created(fake: &Fake) -> usize {
    let pods = |w: &&(Caller, client::Write)| {
        w.1.target.gvr.resource == "pods" && matches!(w.1.action, client::Action::Create(_))
    };
    fake.writes().iter().filter(pods).count()
}
