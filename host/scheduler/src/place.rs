//! Which node a pod goes to: every policy's filters, then every policy's scores, then the best, ties by dice.

use std::collections::BTreeMap;

use model::Failure;

use crate::dice::Dice;
use crate::exchange::Link;
use crate::nodeset::NodeSet;
use crate::policy::Policy;
use crate::totals::Totals;
use crate::world::{PodRef, World};

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    On(u32),
    Nowhere(WhyNot),
}

/// Why no node will do: how many were there, and how many each reason keeps out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WhyNot {
    pub nodes: usize,
    pub reasons: BTreeMap<String, usize>,
}

impl WhyNot {
    /// `0/5 nodes are available: 2 node(s) had untolerated taint {a: b}, 3 Insufficient cpu.`, as kube-scheduler words it.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut reasons: Vec<String> = self
            .reasons
            .iter()
            .map(|(text, count)| format!("{count} {text}"))
            .collect();
        reasons.sort();
        format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// The policies in the order they are asked, each with how far its mirror has come.
#[derive(Default)]
pub struct Chain {
    links: Vec<Link>,
}

impl Chain {
    pub fn new(policies: Vec<Box<dyn Policy>>) -> Self {
        Self {
            links: policies.into_iter().map(Link::new).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.iter().map(|link| link.policy.name())
    }

    /// Brings every mirror up to the world. A policy whose code was exchanged goes on answering until the new one's mirror is
    /// filled.
    ///
    /// # Errors
    /// The first policy's fault. It begins anew with everything next time; the others are as far as they came.
    pub async fn sync(&mut self, world: &mut World) -> Result<(), Failure> {
        for link in &mut self.links {
            link.sync(world).await?;
        }
        if let Some(slowest) = self.links.iter().map(Link::behind).min() {
            world.trim(slowest);
        }
        Ok(())
    }

    /// Chooses a node for `pod` in `world`. Equal worlds, answers and dice give the same node.
    ///
    /// # Errors
    /// A policy's fault, named. Nothing has changed; the pod may be tried again.
    pub async fn place(&mut self, pod: PodRef, world: &World, dice: &mut Dice) -> Result<Placement, Failure> {
        let mut left = world.live().clone();
        for link in &mut self.links {
            if link.policy.points().filter && !left.is_empty() {
                left = link.filter(pod, &left, false).await?.passed;
            }
        }
        if left.is_empty() {
            return Ok(Placement::Nowhere(self.explain(pod, world).await?));
        }
        let feasible = left.len();
        let mut totals = Totals::new(feasible);
        if feasible > 1 {
            for link in self.links.iter_mut().filter(|link| link.policy.points().score) {
                let scores = link.policy.score(pod, &left).await?;
                if scores.len() != feasible {
                    let reason = format!("it gave {} scores for {feasible} nodes", scores.len());
                    return Err(wrong_answer(link.policy.name(), "scoring nodes", reason));
                }
                totals.add(link.policy.weight(), &scores);
            }
        }
        let best = totals.best(dice);
        Ok(Placement::On(
            left.nth(best).expect("best is below the number of feasible nodes"),
        ))
    }

    /// Asks the filters again, for their reasons. Only pods that fit nowhere cost this.
    async fn explain(&mut self, pod: PodRef, world: &World) -> Result<WhyNot, Failure> {
        let mut why = WhyNot {
            nodes: world.live().len(),
            ..WhyNot::default()
        };
        let mut left = world.live().clone();
        for link in self.links.iter_mut().filter(|link| link.policy.points().filter) {
            if left.is_empty() {
                break;
            }
            let verdict = link.filter(pod, &left, true).await?;
            for reason in verdict.reasons {
                let text = verdict
                    .texts
                    .get(usize::from(reason))
                    .map_or("node(s) were rejected without a reason", String::as_str);
                for line in text.lines() {
                    *why.reasons.entry(line.to_owned()).or_default() += 1;
                }
            }
            left = verdict.passed;
        }
        Ok(why)
    }
}

impl Link {
    async fn filter(&mut self, pod: PodRef, among: &NodeSet, explain: bool) -> Result<crate::policy::Verdict, Failure> {
        let verdict = self.policy.filter(pod, among, explain).await?;
        if !verdict.passed.within(among) {
            let reason = "it passed nodes that it was not asked about".into();
            return Err(wrong_answer(self.policy.name(), "filtering nodes", reason));
        }
        Ok(verdict)
    }
}

fn wrong_answer(policy: &str, doing: &'static str, reason: String) -> Failure {
    Failure::Plugin {
        name: policy.into(),
        doing,
        reason,
    }
}
