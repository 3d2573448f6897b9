//! A scheduling policy as the placing cycle sees it: questions about one pod and many nodes.

use async_trait::async_trait;
use futures::future::BoxFuture;
use model::Failure;

use crate::nodeset::NodeSet;
use crate::world::PodRef;

/// Which questions a policy has an answer to; the others are not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Points {
    pub filter: bool,
    pub score: bool,
    pub what_if: bool,
}

/// What a filter found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub passed: NodeSet,
    /// For each rejected node in slot order an index into `texts`; empty unless asked to explain.
    pub reasons: Vec<u16>,
    pub texts: Vec<String>,
    /// Nodes no preemption can help on; empty unless asked to explain.
    pub unresolvable: NodeSet,
}

/// One policy with its own mirror of the cluster. Answers are of the world as synced so far.
///
/// Every error is [`Failure::Plugin`]: the policy trapped, was too slow, or answered outside the question. The pod waits and
/// is tried again; other policies and pods go on.
#[async_trait]
pub trait Policy: Send {
    fn name(&self) -> &str;

    /// What its scores are multiplied with.
    fn weight(&self) -> i64;

    fn points(&self) -> Points;

    /// How to make the one that is to take this one's place, if there is to be one: its code was exchanged, or its mirror is
    /// lost. Its mirror is empty; it is filled while this one goes on answering.
    fn successor(&self) -> Option<BoxFuture<'static, Result<Box<dyn Policy>, Failure>>>;

    /// A fault took its mirror: it answers nothing any more.
    fn is_lost(&self) -> bool;

    async fn sync(&mut self, deltas: &[u8]) -> Result<(), Failure>;

    async fn filter(&mut self, pod: PodRef, among: &NodeSet, explain: bool) -> Result<Verdict, Failure>;

    /// One score for each node of `feasible`, in slot order.
    async fn score(&mut self, pod: PodRef, feasible: &NodeSet) -> Result<Vec<i32>, Failure>;
}
