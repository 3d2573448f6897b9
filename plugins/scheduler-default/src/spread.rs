//! PodTopologySpread: pods of a selector in like numbers over the domains of a topology key (KEP-895, KEP-3022, KEP-3094).

use rustc_hash::FxHashMap as Map;
use sdk::scheduler::NodeSet;
use sdk::scheduler::records::{Class, Spread, Text};

use crate::mirror::Mirror;
use crate::{affinity, taints};

const NO_DOMAIN: u32 = u32::MAX;

/// One constraint of one class, with the matching pods counted by domain.
#[derive(Debug)]
pub struct Constraint {
    spread: Spread,
    namespace: Text,
    /// Pods of the class itself match the selector, so placing one adds one.
    counts_itself: i32,
    /// By slot; `NO_DOMAIN` where the node lacks the key or is not to be counted.
    domain_of: Vec<u32>,
    /// Matching pods by domain.
    pods: Vec<i32>,
    /// Which classes the selector matches, as found out so far.
    matching: Map<u32, bool>,
}

impl Constraint {
    pub fn new(mirror: &Mirror, class: &Class, spread: &Spread) -> Self {
        let mut constraint = Self {
            spread: spread.clone(),
            namespace: class.namespace,
            counts_itself: i32::from(spread.selector.matches(&class.labels)),
            domain_of: vec![NO_DOMAIN; mirror.slots()],
            pods: Vec::new(),
            matching: Map::default(),
        };
        let mut domains: Map<Text, u32> = Map::default();
        for slot in mirror.live.iter() {
            let Some(node) = mirror.node(slot) else { continue };
            let counted = (!spread.honor_affinity || affinity::matches(mirror, class, node))
                && (!spread.honor_taints || taints::untolerated(mirror, class, node).is_none());
            // A node counts for a constraint only if it has the keys of all of the class's constraints of its kind.
            let keys = class.spread.iter().filter(|other| other.hard == spread.hard);
            let all_keys = keys
                .map(|other| node.label(other.topology_key))
                .all(|value| value.is_some());
            let Some(value) = node.label(spread.topology_key).filter(|_| counted && all_keys) else {
                continue;
            };
            let next = domains.len() as u32;
            constraint.domain_of[slot as usize] = *domains.entry(value).or_insert(next);
        }
        constraint.pods = vec![0; domains.len()];
        for (id, other) in mirror.known_classes() {
            if constraint.matches(id, other) {
                for (slot, count) in mirror.counts(id) {
                    constraint.add(slot, count as i32);
                }
            }
        }
        constraint
    }

    /// So many more pods of `class` on `slot`.
    pub fn hear(&mut self, mirror: &Mirror, class: u32, slot: u32, more: i32) {
        let matches = match self.matching.get(&class) {
            Some(&known) => known,
            None => mirror.class(class).is_ok_and(|c| self.matches(class, c)),
        };
        if matches {
            self.add(slot, more);
        }
    }

    pub fn forget_class(&mut self, class: u32) {
        self.matching.remove(&class);
    }

    fn matches(&mut self, id: u32, class: &Class) -> bool {
        let (namespace, selector) = (self.namespace, &self.spread.selector);
        *self
            .matching
            .entry(id)
            .or_insert_with(|| class.namespace == namespace && selector.matches(&class.labels))
    }

    fn add(&mut self, slot: u32, more: i32) {
        if let Some(&domain) = self.domain_of.get(slot as usize)
            && domain != NO_DOMAIN
        {
            self.pods[domain as usize] += more;
        }
    }

    /// Takes out of `nodes` those where one more pod would make the skew too large; nothing if the constraint is soft.
    pub fn keep_balanced(&self, nodes: &mut NodeSet) {
        if !self.spread.hard {
            return;
        }
        let most = self.most_allowed();
        let allowed: Vec<bool> = self.pods.iter().map(|&pods| pods <= most).collect();
        // All 64 of a word without a branch on each: in a set of which some are out that is the faster way.
        for (word, domains) in nodes.0.iter_mut().zip(self.domain_of.chunks(64)) {
            let mut balanced = 0;
            for (bit, &domain) in domains.iter().enumerate() {
                balanced |= u64::from(allowed.get(domain as usize).copied().unwrap_or(false)) << bit;
            }
            *word &= balanced;
        }
    }

    /// How many matching pods a domain may have already.
    fn most_allowed(&self) -> i32 {
        let fewest = if (self.pods.len() as u32) < self.spread.min_domains {
            0
        } else {
            self.pods.iter().copied().min().unwrap_or(0)
        };
        fewest + self.spread.max_skew - self.counts_itself
    }

