//! A watch, as its reader holds it.

use tokio::sync::mpsc;

use crate::hub::Cursor;
use crate::{Batch, StoreError};

/// Changes under one prefix, from [`crate::Store::watch`]. Dropping it ends it.
///
/// It costs the store nothing to have a slow one: events are kept once, as long as the history goes back, and a watch
/// is a place in it.
pub struct Watch {
    /// What happened before `live` begins, where that comes from elsewhere.
    past: Option<mpsc::Receiver<Result<Batch, StoreError>>>,
    live: Cursor,
}

impl Watch {
    pub(crate) fn new(live: Cursor) -> Self {
        Self { past: None, live }
    }

    /// With what came before `live`; the sender ends where `live` begins.
    pub(crate) fn with_past(past: mpsc::Receiver<Result<Batch, StoreError>>, live: Cursor) -> Self {
        Self { past: Some(past), live }
    }

    /// Waits for the next changes, a few hundred at most, or for progress that was asked for (a batch without events).
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// After one, the watch is over. `Lagged`: the reader was too slow, and changes it had not read are forgotten; try a
    /// watch from its last `through`, and list again if that is `Compacted`. `Compacted`: list again. `Closed`: the store
    /// was.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        while let Some(past) = &mut self.past {
            match past.recv().await {
                Some(batch) => return batch,
                None => self.past = None,
            }
        }
        self.live.next().await
    }
}
