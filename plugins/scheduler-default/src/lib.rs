//! The default scheduling policy: what kube-scheduler decides with its default plugins, over a mirror kept by deltas.
//!
//! Start at [`DefaultPolicy`]. [`mirror::Mirror`] is the cluster in columns, one entry a slot; a file for each rule (`fit`,
//! `affinity`, `taints`, `ports`, `spread`, `balance`) answers for one class of pods and one node; [`classes`] keeps the answers,
//! so that a pod of a class already seen costs the nodes that changed since, not all there are.

pub mod affinity;
pub mod balance;
pub mod classes;
mod explain;
pub mod fit;
pub mod mirror;
pub mod ports;
pub mod spread;
pub mod taints;

use sdk::scheduler::{Change, NodeSet, Pod, Policy, Verdict};

use crate::classes::Classes;
use crate::mirror::Mirror;

/// Weights as in kube-scheduler's default profile.
pub mod weight {
    pub const FIT: i32 = 1;
    pub const BALANCE: i32 = 1;
    pub const AFFINITY: i32 = 2;
    pub const SPREAD: i32 = 2;
    pub const TAINTS: i32 = 3;
}

/// The policy: a mirror, and what is known of each class on it.
#[sdk::policy(filter, score, what_if, config = sdk::scheduler::WEIGHT_SCHEMA)]
#[derive(Default)]
pub struct DefaultPolicy {
    mirror: Mirror,
    classes: Classes,
}

impl Policy for DefaultPolicy {
    fn sync(&mut self, deltas: &[u8]) -> Result<(), String> {
        let (mirror, classes) = (&mut self.mirror, &mut self.classes);
        sdk::scheduler::records::read(deltas, |delta| {
            mirror.take_in(delta, &mut |change| classes.hear(change));
        })
    }

    fn filter(&mut self, pod: Pod, among: &NodeSet, explain: bool) -> Result<Verdict, String> {
        let known = self.classes.current(&self.mirror, pod.class)?;
        let mut passed = among.clone();
        passed.intersect(&known.fits);
        for constraint in &known.spread {
            constraint.keep_balanced(&mut passed);
        }
        if !explain {
            return Ok(Verdict {
                passed,
                ..Verdict::default()
            });
        }
        explain::explain(&self.mirror, pod.class, known, among, passed)
    }

    fn score(&mut self, pod: Pod, feasible: &NodeSet) -> Result<Vec<i32>, String> {
        let known = self.classes.current(&self.mirror, pod.class)?;
        Ok(known.scores(feasible))
    }

    fn what_if(&mut self, changes: &[Change], pod: Pod, among: &NodeSet) -> Result<NodeSet, String> {
        // The changes are made, the question asked, and the changes undone: the mirror is the same before and after.
        let (mirror, classes) = (&mut self.mirror, &mut self.classes);
        let undo: Vec<_> = changes
            .iter()
            .map(|&change| mirror.suppose(change, &mut |c| classes.hear(c)))
            .collect();
        let passed = self.filter(pod, among, false).map(|verdict| verdict.passed);
        let (mirror, classes) = (&mut self.mirror, &mut self.classes);
        for before in undo.into_iter().rev() {
            mirror.put_back(before, &mut |c| classes.hear(c));
        }
        passed
    }

    fn without_lower(&mut self, pod: Pod, among: &NodeSet, below: i32) -> Result<NodeSet, String> {
        let lower: Vec<Change> = self.mirror.pods_below(below, among).map(Change::Removed).collect();
        self.what_if(&lower, pod, among)
    }
}
