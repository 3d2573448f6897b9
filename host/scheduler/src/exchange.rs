//! One policy of the chain with its mirror's place in the stream, and how its successor takes over without a pause.
//!
//! A successor's mirror is filled by a task of its own, with a snapshot and then with what has changed since, until little is
//! missing. The cut is between two questions: what is still missing is fed on the placing path, and the old one is dropped.

use std::time::{Duration, Instant};

use model::Failure;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{info, warn};

use crate::policy::Policy;
use crate::world::{Cursor, World};

/// Bytes of changes that a successor may lack at the cut: the placing path waits about a millisecond for them.
const LITTLE: usize = 64 << 10;
/// After a successor that did not start or did not take its mirror in, while the old one still answers.
const RETRY: Duration = Duration::from_secs(5);

pub(crate) struct Link {
    pub(crate) policy: Box<dyn Policy>,
    cursor: Cursor,
    next: Option<Next>,
    not_before: Option<Instant>,
}

/// A successor that is being filled.
struct Next {
    /// What its mirror will hold when the task ends.
    upto: Cursor,
    /// One task; it ends with this.
    task: JoinSet<Result<Box<dyn Policy>, Failure>>,
}

impl Next {
    fn new(upto: Cursor, fill: impl Future<Output = Result<Box<dyn Policy>, Failure>> + Send + 'static) -> Self {
        let mut task = JoinSet::new();
        task.spawn(fill);
        Self { upto, task }
    }
}

impl Link {
    pub(crate) fn new(policy: Box<dyn Policy>) -> Self {
        Self {
            policy,
            cursor: Cursor::default(),
            next: None,
            not_before: None,
        }
    }

    /// From where on it needs the stream, or its successor does.
    pub(crate) fn behind(&self) -> Cursor {
        self.next
            .as_ref()
            .map_or(self.cursor, |next| next.upto.min(self.cursor))
    }

    /// Brings the mirror up to the world.
    pub(crate) async fn sync(&mut self, world: &World) -> Result<(), Failure> {
        self.exchange(world).await?;
        let result = match world.since(self.cursor) {
            Some(([], _)) => return Ok(()),
            Some((bytes, end)) => self.policy.sync(bytes).await.map(|()| end),
            None => {
                let snapshot = world.snapshot();
                let end = snapshot.end();
                self.policy.sync(&snapshot.write()).await.map(|()| end)
            }
        };
        // After a fault nobody knows how much of it the mirror took in.
        self.cursor = *result.as_ref().unwrap_or(&Cursor::default());
        result.map(|_| ())
    }

    /// Goes on with the exchange, if there is to be one. Waits only where the old one has nothing to say any more.
    async fn exchange(&mut self, world: &World) -> Result<(), Failure> {
        loop {
            let lost = self.policy.is_lost();
            let Some(next) = &mut self.next else {
                let early = self.not_before.is_some_and(|at| Instant::now() < at);
                let Some(start) = self.policy.successor().filter(|_| lost || !early) else {
                    return Ok(());
                };
                let snapshot = world.snapshot();
                self.next = Some(Next::new(snapshot.end(), async move {
                    let mut policy = start.await?;
                    let everything = spawn_blocking(|| snapshot.write()).await.map_err(Failure::internal)?;
                    policy.sync(&everything).await?;
                    Ok(policy)
                }));
                continue;
            };
            let ended = if lost {
                next.task.join_next().await
            } else {
                next.task.try_join_next()
            };
            let Some(ended) = ended else { return Ok(()) };
            let upto = next.upto;
            self.next = None;
            match ended.map_err(Failure::internal).and_then(|filled| filled) {
                Ok(mut filled) => match world.since(upto) {
                    Some((missing, end)) if missing.len() > LITTLE && !lost => {
                        let missing = missing.to_vec();
                        self.next = Some(Next::new(end, async move {
                            filled.sync(&missing).await?;
                            Ok(filled)
                        }));
                        return Ok(());
                    }
                    // The stream was cut short while it was filled: the next turn of this loop begins again, as there is still
                    // a successor to make.
                    None if !lost => {}
                    _ => {
                        info!(
                            policy = filled.name(),
                            "a new revision's mirror is filled, and it takes over"
                        );
                        (self.policy, self.cursor, self.not_before) = (filled, upto, None);
                        return Ok(());
                    }
                },
                Err(failure) if lost => return Err(failure),
                Err(failure) => {
                    warn!(%failure, "a policy's new revision does not start; the old one goes on");
                    self.not_before = Some(Instant::now() + RETRY);
                    return Ok(());
                }
            }
        }
    }
}
