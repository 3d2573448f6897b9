//! Pods that exist only in memory: by the thousand for scale, or doing what a test has scripted.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use client::node::{ExecRequest, Session};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use model::Failure;
use tokio::sync::mpsc;

use super::{
    ContainerConfig, ContainerFacts, ContainerState, ExecOutput, Exit, ImageFacts, ImageTrouble, ImageWanted, PodFacts,
    PodRef, PodUsage, Runtime, RuntimeInfo, SandboxConfig, SandboxFacts,
};

/// What a container of an image does, decided when it is started.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Ends at once with this code.
    pub exits: Option<i32>,
    /// Probes and hooks by exec answer this code.
    pub exec_code: i32,
    /// The image cannot be pulled.
    pub missing: bool,
}

/// Counts the pods of all fake nodes of the process: no two of them may have one address.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Every container starts at once and runs until it is stopped, unless [`FakeRuntime::script`] says otherwise.
pub struct FakeRuntime {
    pods: Mutex<HashMap<String, Held>>,
    scripts: Mutex<HashMap<String, Script>>,
    /// To the kubelet that listens, or listened last.
    tell: Mutex<mpsc::Sender<PodFacts>>,
    told: Mutex<Option<mpsc::Receiver<PodFacts>>>,
}

struct Held {
    pod: PodRef,
    sandbox: SandboxFacts,
    ready: bool,
    containers: Vec<ContainerFacts>,
    scripts: HashMap<String, Script>,
}

impl Held {
    fn facts(&self) -> PodFacts {
        PodFacts {
            pod: self.pod.clone(),
            sandbox: self.sandbox.clone(),
            sandbox_ready: self.ready,
            containers: self.containers.clone(),
            observed: Timestamp::now(),
        }
    }
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeRuntime {
    pub fn new() -> Self {
        let (tell, told) = mpsc::channel(1024);
        Self {
            pods: Mutex::default(),
            scripts: Mutex::default(),
            tell: Mutex::new(tell),
            told: Mutex::new(Some(told)),
        }
    }

    /// Where nobody listens any more it is not heard: a kubelet that starts looks at everything first.
    async fn tell(&self, facts: PodFacts) {
        let tell = self.tell.lock().expect("no panic holds it").clone();
        let _ = tell.send(facts).await;
    }

    /// What containers of this image do from now on.
    pub fn script(&self, image: &str, script: Script) {
        self.scripts
            .lock()
            .expect("no panic holds it")
            .insert(image.into(), script);
    }

    /// Ends a running container of a pod; `false` if there is none of that name.
    pub async fn exit(&self, uid: &str, container: &str, code: i32) -> bool {
        let facts = self.change(uid, |held| {
            let c = held.containers.iter_mut().rev().find(|c| c.name == container)?;
            end(c, code).then(|| held.facts())
        });
        let Some(facts) = facts else { return false };
        self.tell(facts).await;
        true
    }

    /// The whole pod is lost, as when its process is killed.
    pub async fn lose(&self, uid: &str) -> bool {
        let facts = self.change(uid, |held| {
            held.ready = false;
            for c in &mut held.containers {
                end(c, 137);
            }
            Some(held.facts())
        });
        let Some(facts) = facts else { return false };
        self.tell(facts).await;
        true
    }

    pub fn count(&self) -> usize {
        self.pods.lock().expect("no panic holds it").len()
    }

    fn change<T>(&self, uid: &str, with: impl FnOnce(&mut Held) -> Option<T>) -> Option<T> {
        let mut pods = self.pods.lock().expect("no panic holds it");
        pods.get_mut(uid).and_then(with)
    }

    /// Container ids are `UID/NAME/ATTEMPT`.
    fn container<T>(&self, id: &str, with: impl FnOnce(&mut Held, usize) -> T) -> Option<T> {
        let uid = id.split('/').next()?;
        self.change(uid, |held| {
            let at = held.containers.iter().position(|c| c.id == id)?;
            Some(with(held, at))
        })
    }
}

/// `false` if it had ended before.
fn end(c: &mut ContainerFacts, code: i32) -> bool {
    let started = match &c.state {
        ContainerState::Running { started } => *started,
        ContainerState::Created => Timestamp::now(),
        ContainerState::Exited(_) => return false,
    };
    let (finished, reason) = (Timestamp::now(), Exit::reason_of(code).into());
    c.state = ContainerState::Exited(Exit {
        code,
        reason,
        message: String::new(),
        started,
        finished,
    });
    true
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn info(&self) -> Result<RuntimeInfo, Failure> {
        Ok(RuntimeInfo {
            name: "fake".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            trouble: None,
        })
    }

    async fn list(&self) -> Result<Vec<PodFacts>, Failure> {
        Ok(self
            .pods
            .lock()
            .expect("no panic holds it")
            .values()
            .map(Held::facts)
            .collect())
    }

    async fn pod(&self, uid: &str) -> Result<Option<PodFacts>, Failure> {
        Ok(self.change(uid, |held| Some(held.facts())))
    }

    /// A second call is a kubelet that was started again in the same test.
    fn changes(&self) -> BoxStream<'static, PodFacts> {
        let again = || {
            let (tell, told) = mpsc::channel(1024);
            *self.tell.lock().expect("no panic holds it") = tell;
            told
        };
        let first = self.told.lock().expect("no panic holds it").take();
        tokio_stream::wrappers::ReceiverStream::new(first.unwrap_or_else(again)).boxed()
    }

