//! What carries a plan out on this machine.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use model::Failure;
use tokio::sync::watch;

use crate::plan::Plan;

/// Makes the machine do what a plan says.
#[async_trait]
pub trait Engine: Send + 'static {
    /// From whatever was there before to `plan`. Established connections live on. After an error the old state stands as far
    /// as the engine could keep it, and the caller tries again, with this plan or a newer one.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] with what could not be done and what to do about it.
    async fn sync(&mut self, plan: &Arc<Plan>) -> Result<(), Failure>;

    /// What the last sync left out for good, because only people can mend it.
    fn unserved(&self) -> BTreeSet<Unserved> {
        BTreeSet::new()
    }

    /// Removes all that this engine, or one before it on this machine, has put there.
    ///
    /// # Errors
    /// As [`Engine::sync`].
    async fn cleanup(&mut self) -> Result<(), Failure>;
}

/// A Service that cannot be served on this machine as it is, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unserved {
    pub namespace: String,
    pub service: String,
    pub why: String,
}

/// Does nothing but remember: stands in for a machine in tests and where the runtime is fake.
pub struct Fake {
    seen: watch::Sender<Arc<Plan>>,
}

impl Fake {
    /// The engine, and a look at the newest plan it was given.
    pub fn new() -> (Self, watch::Receiver<Arc<Plan>>) {
        let (seen, look) = watch::channel(Arc::default());
        (Self { seen }, look)
    }
}

#[async_trait]
impl Engine for Fake {
    async fn sync(&mut self, plan: &Arc<Plan>) -> Result<(), Failure> {
        self.seen.send_replace(plan.clone());
        Ok(())
    }

    async fn cleanup(&mut self) -> Result<(), Failure> {
        self.seen.send_replace(Arc::default());
        Ok(())
    }
}
