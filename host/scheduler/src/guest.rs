//! A policy component as a [`Policy`]: the questions of the house in the words of the wall.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use model::Failure;
use plugin::world::Answer;
use plugin::world::policy as wall;

use crate::nodeset::NodeSet;
use crate::policy::{Points, Policy, Verdict};
use crate::world::PodRef;

/// A policy that lives in a sandbox: one revision's instance. When its plugin is swapped it has a successor.
pub struct Guest {
    plugin: Arc<plugin::Plugin>,
    instance: wall::Policy,
    weight: Option<i64>,
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
            instance,
            weight,
        })
    }

    fn answered<T>(&self, doing: &'static str, answer: Answer<T>) -> Result<T, Failure> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Err(plugin::refusal(self.name(), doing, refusal)),
            Err(fault) => Err(fault.into()),
        }
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
        let own = i64::from(self.instance.description().weight);
        self.weight.unwrap_or(own)
    }

    fn points(&self) -> Points {
        let wall::Points {
            filter, score, what_if, ..
        } = self.instance.points();
        Points { filter, score, what_if }
    }

    fn successor(&self) -> Option<BoxFuture<'static, Result<Box<dyn Policy>, Failure>>> {
        self.instance.is_stale().then(|| {
            let next = Guest::start(self.plugin.clone(), self.weight);
            next.map_ok(|next| Box::new(next) as Box<dyn Policy>).boxed()
        })
    }

    fn is_lost(&self) -> bool {
        self.instance.is_lost()
    }

    async fn sync(&mut self, deltas: &[u8]) -> Result<(), Failure> {
        let deltas = deltas.to_vec();
        let answer = self.instance.sync(&deltas).await;
        self.answered("taking in changes", answer)
    }

    async fn filter(&mut self, of: PodRef, among: &NodeSet, explain: bool) -> Result<Verdict, Failure> {
        let answer = self.instance.filter(pod(of), &among.0, explain).await;
        let verdict = self.answered("filtering nodes", answer)?;
        Ok(Verdict {
            passed: NodeSet(verdict.passed),
            reasons: verdict.reasons,
            texts: verdict.texts,
            unresolvable: NodeSet(verdict.unresolvable),
        })
    }

    async fn score(&mut self, of: PodRef, feasible: &NodeSet) -> Result<Vec<i32>, Failure> {
        let answer = self.instance.score(pod(of), &feasible.0).await;
        self.answered("scoring nodes", answer)
    }
}
