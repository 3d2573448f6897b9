//! One kind's objects as they come and go: a list, then a watch, and a list again when the watch cannot go on.

use std::sync::Arc;
use std::time::Duration;

use client::{Cluster, Collection, ListOptions, ReadVersion, WatchEvent, WatchOptions};
use futures::StreamExt;
use model::{Caller, Failure, Gvr, Object, ResourceVersion};
use tokio::sync::mpsc;
use tracing::warn;

/// What a feed says. Between `Restart` and `Synced` everything there is is put; what was not is gone.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Restart,
    Put(Arc<Object>),
    Gone(Arc<Object>),
    Synced,
}

const PAGE: u64 = 1000;
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Follows until the receiver is dropped.
pub(crate) async fn follow(cluster: Arc<dyn Cluster>, caller: Caller, gvr: Gvr, to: mpsc::Sender<(Gvr, Said)>) {
    let mut wait = WAIT_FIRST;
    while !to.is_closed() {
        match once(&*cluster, &caller, &gvr, &to, &mut wait).await {
            Ok(()) => return,
            // Ordinary: the place the watch stood at was compacted away.
            Err(Failure::Expired(_)) => {}
            Err(failure) => {
                warn!(%gvr, %failure, "the watch stopped; listing again in {wait:?}");
                tokio::time::sleep(wait).await;
                wait = WAIT_MAX.min(wait * 2);
            }
        }
    }
}

/// Lists and watches. `Ok`: nobody listens any more.
async fn once(
    cluster: &dyn Cluster,
    caller: &Caller,
    gvr: &Gvr,
    to: &mpsc::Sender<(Gvr, Said)>,
    wait: &mut Duration,
) -> Result<(), Failure> {
    let all = Collection::all(gvr.clone());
    let mut options = ListOptions {
        limit: PAGE,
        version: ReadVersion::Any,
        ..ListOptions::default()
    };
    let mut restarted = false;
    let mut from: ResourceVersion;
    loop {
        let page = cluster.list(caller, &all, &options).await?;
        if !std::mem::replace(&mut restarted, true) && to.send((gvr.clone(), Said::Restart)).await.is_err() {
            return Ok(());
        }
        from = page.version;
        for object in page.items {
            if to.send((gvr.clone(), Said::Put(object))).await.is_err() {
                return Ok(());
            }
        }
        options.continue_token = page.continue_token;
        if options.continue_token.is_empty() {
            break;
        }
    }
    if to.send((gvr.clone(), Said::Synced)).await.is_err() {
        return Ok(());
    }
    loop {
        let options = WatchOptions {
            from: Some(from),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let mut events = cluster.watch(caller, &all, &options).await?;
        while let Some(event) = events.next().await {
            let said = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    from = object.version;
                    Said::Put(object)
                }
                WatchEvent::Deleted(object) => {
                    from = object.version;
                    Said::Gone(object)
                }
                WatchEvent::Bookmark { version, .. } => {
                    from = version;
                    continue;
                }
            };
            *wait = WAIT_FIRST;
            if to.send((gvr.clone(), said)).await.is_err() {
                return Ok(());
            }
        }
        // The server closed an old watch; it goes on where it stood. A breath, should it close them at once.
        tokio::task::yield_now().await;
        if to.is_closed() {
            return Ok(());
        }
    }
}
