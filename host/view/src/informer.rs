//! One list and watch for a kind, for all who read it. Runs until the view is dropped.

use std::sync::{Arc, Weak};

use client::{Cluster, Collection, News};
use futures::StreamExt;
use model::{Caller, Failure, ResourceVersion};
use tokio::sync::Notify;

use crate::slot::{Change, Slot};

/// How many events are taken in before snapshots see them. Those that have arrived are never waited for.
const BATCH: usize = 256;

/// Keeps `slot` up with the cluster. `again` asks for a list that begins now.
pub(crate) async fn run(cluster: Arc<dyn Cluster>, caller: Caller, slot: Weak<Slot>, again: Arc<Notify>) {
    let Some(of) = slot.upgrade().map(|slot| Collection::all(slot.kind.gvr())) else {
        return;
    };
    loop {
        let news = client::follow(cluster.clone(), caller.clone(), of.clone(), "");
        let mut batches = news.ready_chunks(BATCH);
        loop {
            let batch = tokio::select! {
                batch = batches.next() => batch,
                // A list that is under way began before it was asked for: another one is begun.
                () = again.notified() => break,
            };
            let (Some(batch), Some(slot)) = (batch, slot.upgrade()) else {
                return;
            };
            take(&slot, batch);
        }
    }
}

fn take(slot: &Slot, batch: Vec<News>) {
    let mut changes = Vec::with_capacity(batch.len());
    for news in batch {
        match news {
            News::Changed(object) => changes.push(Change::Put(object)),
            News::Removed(object) => changes.push(Change::Gone(object)),
            News::UpTo(version) => changes.push(Change::Reached(version)),
            News::Restarted { version, objects } => {
                slot.apply(changes.drain(..));
                slot.progress.send_modify(|progress| progress.trouble = None);
                slot.replace(version, objects);
            }
            News::Failed(failure) => {
                let refused = matches!(failure, Failure::NoSuchResource { .. } | Failure::Forbidden { .. });
                if refused && slot.synced() {
                    // A kind that is served no longer has no objects; whoever read some shall know.
                    slot.apply(changes.drain(..));
                    slot.replace(ResourceVersion::default(), Vec::new());
                }
                slot.progress
                    .send_modify(|progress| progress.trouble = Some(failure.to_string()));
            }
        }
    }
    slot.apply(changes);
}
