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
    pub fn keep_balanced(&self, _mirror: &Mirror, nodes: &mut NodeSet) {
        if !self.spread.hard {
            return;
        }
        let most = self.most_allowed();
        let allowed: Vec<bool> = self.pods.iter().map(|&pods| pods <= most).collect();
        for (at, word) in nodes.0.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let domain = self.domain_of.get(at * 64 + bit as usize).copied().unwrap_or(NO_DOMAIN);
                if !allowed.get(domain as usize).copied().unwrap_or(false) {
                    *word &= !(1 << bit);
                }
            }
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

    /// For a soft constraint: adds how crowded each feasible node's domain is, heavier the more domains there are; NaN for nodes
    /// without a domain.
    pub fn crowding(&self, feasible: &NodeSet, sums: &mut [f64]) {
        let mut seen = vec![false; self.pods.len()];
        for slot in feasible.iter() {
            if let Some(seen) = self.domain(slot).and_then(|d| seen.get_mut(d)) {
                *seen = true;
            }
        }
        let domains = seen.iter().filter(|&&s| s).count();
        let weight = ((domains + 2) as f64).ln();
        let extra = f64::from(self.spread.max_skew - 1);
        for (slot, sum) in feasible.iter().zip(sums) {
            *sum += self
                .domain(slot)
                .map_or(f64::NAN, |d| f64::from(self.pods[d]) * weight + extra);
        }
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

/// Crowding as scores: the least crowded 100, in proportion to the most crowded, 0 without a domain.
pub fn normalise(sums: &[f64]) -> impl Iterator<Item = i32> + '_ {
    let known = || sums.iter().copied().filter(|s| !s.is_nan()).map(|s| s.round() as i64);
    let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    sums.iter().map(move |sum| match () {
        () if sum.is_nan() => 0,
        () if most == 0 => 100,
        () => (100 * (most + least - sum.round() as i64) / most) as i32,
    })
}
