//! Logs, exec, attach, port-forward and the node's own pages, as the API server asks for them in process.

use std::sync::Arc;

use async_trait::async_trait;
use client::Cluster;
use client::node::{ContainerRef, Duplex, ExecRequest, LogOptions, LogStream, NodeStreams, Page, Session};
use model::{Failure, GroupResource, ObjectKey};

use crate::config::KubeletConfig;
use crate::files::Layout;
use crate::log;
use crate::pages::Pages;
use crate::read::Reader;
use crate::runtime::{ContainerFacts, ContainerState, PodFacts, PodRef, Runtime};

/// Answers from log files, the runtime and the cluster, so it needs no kubelet to be running.
pub struct Streams {
    layout: Layout,
    runtime: Arc<dyn Runtime>,
    pages: Pages,
}

impl Streams {
    pub(crate) fn new(config: &KubeletConfig, cluster: Arc<dyn Cluster>, runtime: Arc<dyn Runtime>) -> Self {
        Self {
            layout: config.files(),
            runtime: runtime.clone(),
            pages: Pages {
                config: config.clone(),
                runtime,
                reader: Reader {
                    cluster,
                    caller: config.caller(),
                },
            },
        }
    }

    /// The pod the reference means; by name it is the one that the runtime holds.
    async fn find(&self, of: &ContainerRef) -> Result<Option<PodFacts>, Failure> {
        if !of.uid.0.is_empty() {
            return self.runtime.pod(&of.uid.0).await;
        }
        let all = self.runtime.list().await?;
        Ok(all
            .into_iter()
            .find(|f| f.pod.namespace == of.namespace && f.pod.name == of.pod))
    }

    async fn running(&self, of: &ContainerRef) -> Result<ContainerFacts, Failure> {
        let facts = self.find(of).await?.ok_or_else(|| not_here(of))?;
        let mut held: Vec<ContainerFacts> = facts
            .containers
            .into_iter()
            .filter(|c| c.name == of.container)
            .collect();
        held.sort_by_key(|c| c.attempt);
        match held.pop() {
            Some(c) if matches!(c.state, ContainerState::Running { .. }) => Ok(c),
            Some(_) => Err(Failure::BadRequest(format!(
                "cannot exec in a stopped container: container {} of pod {} is not running",
                of.container, of.pod
            ))),
            None => Err(Failure::BadRequest(format!(
                "container not found (\"{}\")",
                of.container
            ))),
        }
    }
}

#[async_trait]
impl NodeStreams for Streams {
    async fn logs(&self, of: &ContainerRef, options: &LogOptions) -> Result<LogStream, Failure> {
        let layout = self.layout.clone();
        let wanted = of.clone();
        let found = tokio::task::spawn_blocking(move || {
            let folder = folder_of(&layout, &wanted)?;
            Some(log::attempts(&folder.join(&wanted.container)))
        });
        let mut attempts = found.await.map_err(Failure::internal)?.ok_or_else(|| not_here(of))?;
        let newest = attempts.pop();
        let path = if options.previous {
            let Some((_, path)) = attempts.pop() else {
                let (container, pod) = (&of.container, &of.pod);
                return Err(Failure::BadRequest(format!(
                    "previous terminated container \"{container}\" in pod \"{pod}\" not found"
                )));
            };
            path
        } else {
            let Some((_, path)) = newest else {
                let (container, pod) = (&of.container, &of.pod);
                return Err(Failure::BadRequest(format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
                )));
            };
            path
        };
        let (runtime, uid, name) = (
            self.runtime.clone(),
            self.find(of).await?.map(|f| f.pod.uid),
            of.container.clone(),
        );
        let previous = options.previous;
        let attempt = path
            .file_stem()
            .and_then(|s| s.to_str())
            .and_then(|s| s.parse::<u32>().ok());
        let alive: log::Alive = Box::new(move || {
            let (runtime, uid, name) = (runtime.clone(), uid.clone(), name.clone());
            Box::pin(async move {
                let Some(uid) = uid.filter(|_| !previous) else {
                    return false;
                };
                let Ok(Some(facts)) = runtime.pod(&uid).await else {
                    return false;
                };
                facts.containers.iter().any(|c| {
                    c.name == name && Some(c.attempt) == attempt && !matches!(c.state, ContainerState::Exited(_))
                })
            })
        });
        Ok(log::read(path, options.clone(), alive))
    }

    async fn exec(&self, of: &ContainerRef, request: &ExecRequest) -> Result<Session, Failure> {
        if request.command.is_empty() {
            return Err(Failure::BadRequest(
                "you must specify at least one command for the container".into(),
            ));
        }
        let container = self.running(of).await?;
        self.runtime.exec(&container.id, request).await
    }

    async fn attach(&self, of: &ContainerRef, request: &ExecRequest) -> Result<Session, Failure> {
        let container = self.running(of).await?;
        self.runtime.attach(&container.id, request).await
    }

    async fn port_forward(&self, of: &ContainerRef, port: u16) -> Result<Box<dyn Duplex>, Failure> {
        let facts = self
            .find(of)
            .await?
            .filter(|f| f.sandbox_ready)
            .ok_or_else(|| not_here(of))?;
        let ip = if facts.sandbox.ip.is_empty() {
            "127.0.0.1"
        } else {
            &facts.sandbox.ip
        };
        let stream = tokio::net::TcpStream::connect((ip, port)).await;
        let stream = stream.map_err(|e| {
            Failure::BadRequest(format!("cannot connect to port {port} of pod {} at {ip}: {e}", of.pod))
        })?;
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }

    async fn page(&self, path: &str) -> Result<Page, Failure> {
        self.pages.page(path).await
    }
}

fn not_here(of: &ContainerRef) -> Failure {
    Failure::NotFound(ObjectKey::new(GroupResource::new("", "pods"), &of.namespace, &of.pod))
}

/// By uid, or the newest folder of the name.
fn folder_of(layout: &Layout, of: &ContainerRef) -> Option<std::path::PathBuf> {
    let pod = PodRef {
        namespace: of.namespace.clone(),
        name: of.pod.clone(),
        uid: of.uid.0.to_string(),
    };
    if !pod.uid.is_empty() {
        return Some(layout.pod_logs(&pod));
    }
    let prefix = format!("{}_{}_", pod.namespace, pod.name);
    let entries = std::fs::read_dir(layout.logs()).ok()?.flatten();
    let named = entries.filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)));
    named
        .max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok())
        .map(|e| e.path())
}
