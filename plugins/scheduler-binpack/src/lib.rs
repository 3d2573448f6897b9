//! Fills nodes up before it takes new ones: a policy to chain behind the default one, which does the filtering.
//!
//! Written against the public SDK alone, as a platform team would write theirs.

use sdk::scheduler::records::{self, Delta};
use sdk::scheduler::{Kept, NodeSet, Pod, Policy};

/// A full node, as shares are counted.
const FULL: i32 = 1_000_000;

/// How full each node is, by slot. Amounts are cpu (millicores) and memory (bytes).
#[sdk::policy(score, config = sdk::scheduler::WEIGHT_SCHEMA)]
#[derive(Default)]
pub struct Binpack {
    used: Vec<[i64; 2]>,
    has: Vec<[i64; 2]>,
    /// What a pod of a class asks for.
    asks: Vec<[i64; 2]>,
    pods: std::collections::BTreeMap<u64, (u32, u32)>,
    /// Scores by slot, kept for each class; a change is of the slot it names.
    scores: Kept<Vec<i32>, u32>,
}

impl Binpack {
    fn put(&mut self, id: u64, now: Option<(u32, u32)>) {
        let was = match now {
            Some(placed) => self.pods.insert(id, placed),
            None => self.pods.remove(&id),
        };
        for (placed, sign) in [(was, -1), (now, 1)] {
            let Some((class, slot)) = placed else { continue };
            let asks = self.asks.get(class as usize).copied().unwrap_or_default();
            let at = slot as usize;
            if let Some(used) = self.used.get_mut(at) {
                used.iter_mut().zip(asks).for_each(|(used, asks)| *used += sign * asks);
                self.scores.hear(slot);
            }
        }
    }

    fn take_in(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Reset => *self = Self::default(),
            Delta::Node(node) => {
                let at = node.slot as usize;
                if at >= self.used.len() {
                    self.used.resize(at + 1, [0; 2]);
                    self.has.resize(at + 1, [0; 2]);
                }
                self.has[at] = [records::CPU, records::MEMORY].map(|resource| amount(&node.allocatable, resource));
                self.scores.hear(node.slot);
            }
            Delta::NodeGone { slot } => {
                let gone: Vec<u64> = self
                    .pods
                    .iter()
                    .filter(|(_, p)| p.1 == slot)
                    .map(|(&id, _)| id)
                    .collect();
                gone.into_iter().for_each(|id| self.put(id, None));
            }
            Delta::Class { id, class } => {
                let at = id as usize;
                if at >= self.asks.len() {
                    self.asks.resize(at + 1, [0; 2]);
                }
                self.asks[at] = [class.for_score.0, class.for_score.1];
            }
            Delta::Pod { id, class, slot, .. } => self.put(id, Some((class, slot))),
            Delta::PodGone { id } => self.put(id, None),
            Delta::ClassGone { id } => self.scores.forget(id),
            Delta::Text { .. } | Delta::Resource { .. } => {}
        }
    }
}

/// The mean share of `all` that `of` is, in parts of `FULL`.
fn share(of: [i64; 2], all: [i64; 2]) -> i32 {
    let one = |r: usize| {
        if of[r] < all[r] {
            of[r] as f64 / all[r] as f64
        } else {
            1.0
        }
    };
    ((one(0) + one(1)) / 2.0 * f64::from(FULL)).round() as i32
}

fn amount(of: &[(u32, i64)], resource: u32) -> i64 {
    of.iter().find(|(r, _)| *r == resource).map_or(0, |&(_, amount)| amount)
}

impl Policy for Binpack {
    fn sync(&mut self, deltas: &[u8]) -> Result<(), String> {
        records::read(deltas, |delta| self.take_in(delta))
    }

    /// 0 to 100: the mean share of cpu and memory in use with the pod there.
    fn score(&mut self, pod: Pod, feasible: &NodeSet) -> Result<Vec<i32>, String> {
        let asks = self
            .asks
            .get(pod.class as usize)
            .ok_or_else(|| format!("class {} was never told", pod.class))?;
        let score = |at: usize| {
            let (used, has) = (self.used[at], self.has[at]);
            share([used[0] + asks[0], used[1] + asks[1]], has) / (FULL / 100)
        };
        let nodes = self.used.len();
        let scores = self.scores.current(
            pod.class,
            nodes / 2,
            || (0..nodes).map(score).collect(),
            |scores, slot| {
                let at = slot as usize;
                scores.resize(nodes, 0);
                scores[at] = score(at);
                true
            },
        );
        Ok(feasible.gather(scores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binpack() -> Binpack {
        let mut policy = Binpack::default();
        for slot in 0..2 {
            let allocatable = vec![(0, 1000), (1, 1000)];
            policy.take_in(Delta::Node(records::Node {
                slot,
                allocatable,
                ..records::Node::default()
            }));
        }
        let class = records::Class {
            for_score: (100, 300),
            ..records::Class::default()
        };
        policy.take_in(Delta::Class {
            id: 0,
            class: Box::new(class),
        });
        policy
    }

    #[test]
    fn the_fuller_node_is_better() {
        let mut policy = binpack();
        policy.take_in(Delta::Pod {
            id: 1,
            class: 0,
            slot: 1,
            terminating: false,
        });
        let nodes: NodeSet = [0, 1].into_iter().collect();
        assert_eq!(policy.score(Pod { id: 2, class: 0 }, &nodes), Ok(vec![20, 40]));
    }

    #[test]
    fn a_pod_that_goes_leaves_nothing_behind() {
        let mut policy = binpack();
        policy.take_in(Delta::Pod {
            id: 1,
            class: 0,
            slot: 0,
            terminating: false,
        });
        policy.take_in(Delta::Pod {
            id: 1,
            class: 0,
            slot: 1,
            terminating: false,
        });
        policy.take_in(Delta::PodGone { id: 1 });
        assert_eq!(policy.used, [[0, 0], [0, 0]]);
    }
}
