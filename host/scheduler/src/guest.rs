//! A policy component as a [`Policy`]: the questions of the house in the words of the wall.

use std::sync::Arc;

use async_trait::async_trait;
use model::Failure;
use plugin::world::Answer;
use plugin::world::policy as wall;

use crate::nodeset::NodeSet;
use crate::policy::{Points, Policy, Verdict};
use crate::world::PodRef;

/// A policy that lives in a sandbox. It follows its plugin's swaps: [`Policy::revision`] changes, the scheduler fills the new
/// mirror, and from then on the new code answers.
pub struct Guest {
    plugin: Arc<plugin::Plugin>,
    instance: Option<wall::Policy>,
    weight: Option<i64>,
    revision: u64,
}

impl Guest {
    /// `weight` overrides what the policy says of itself.
    ///
    /// # Errors
    /// `Plugin` when nothing that serves as a policy is loaded under this name.
    pub async fn start(plugin: Arc<plugin::Plugin>, weight: Option<i64>) -> Result<Self, Failure> {
        let instance = wall::Policy::start(&plugin).await.map_err(Failure::from)?;
        Ok(Self {
            plugin,
            instance: Some(instance),
            weight,
            revision: 0,
        })
    }

    fn answered<T>(&self, doing: &'static str, answer: Answer<T>) -> Result<T, Failure> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Err(plugin::refusal(self.name(), doing, refusal)),
            Err(fault) => Err(fault.into()),
        }
    }

    fn instance(&mut self) -> Result<&mut wall::Policy, Failure> {
        let name = self.plugin.name().as_str().to_owned();
        self.instance.as_mut().ok_or_else(|| Failure::Plugin {
            name,
            doing: "answering the scheduler",
            reason: "its mirror has not been filled yet".into(),
        })
    }
}

fn pod(pod: PodRef) -> wall::Pod {
    wall::Pod {
        id: pod.id,
        class: pod.class,
    }
}

#[async_trait]
impl Policy for Guest {
    fn name(&self) -> &str {
        self.plugin.name().as_str()
    }

    fn weight(&self) -> i64 {
        let own = self
            .instance
            .as_ref()
            .map_or(1, |policy| i64::from(policy.description().weight));
        self.weight.unwrap_or(own)
    }

    fn points(&self) -> Points {
        self.instance.as_ref().map_or_else(Points::default, |policy| {
            let wall::Points {
                filter, score, what_if, ..
            } = policy.points();
            Points { filter, score, what_if }
        })
    }

    async fn renew(&mut self) -> Result<u64, Failure> {
        let stale = self.instance.as_ref().is_none_or(wall::Policy::is_stale);
        if stale {
            // Started before the old one is let go: if the new revision does not start, the old one, unless it was lost by
            // a fault, goes on.
            match wall::Policy::start(&self.plugin).await {
                Ok(next) => {
                    self.instance = Some(next);
                    self.revision += 1;
                }
                Err(fault) if self.instance.as_ref().is_none_or(wall::Policy::is_lost) => return Err(fault.into()),
                Err(fault) => tracing::warn!(%fault, "a policy's new revision does not start; the old one goes on"),
            }
        }
        Ok(self.revision)
    }

    async fn sync(&mut self, deltas: &[u8]) -> Result<(), Failure> {
        let deltas = deltas.to_vec();
        let answer = self.instance()?.sync(&deltas).await;
        self.answered("taking in changes", answer)
    }

    async fn filter(&mut self, of: PodRef, among: &NodeSet, explain: bool) -> Result<Verdict, Failure> {
        let answer = self.instance()?.filter(pod(of), &among.0, explain).await;
        let verdict = self.answered("filtering nodes", answer)?;
        Ok(Verdict {
            passed: NodeSet(verdict.passed),
            reasons: verdict.reasons,
            texts: verdict.texts,
            unresolvable: NodeSet(verdict.unresolvable),
        })
    }

    async fn score(&mut self, of: PodRef, feasible: &NodeSet) -> Result<Vec<i32>, Failure> {
        let answer = self.instance()?.score(pod(of), &feasible.0).await;
        self.answered("scoring nodes", answer)
    }
}
