//! What nodes and pods use: their kubelets are asked when somebody wants to know, and two readings make a rate.
//!
//! Nobody is asked on a rhythm, so a cluster of which nobody wants to know is quiet. Who asks often (an autoscaler every
//! 15 s) has rates over the time since the last question; who asks after a long pause waits for two readings.

mod page;
mod rate;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use model::{Caller, Failure, Gvr};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

pub use rate::{PodUsed, Usages, Used};

use crate::node::{Nodes, Page};
use crate::{Cluster, Collection, ListOptions, ReadVersion};
use rate::{Batch, Step};

/// How long one node may take; what it says later is not heard.
const PATIENCE: Duration = Duration::from_secs(3);
/// … and all of them, so that a question is answered within a request's time however many nodes hang.
const ROUND: Duration = Duration::from_secs(12);
const NODES_AT_ONCE: usize = 64;
const PAGE: &str = "/metrics/resource";

/// Reads what is used, for all who want to know. Holds a point and a rate of each container, however often it is asked.
pub struct Meter {
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    nodes: Arc<dyn Nodes>,
    /// Held while nodes are asked: who comes meanwhile waits, and is answered by the same round.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// When it ended: however long it took, its answer is fresh then.
    at: Option<Instant>,
    /// It was not the first look, or there is nothing to look at.
    rated: bool,
    usages: Arc<Usages>,
}

impl Meter {
    /// `caller` lists the nodes.
    pub fn new(cluster: Arc<dyn Cluster>, caller: Caller, nodes: Arc<dyn Nodes>) -> Self {
        Self {
            cluster,
            caller,
            nodes,
            last: Mutex::default(),
        }
    }

    /// What is used, at most 10 s ago. Takes 2 s if nobody has asked for a minute, and longer where nodes do not answer:
    /// those are left out. May be dropped: what was read until then serves the next who asks.
    ///
    /// # Errors
    /// Those of listing the nodes.
    pub async fn read(&self) -> Result<Arc<Usages>, Failure> {
        let mut last = self.last.lock().await;
        loop {
            match rate::step(last.at.map(|at| at.elapsed()), last.rated) {
                Step::Answer => return Ok(last.usages.clone()),
                Step::Wait(time) => sleep(time).await,
                Step::Look { anew } => {
                    let batch = self.look().await?;
                    let before = if anew { Arc::default() } else { last.usages.clone() };
                    *last = Last {
                        at: Some(Instant::now()),
                        rated: !anew || batch.nodes.is_empty() && batch.pods.is_empty(),
                        usages: Arc::new(before.after(batch)),
                    };
                }
            }
        }
    }

    /// One round: every node's counters.
    async fn look(&self) -> Result<Batch, Failure> {
        let end = Instant::now() + ROUND;
        let options = ListOptions {
            version: ReadVersion::Any,
            ..ListOptions::default()
        };
        let nodes = Collection::all(Gvr::new("", "v1", "nodes"));
        let nodes = self.cluster.list(&self.caller, &nodes, &options).await?.items;
        let pages = stream::iter(nodes).map(|node| async move {
            let page = self.page(&node.key.name, end).await;
            (node, page)
        });
        let mut pages = pages.buffer_unordered(NODES_AT_ONCE);
        let mut batch = Batch::default();
        while let Some((node, page)) = pages.next().await {
            match page {
                Ok(page) => page::read(&page.text, &node.key.name, Timestamp::now(), &mut batch),
                Err(failure) => tracing::warn!(node = %node.key.name, %failure, "does not tell what it uses"),
            }
        }
        Ok(batch)
    }

    async fn page(&self, node: &str, end: Instant) -> Result<Page, Failure> {
        let streams = self.nodes.streams(node).ok_or_else(|| Failure::Unavailable {
            what: "the node's kubelet",
            source: "there is no connection to it".into(),
        })?;
        let until = end.min(Instant::now() + PATIENCE);
        let asked = timeout_at(until, streams.page(PAGE)).await;
        asked.unwrap_or_else(|_| Err(Failure::Timeout("it did not answer in time".into())))
    }
}

#[cfg(test)]
mod tests;