    async fn image(&self, wanted: &ImageWanted) -> Result<String, ImageTrouble> {
        let scripts = self.scripts.lock().expect("no panic holds it");
        if scripts.get(&wanted.image).is_some_and(|s| s.missing) {
            let message = format!("failed to pull image \"{}\": not found", wanted.image);
            return Err(ImageTrouble {
                reason: "ErrImagePull",
                message,
            });
        }
        Ok(format!("fake:{}", wanted.image))
    }

    async fn images(&self) -> Result<Vec<ImageFacts>, Failure> {
        Ok(Vec::new())
    }

    async fn start_sandbox(&self, config: &SandboxConfig) -> Result<SandboxFacts, Failure> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number % (1 << 22));
        let sandbox = SandboxFacts {
            id: format!("{}-{number}", config.pod.uid),
            ip: ip.to_string(),
        };
        let held = Held {
            pod: config.pod.clone(),
            sandbox: sandbox.clone(),
            ready: true,
            containers: Vec::new(),
            scripts: HashMap::new(),
        };
        self.pods
            .lock()
            .expect("no panic holds it")
            .insert(config.pod.uid.clone(), held);
        Ok(sandbox)
    }

    async fn start_container(
        &self,
        _: &SandboxFacts,
        pod: &SandboxConfig,
        config: &ContainerConfig,
    ) -> Result<String, Failure> {
        let script = self
            .scripts
            .lock()
            .expect("no panic holds it")
            .get(&config.image)
            .cloned()
            .unwrap_or_default();
        let id = format!("{}/{}/{}", pod.pod.uid, config.name, config.attempt);
        let facts = self.change(&pod.pod.uid, |held| {
            let mut c = ContainerFacts {
                id: id.clone(),
                name: config.name.clone(),
                attempt: config.attempt,
                image_id: config.image_id.clone(),
                state: ContainerState::Running {
                    started: Timestamp::now(),
                },
            };
            let ended = script.exits.is_some_and(|code| end(&mut c, code));
            held.containers.push(c);
            held.scripts.insert(id.clone(), script);
            Some(ended.then(|| held.facts()))
        });
        let facts = facts.ok_or_else(|| Failure::Internal("the pod has no sandbox".into()))?;
        if let Some(facts) = facts {
            // From a task: who asked for the start may be the one who has to make room in the queue.
            let tell = self.tell.lock().expect("no panic holds it").clone();
            tokio::spawn(async move {
                let _ = tell.send(facts).await;
            });
        }
        Ok(id)
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, Failure> {
        Ok(Vec::new())
    }

    async fn stop_container(&self, id: &str, _: Duration) -> Result<(), Failure> {
        self.container(id, |held, at| end(&mut held.containers[at], 0));
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), Failure> {
        self.container(id, |held, at| drop(held.containers.remove(at)));
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Failure> {
        self.pods
            .lock()
            .expect("no panic holds it")
            .retain(|_, held| held.sandbox.id != id);
        Ok(())
    }

    async fn exec_sync(&self, id: &str, _: &[String], _: Duration) -> Result<ExecOutput, Failure> {
        let code = self.container(id, |held, _| held.scripts.get(id).map_or(0, |s| s.exec_code));
        Ok(ExecOutput {
            code: code.unwrap_or(1),
            ..ExecOutput::default()
        })
    }

    async fn exec(&self, _: &str, _: &ExecRequest) -> Result<Session, Failure> {
        Err(Failure::BadRequest("the fake runtime runs no processes".into()))
    }

    async fn attach(&self, _: &str, _: &ExecRequest) -> Result<Session, Failure> {
        Err(Failure::BadRequest("the fake runtime runs no processes".into()))
    }
}
