//! What is known of each class on each node, kept and mended as the mirror changes.

use std::collections::VecDeque;

use rustc_hash::FxHashMap as Map;
use sdk::scheduler::NodeSet;
use sdk::scheduler::records::{Class, PREFER_NO_SCHEDULE};

use crate::mirror::{Changed, Mirror};
use crate::spread::{self, Constraint};
use crate::{affinity, balance, fit, ports, taints, weight};

/// Changes kept for classes that have not been asked about since. One that is further behind is worked out anew, which costs
/// about as much as this many mendings.
const KEPT: usize = 16_384;
/// Classes whose answers are kept, so that memory stays bounded: about 25 KB each at 5,000 nodes.
const CLASSES: usize = 1_024;

/// Answers by class.
#[derive(Debug, Default)]
pub struct Classes {
    known: Map<u32, Known>,
    changes: VecDeque<Changed>,
    /// Number of the first change in `changes`.
    first: u64,
    uses: u64,
}

/// One class's answers, as of change number `upto`.
#[derive(Debug)]
pub struct Known {
    upto: u64,
    used: u64,
    /// Nodes that pass everything but spreading.
    pub fits: NodeSet,
    /// The part of the score that a node has by itself, by slot.
    own: Vec<i32>,
    /// Weights of matching preferred terms, by slot, if the class prefers anything.
    preference: Option<Vec<i32>>,
    /// PreferNoSchedule taints not tolerated, by slot, once there is one in the cluster.
    unwelcome: Option<Vec<i32>>,
    pub spread: Vec<Constraint>,
}

impl Classes {
    pub fn hear(&mut self, change: Changed) {
        match change {
            Changed::Everything => {
                // What comes next is the whole cluster: nothing kept is of use.
                self.known.clear();
                self.changes.clear();
                self.first = 0;
            }
            Changed::ClassGone(class) => {
                self.known.remove(&class);
                for known in self.known.values_mut() {
                    known.spread.iter_mut().for_each(|c| c.forget_class(class));
                }
            }
            _ => {
                self.changes.push_back(change);
                if self.changes.len() > KEPT {
                    self.changes.pop_front();
                    self.first += 1;
                }
            }
        }
    }

    /// The class's answers, true of the mirror as it is.
    ///
    /// # Errors
    /// When the host never told of this class.
    pub fn current(&mut self, mirror: &Mirror, id: u32) -> Result<&Known, String> {
        let class = mirror.class(id)?;
        let end = self.first + self.changes.len() as u64;
        self.uses += 1;
        if !self.known.contains_key(&id) && self.known.len() >= CLASSES {
            let oldest = self.known.iter().map(|(&id, k)| (k.used, id)).min();
            oldest.map(|(_, id)| self.known.remove(&id));
        }
        let uses = self.uses;
        let known = self.known.entry(id).or_insert_with(|| Known::new(mirror, class, end));
        known.used = uses;
        let mended = known.upto >= self.first && {
            let behind = self.changes.range((known.upto - self.first) as usize..);
            // As many mendings as there are nodes are a new start in a worse order.
            behind.len() <= mirror.slots().max(64) && behind.copied().all(|change| known.mend(mirror, class, change))
        };
        if !mended {
            *known = Known {
                used: uses,
                ..Known::new(mirror, class, end)
            };
        }
        known.upto = end;
        Ok(known)
    }
}

impl Known {
    fn new(mirror: &Mirror, class: &Class, upto: u64) -> Self {
        let slots = mirror.slots();
        let prefers = !class.preferred.is_empty();
        let mut known = Self {
            upto,
            used: 0,
            fits: NodeSet::with_room(slots),
            own: vec![0; slots],
            preference: prefers.then(|| vec![0; slots]),
            unwelcome: None,
            spread: class.spread.iter().map(|s| Constraint::new(mirror, class, s)).collect(),
        };
        for slot in mirror.live.iter() {
            known.look_at(mirror, class, slot);
        }
        known
    }