    /// Why `slot` is out: it has no domain, or its domain is full.
    pub fn rejects(&self, slot: u32) -> Option<Rejection> {
        if !self.spread.hard {
            return None;
        }
        match self.domain_of.get(slot as usize) {
            None | Some(&NO_DOMAIN) => Some(Rejection::MissingLabel),
            Some(&domain) => (self.pods[domain as usize] > self.most_allowed()).then_some(Rejection::Skew),
        }
    }

    pub fn soft(&self) -> bool {
        !self.spread.hard
    }

    /// How crowded each domain is, heavier the more domains there are; `None` for those without a feasible node.
    fn crowding(&self, feasible: &NodeSet) -> Vec<Option<f64>> {
        let mut seen = vec![false; self.pods.len()];
        let mut domains = 0;
        for slot in feasible.iter() {
            if let Some(domain) = self.domain(slot).filter(|&domain| !seen[domain]) {
                seen[domain] = true;
                domains += 1;
                if domains == seen.len() {
                    break;
                }
            }
        }
        let weight = ((domains + 2) as f64).ln();
        let extra = f64::from(self.spread.max_skew - 1);
        let crowd = |(&pods, seen): (&i32, bool)| seen.then(|| f64::from(pods) * weight + extra);
        self.pods.iter().zip(seen).map(crowd).collect()
    }

    fn domain(&self, slot: u32) -> Option<usize> {
        self.domain_of
            .get(slot as usize)
            .copied()
            .filter(|&d| d != NO_DOMAIN)
            .map(|d| d as usize)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    MissingLabel,
    Skew,
}

/// Scores of the feasible nodes by soft constraints, in slot order.
pub fn scores(soft: &[&Constraint], feasible: &NodeSet) -> Vec<i32> {
    // By one constraint a node's score is its domain's, and there are fewer domains than nodes.
    if let [only] = soft {
        let crowds: Vec<_> = only
            .crowding(feasible)
            .into_iter()
            .map(|crowd| crowd.map(round))
            .collect();
        let by_domain = normalise(&crowds);
        let mut scores = Vec::with_capacity(feasible.len());
        feasible
            .iter()
            .for_each(|slot| scores.push(only.domain(slot).map_or(0, |domain| by_domain[domain])));
        return scores;
    }
    let mut sums = vec![Some(0.0); feasible.len()];
    for constraint in soft {
        let crowds = constraint.crowding(feasible);
        for (slot, sum) in feasible.iter().zip(&mut sums) {
            let crowd = constraint.domain(slot).and_then(|domain| crowds[domain]);
            *sum = sum.zip(crowd).map(|(sum, crowd)| sum + crowd);
        }
    }
    let sums: Vec<_> = sums.into_iter().map(|sum| sum.map(round)).collect();
    normalise(&sums)
}

fn round(crowd: f64) -> i64 {
    crowd.round() as i64
}

/// Crowding as scores: the least crowded 100, in proportion to the most crowded; 0 where there is none to speak of.
fn normalise(crowds: &[Option<i64>]) -> Vec<i32> {
    let known = || crowds.iter().copied().flatten();
    let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    let score = |crowd: i64| {
        if most == 0 {
            100
        } else {
            (100 * (most + least - crowd) / most) as i32
        }
    };
    crowds.iter().map(|crowd| crowd.map_or(0, score)).collect()
}

#[cfg(test)]
mod tests {
    use sdk::scheduler::records::Selector;

    use super::*;

    fn constraint(domain_of: &[u32], pods: &[i32]) -> Constraint {
        Constraint {
            spread: Spread {
                max_skew: 1,
                topology_key: 0,
                hard: false,
                min_domains: 1,
                honor_affinity: true,
                honor_taints: false,
                selector: Selector::default(),
            },
            namespace: 0,
            counts_itself: 0,
            domain_of: domain_of.to_vec(),
            pods: pods.to_vec(),
            matching: Map::default(),
        }
    }

    #[test]
    fn the_least_crowded_domain_is_best_and_none_is_worst() {
        let zones = constraint(&[0, 1, NO_DOMAIN, 1], &[10, 5]);
        let nodes: NodeSet = (0..4).collect();
        assert_eq!(scores(&[&zones], &nodes), [50, 100, 0, 100]);
    }

    #[test]
    fn a_second_constraint_under_which_all_are_alike_changes_no_order() {
        let zones = constraint(&[0, 1, NO_DOMAIN, 1, 2], &[10, 5, 90]);
        let same = constraint(&[0; 5], &[0]);
        // Without node 4 nobody has domain 2: what is there does not count.
        let nodes: NodeSet = (0..4).collect();
        assert_eq!(scores(&[&zones, &same], &nodes), scores(&[&zones], &nodes));
    }
}
