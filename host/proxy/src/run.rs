//! The loop: a new world, a new plan, and the engine makes it so.

use std::sync::Arc;
use std::time::Duration;

use client::Cluster;
use model::{Caller, Failure};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::events::Teller;
use crate::facts::World;
use crate::feed::Feed;
use crate::plan::{Plan, plan};

#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The Node this proxy runs on, by its name in the cluster.
    pub node: String,
    /// Who reads; `system:kube-proxy` unless the server has a reason.
    pub caller: Caller,
    /// The shortest time between two syncs. Changes within it are carried out together.
    pub sync_gap: Duration,
    /// Take everything down at the stop. Otherwise Services work on while the proxy is restarted, as with kube-proxy.
    pub cleanup: bool,
}

impl ProxyConfig {
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            caller: Caller::component("system:kube-proxy", &[]),
            sync_gap: Duration::from_millis(50),
            cleanup: true,
        }
    }
}

/// Runs the proxy until `stop`. A sync that fails is tried again, ever more rarely, up to once in 30 s.
///
/// # Errors
/// From the cleanup at the end; `Internal` if the planning itself breaks, which is a fault of ours.
pub async fn run(
    config: ProxyConfig,
    cluster: Arc<dyn Cluster>,
    mut engine: Box<dyn Engine>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let mut teller = Teller::new(cluster.clone(), &config.caller, &config.node);
    let mut seen: Arc<World> = Arc::default();
    let mut feed = Feed::start(cluster, &config.caller, Some(&config.node), &stop);
    let mut wanted: Arc<Plan> = Arc::default();
    let mut retry: Option<(Instant, Duration)> = None;
    let mut done_once = false;
    loop {
        let world = tokio::select! {
            world = feed.next() => match world {
                Some(world) => Some(world),
                None => break,
            },
            () = at(retry) => None,
        };
        if let Some(world) = world {
            // Beside the runtime: with thousands of Services this takes some tens of milliseconds.
            let node = config.node.clone();
            seen = Arc::new(world);
            let world = seen.clone();
            let next = tokio::task::spawn_blocking(move || plan(&world, &node));
            let next = next.await.map_err(Failure::internal)?;
            if done_once && retry.is_none() && next == *wanted {
                continue;
            }
            wanted = Arc::new(next);
        }
        // Not cut short by `stop`: a half-applied change is worse than a late end, and engines are quick.
        retry = match engine.sync(&wanted).await {
            Ok(()) => {
                done_once = true;
                None
            }
            Err(error) => {
                let pause = retry.map_or(Duration::from_millis(500), |(_, last)| {
                    (last * 2).min(Duration::from_secs(30))
                });
                tracing::warn!(error = %with_source(&error), ?pause, "Services are not all served as they should be");
                Some((Instant::now() + pause, pause))
            }
        };
        let told = stop.run_until_cancelled(teller.tell(engine.unserved(), &seen)).await;
        if told.is_none() {
            break;
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(config.sync_gap))
            .await
            .is_none()
        {
            break;
        }
    }
    if config.cleanup { engine.cleanup().await } else { Ok(()) }
}

/// Waits for the time to try again; for ever if nothing failed.
async fn at(retry: Option<(Instant, Duration)>) {
    match retry {
        Some((when, _)) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The message with its source, for a log line.
pub(crate) fn with_source(failure: &Failure) -> String {
    match std::error::Error::source(failure) {
        Some(source) => format!("{failure}: {source}"),
        None => failure.to_string(),
    }
}