    /// Takes one change in. `false`: too much changed, begin anew.
    fn mend(&mut self, mirror: &Mirror, class: &Class, change: Changed) -> bool {
        match change {
            Changed::Pods { class: of, slot, more } => {
                self.spread.iter_mut().for_each(|c| c.hear(mirror, of, slot, more));
                self.look_at(mirror, class, slot);
                true
            }
            Changed::Capacity(slot) => {
                self.look_at(mirror, class, slot);
                true
            }
            Changed::Node(slot) | Changed::NodeGone(slot) => {
                self.look_at(mirror, class, slot);
                // Domains may have come, gone or changed sides.
                self.spread.is_empty()
            }
            Changed::Everything | Changed::ClassGone(_) => false,
        }
    }

    fn look_at(&mut self, mirror: &Mirror, class: &Class, slot: u32) {
        let Some(node) = mirror.node(slot) else {
            return self.fits.remove(slot);
        };
        let at = slot as usize;
        if at >= self.own.len() {
            let slots = mirror.slots();
            self.own.resize(slots, 0);
            for column in [&mut self.preference, &mut self.unwelcome].into_iter().flatten() {
                column.resize(slots, 0);
            }
        }
        let fits = !taints::cordoned(mirror, class, node)
            && taints::untolerated(mirror, class, node).is_none()
            && affinity::matches(mirror, class, node)
            && ports::free(mirror, class, slot)
            && fit::fits(mirror, class, slot);
        self.fits.set(slot, fits);
        self.own[at] =
            weight::FIT * fit::score(mirror, class, slot) + weight::BALANCE * balance::score(mirror, class, slot);
        if let Some(preference) = &mut self.preference {
            preference[at] = affinity::preference(mirror, class, node);
        }
        if node.taints.iter().any(|t| t.effect == PREFER_NO_SCHEDULE) || self.unwelcome.is_some() {
            let column = self.unwelcome.get_or_insert_with(|| vec![0; mirror.slots()]);
            column[at] = taints::unwelcome(mirror, class, node);
        }
    }

    /// Weighted scores of the feasible nodes, in slot order.
    pub fn scores(&self, _mirror: &Mirror, feasible: &NodeSet) -> Vec<i32> {
        let mut scores = gather(&self.own, feasible);
        if let Some(preference) = &self.preference {
            let raw = gather(preference, feasible);
            let most = raw.iter().copied().max().unwrap_or(0);
            if most > 0 {
                add(&mut scores, raw.iter().map(|p| weight::AFFINITY * (p * 100 / most)));
            }
        }
        // Without a taint to count every node is equally welcome, and a constant changes no order.
        if let Some(unwelcome) = &self.unwelcome {
            let raw = gather(unwelcome, feasible);
            let most = raw.iter().copied().max().unwrap_or(0);
            if most > 0 {
                add(&mut scores, raw.iter().map(|u| weight::TAINTS * (100 - u * 100 / most)));
            }
        }
        let soft: Vec<&Constraint> = self.spread.iter().filter(|c| c.soft()).collect();
        if !soft.is_empty() {
            add(
                &mut scores,
                spread::scores(&soft, feasible).into_iter().map(|s| weight::SPREAD * s),
            );
        }
        scores
    }
}

/// The column's values at `slots`, in their order. Where 64 neighbours are all there, as in most clusters, they are copied at once.
fn gather(column: &[i32], slots: &NodeSet) -> Vec<i32> {
    let mut values = Vec::with_capacity(slots.len());
    for (at, &word) in slots.0.iter().enumerate() {
        let base = at * 64;
        if word == u64::MAX
            && let Some(whole) = column.get(base..base + 64)
        {
            values.extend_from_slice(whole);
            continue;
        }
        let mut left = word;
        while left != 0 {
            values.push(column.get(base + left.trailing_zeros() as usize).copied().unwrap_or(0));
            left &= left - 1;
        }
    }
    values
}

fn add(scores: &mut [i32], more: impl Iterator<Item = i32>) {
    scores.iter_mut().zip(more).for_each(|(score, more)| *score += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_is_the_same_by_words_and_by_slots() {
        let column: Vec<i32> = (0..200).collect();
        let slots: NodeSet = (0..64).chain([65, 127]).chain(128..192).chain([199, 210]).collect();
        let one_by_one: Vec<i32> = slots
            .iter()
            .map(|slot| column.get(slot as usize).copied().unwrap_or(0))
            .collect();
        assert_eq!(gather(&column, &slots), one_by_one);
    }
}
