//! Whoever decides for a key: a plugin in its sandbox, or a function in a test.

use std::sync::Arc;

use async_trait::async_trait;
use model::{Failure, Gvk};
use tokio::sync::watch;
use view::RecordedView;

use crate::intent::{Outcome, Request};

/// From what is, to what to change. Equal requests on equal views give equal outcomes.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// There is one key for every object of this kind. `None` while nothing is loaded.
    fn subject(&self) -> Option<Gvk>;

    /// Rises when another revision or configuration decides from now on: every key then runs once, at low priority.
    fn revision(&self) -> watch::Receiver<u64>;

    /// # Errors
    /// Any [`Failure`]: it trapped, ran out of time or refused. The key is run again later; nothing was changed.
    async fn reconcile(&self, request: &Request, view: Arc<RecordedView>) -> Result<Outcome, Failure>;
}
