//! What is known of each class on each node, kept and mended as the mirror changes.

use sdk::scheduler::records::{Class, PREFER_NO_SCHEDULE};
use sdk::scheduler::{Kept, NodeSet};

use crate::mirror::{Changed, Mirror};
use crate::spread::{self, Constraint};
use crate::{affinity, balance, fit, ports, taints, weight};

/// Answers by class: about 25 KB each at 5,000 nodes.
#[derive(Debug, Default)]
pub struct Classes {
    kept: Kept<Known, Changed>,
}

/// One class's answers.
#[derive(Debug)]
pub struct Known {
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
            // What comes next is the whole cluster: nothing kept is of use.
            Changed::Everything => self.kept.clear(),
            Changed::ClassGone(class) => {
                self.kept.forget(class);
                let constraints = self.kept.each().flat_map(|known| &mut known.spread);
                constraints.for_each(|constraint| constraint.forget_class(class));
            }
            _ => self.kept.hear(change),
        }
    }

    /// The class's answers, true of the mirror as it is.
    ///
    /// # Errors
    /// When the host never told of this class.
    pub fn current(&mut self, mirror: &Mirror, id: u32) -> Result<&Known, String> {
        let class = mirror.class(id)?;
        // To look at a node again costs about four times what it costs among all of them.
        let most = (mirror.slots() / 4).max(64);
        let anew = || Known::new(mirror, class);
        Ok(self
            .kept
            .current(id, most, anew, |known, change| known.mend(mirror, class, change)))
    }
}

impl Known {
    fn new(mirror: &Mirror, class: &Class) -> Self {
        let slots = mirror.slots();
        let mut known = Self {
            fits: mirror.live.clone(),
            own: (0..slots as u32).map(|slot| own(mirror, class, slot)).collect(),
            preference: None,
            unwelcome: None,
            spread: class.spread.iter().map(|s| Constraint::new(mirror, class, s)).collect(),
        };
        fit::keep_fitting(mirror, class, &mut known.fits);
        // Most classes take any node, and most nodes any class: then there is nothing else to look at.
        let any = class.ports.is_empty() && affinity::takes_any(class);
        let special = |slot: &u32| !any || !mirror.plain.contains(*slot);
        for slot in known.fits.clone().iter().filter(special) {
            known.fits.set(slot, may_go(mirror, class, slot));
        }
        let prefers = !class.preferred.is_empty();
        known.preference = prefers.then(|| vec![0; slots]);
        for slot in mirror
            .live
            .iter()
            .filter(|&slot| prefers || !mirror.plain.contains(slot))
        {
            known.compare(mirror, class, slot);
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
        if mirror.node(slot).is_none() {
            return self.fits.remove(slot);
        }
        let at = slot as usize;
        if at >= self.own.len() {
            let slots = mirror.slots();
            self.own.resize(slots, 0);
            for column in [&mut self.preference, &mut self.unwelcome].into_iter().flatten() {
                column.resize(slots, 0);
            }
        }
        self.fits
            .set(slot, may_go(mirror, class, slot) && fit::fits(mirror, class, slot));
        self.own[at] = own(mirror, class, slot);
        self.compare(mirror, class, slot);
    }

    /// The parts of a node's score that are normalised over the feasible ones.
    fn compare(&mut self, mirror: &Mirror, class: &Class, slot: u32) {
        let Some(node) = mirror.node(slot) else { return };
        let at = slot as usize;
        if let Some(preference) = &mut self.preference {
            preference[at] = affinity::preference(mirror, class, node);
        }
        if node.taints.iter().any(|t| t.effect == PREFER_NO_SCHEDULE) || self.unwelcome.is_some() {
            let column = self.unwelcome.get_or_insert_with(|| vec![0; mirror.slots()]);
            column[at] = taints::unwelcome(mirror, class, node);
        }
    }

    /// Weighted scores of the feasible nodes, in slot order.
    pub fn scores(&self, feasible: &NodeSet) -> Vec<i32> {
        let mut scores = feasible.gather(&self.own);
        if let Some(preference) = &self.preference {
            let raw = feasible.gather(preference);
            let most = raw.iter().copied().max().unwrap_or(0);
            if most > 0 {
                add(&mut scores, raw.iter().map(|p| weight::AFFINITY * (p * 100 / most)));
            }
        }
        // Without a taint to count every node is equally welcome, and a constant changes no order.
        if let Some(unwelcome) = &self.unwelcome {
            let raw = feasible.gather(unwelcome);
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

/// Everything that keeps the class off a node but what is free there and spreading.
fn may_go(mirror: &Mirror, class: &Class, slot: u32) -> bool {
    mirror.node(slot).is_some_and(|node| {
        !taints::cordoned(mirror, class, node)
            && taints::untolerated(mirror, class, node).is_none()
            && affinity::matches(mirror, class, node)
            && ports::free(mirror, class, slot)
    })
}

/// The part of the score that a node has by itself.
fn own(mirror: &Mirror, class: &Class, slot: u32) -> i32 {
    weight::FIT * fit::score(mirror, class, slot) + weight::BALANCE * balance::score(mirror, class, slot)
}

fn add(scores: &mut [i32], more: impl Iterator<Item = i32>) {
    scores.iter_mut().zip(more).for_each(|(score, more)| *score += more);
}
