//! One list and watch for a kind, for all who read it. Runs until the view is dropped.

use std::sync::{Arc, Weak};
use std::time::Duration;

use client::{Cluster, Collection, ListOptions, ReadVersion, WatchEvent, WatchOptions};
use futures::StreamExt;
use model::{Caller, Failure, ResourceVersion};
use tokio::sync::Notify;

use crate::slot::{Change, Slot};

/// How many events are taken in before snapshots see them. Those that have arrived are never waited for.
const BATCH: usize = 256;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Keeps `slot` up with the cluster. `again` asks for a fresh list now.
pub(crate) async fn run(cluster: Arc<dyn Cluster>, caller: Caller, slot: Weak<Slot>, again: Arc<Notify>) {
    let mut wait = FIRST_WAIT;
    while let Some(strong) = slot.upgrade() {
        let of = Collection::all(strong.kind.gvr());
        let listed = list(&cluster, &caller, &of).await;
        let failure = match listed {
            Ok((version, items)) => {
                wait = FIRST_WAIT;
                strong.progress.send_modify(|progress| progress.trouble = None);
                strong.replace(version, items);
                drop(strong);
                watch(&cluster, &caller, &of, version, &slot, &again).await
            }
            Err(failure) => {
                let refused = matches!(failure, Failure::NoSuchResource { .. } | Failure::Forbidden { .. });
                if refused && strong.synced() {
                    // A kind that is served no longer has no objects; whoever read some shall know.
                    strong.replace(ResourceVersion::default(), Vec::new());
                }
                strong
                    .progress
                    .send_modify(|progress| progress.trouble = Some(failure.to_string()));
                drop(strong);
                Some(failure)
            }
        };
        let Some(failure) = failure else { continue };
        tracing::debug!(kind = %of.gvr, %failure, ?wait, "the view lists again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = again.notified() => {}
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// The whole kind, in pages so that a far API server is not asked for everything at once.
async fn list(
    cluster: &Arc<dyn Cluster>,
    caller: &Caller,
    of: &Collection,
) -> Result<(ResourceVersion, Vec<Arc<model::Object>>), Failure> {
    let mut options = ListOptions {
        limit: 5000,
        version: ReadVersion::Latest,
        ..ListOptions::default()
    };
    let mut items = Vec::new();
    loop {
        let page = cluster.list(caller, of, &options).await?;
        items.extend(page.items);
        if page.continue_token.is_empty() {
            // All pages are of the first one's version.
            return Ok((page.version, items));
        }
        options.continue_token = page.continue_token;
    }
}

/// Feeds events from `from` on. Returns when a new list is needed: at once (`None`) or after a wait.
async fn watch(
    cluster: &Arc<dyn Cluster>,
    caller: &Caller,
    of: &Collection,
    mut from: ResourceVersion,
    slot: &Weak<Slot>,
    again: &Notify,
) -> Option<Failure> {
    loop {
        let options = WatchOptions {
            from: Some(from),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let stream = match cluster.watch(caller, of, &options).await {
            Ok(stream) => stream,
            Err(failure) => return Some(failure),
        };
        let mut batches = stream.ready_chunks(BATCH);
        let began = tokio::time::Instant::now();
        loop {
            let batch = tokio::select! {
                batch = batches.next() => batch,
                () = again.notified() => return None,
            };
            let Some(batch) = batch else { break };
            let slot = slot.upgrade()?;
            let mut failure = None;
            let mut changes = Vec::with_capacity(batch.len());
            for event in batch {
                let (version, change) = match event {
                    Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        (object.version, Change::Put(object))
                    }
                    Ok(WatchEvent::Deleted(object)) => (object.version, Change::Gone(object)),
                    Ok(WatchEvent::Bookmark { version, .. }) => (version, Change::Reached(version)),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                };
                from = from.max(version);
                changes.push(change);
            }
            slot.apply(changes);
            if failure.is_some() {
                return failure;
            }
        }
        // The server ended the watch in good order. Going on from here misses nothing; a server that only ever ends is
        // not to be asked in a tight loop.
        if began.elapsed() < FIRST_WAIT {
            tokio::time::sleep(FIRST_WAIT).await;
        }
        if slot.strong_count() == 0 {
            return None;
        }
    }
}
