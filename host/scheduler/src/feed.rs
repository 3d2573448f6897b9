//! One kind's objects as they come and go, told into the scheduler's inbox.

use std::sync::Arc;

use client::{Cluster, Collection, News};
use futures::StreamExt;
use model::{Caller, Gvr, Object};
use tokio::sync::mpsc;

/// What a feed says. Between `Restart` and `Synced` everything there is is put; what was not is gone.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Restart,
    Put(Arc<Object>),
    Gone(Arc<Object>),
    Synced,
}

/// Follows until the receiver is dropped.
pub(crate) async fn follow(cluster: Arc<dyn Cluster>, caller: Caller, gvr: Gvr, to: mpsc::Sender<(Gvr, Said)>) {
    let mut news = client::follow(cluster, caller, Collection::all(gvr.clone()), "");
    let tell = async |said| to.send((gvr.clone(), said)).await;
    while let Some(news) = news.next().await {
        let told = match news {
            News::Restarted { objects, .. } => {
                // One by one, so that pods are placed meanwhile.
                let put = objects.into_iter().map(Said::Put);
                for said in std::iter::once(Said::Restart).chain(put) {
                    if tell(said).await.is_err() {
                        return;
                    }
                }
                tell(Said::Synced).await
            }
            News::Changed(object) => tell(Said::Put(object)).await,
            News::Removed(object) => tell(Said::Gone(object)).await,
            News::UpTo(_) | News::Failed(_) => Ok(()),
        };
        if told.is_err() {
            return;
        }
    }
}
