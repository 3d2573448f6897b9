//! A policy written against the SDK, run in this process: what the component does, without the wall.

use async_trait::async_trait;
use futures::future::BoxFuture;
use model::Failure;
use scheduler::NodeSet;
use scheduler::policy::{Points, Policy, Verdict};
use scheduler::world::PodRef;
use sdk::scheduler as guest;

pub struct Native<P> {
    name: &'static str,
    weight: i64,
    policy: P,
}

impl<P: guest::Policy> Native<P> {
    pub fn new(name: &str, weight: i64) -> Self {
        Self {
            name: name.to_owned().leak(),
            weight,
            policy: P::default(),
        }
    }

    fn fault(&self, doing: &'static str, reason: String) -> Failure {
        Failure::Plugin {
            name: self.name.into(),
            doing,
            reason,
        }
    }
}

fn pod(pod: PodRef) -> guest::Pod {
    guest::Pod {
        id: pod.id,
        class: pod.class,
    }
}

#[async_trait]
impl<P: guest::Policy + Send> Policy for Native<P> {
    fn name(&self) -> &str {
        self.name
    }

    fn weight(&self) -> i64 {
        self.weight
    }

    fn points(&self) -> Points {
        Points {
            filter: true,
            score: true,
            what_if: true,
        }
    }

    fn successor(&self) -> Option<BoxFuture<'static, Result<Box<dyn Policy>, Failure>>> {
        None
    }

    fn is_lost(&self) -> bool {
        false
    }

    async fn sync(&mut self, deltas: &[u8]) -> Result<(), Failure> {
        let answer = self.policy.sync(deltas);
        answer.map_err(|reason| self.fault("taking in changes", reason))
    }

    async fn filter(&mut self, of: PodRef, among: &NodeSet, explain: bool) -> Result<Verdict, Failure> {
        let answer = self.policy.filter(pod(of), &guest::NodeSet(among.0.clone()), explain);
        let verdict = answer.map_err(|reason| self.fault("filtering nodes", reason))?;
        Ok(Verdict {
            passed: NodeSet(verdict.passed.0),
            reasons: verdict.reasons,
            texts: verdict.texts,
            unresolvable: NodeSet(verdict.unresolvable.0),
        })
    }

    async fn score(&mut self, of: PodRef, feasible: &NodeSet) -> Result<Vec<i32>, Failure> {
        let answer = self.policy.score(pod(of), &guest::NodeSet(feasible.0.clone()));
        answer.map_err(|reason| self.fault("scoring nodes", reason))
    }
}
