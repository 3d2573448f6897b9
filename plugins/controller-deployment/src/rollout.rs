//! One step of a rollout.

use sdk::{Outcome, View, within};

use crate::Deployment;
use crate::scale::{self, Bounds};
use crate::sets::{self, Sets};

/// Up or down, whatever is due first.
pub(crate) fn step(deployment: &Deployment, sets: &Sets, view: &View, outcome: &mut Outcome) -> sdk::Result<()> {
    if deployment.recreates() {
        recreate(deployment, sets, view, outcome)?
    } else {
        roll(deployment, sets, outcome)
    }
    Ok(())
}

/// First every old pod goes, and is gone; then the new set comes.
fn recreate(deployment: &Deployment, sets: &Sets, view: &View, outcome: &mut Outcome) -> sdk::Result<()> {
    let mut old_pods = false;
    for old in sets.active_old() {
        scale::set(deployment, old, 0, outcome);
        old_pods = true;
    }
    if old_pods || any_pod_left(deployment, sets, view)? {
        return Ok(());
    }
    up(deployment, sets, deployment.wanted(), outcome);
    Ok(())
}

/// Pods of old sets that are still there in any form; asked of the pods, for a set's status trails them.
fn any_pod_left(deployment: &Deployment, sets: &Sets, view: &View) -> sdk::Result<bool> {
    for old in &sets.old {
        let pods = within(&deployment.namespace).controlled_by(&old.uid);
        let tally = view.tally("v1/Pod", &pods, ".status.phase", "")?;
        if tally
            .rows()?
            .any(|row| !matches!(row.value(0).str(), "Succeeded" | "Failed") && row.count() > 0)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn up(deployment: &Deployment, sets: &Sets, replicas: i64, outcome: &mut Outcome) {
    match &sets.new {
        Some(new) => scale::set(deployment, new, replicas, outcome),
        None => sets::create(deployment, sets, replicas, scale::most(deployment), outcome),
    }
}

/// A step up leaves the step down to the next run, which sees what came of it.
fn roll(deployment: &Deployment, sets: &Sets, outcome: &mut Outcome) {
    let size = new_size(deployment, sets);
    up(deployment, sets, size, outcome);
    if sets.new.as_ref().is_some_and(|new| new.wanted() == size) {
        down(deployment, sets, outcome);
    }
}

/// As many of the new set as the surge leaves room for, and no more than wanted.
fn new_size(deployment: &Deployment, sets: &Sets) -> i64 {
    let has = sets.new.as_ref().map_or(0, sets::Set::wanted);
    let wanted = deployment.wanted();
    if has > wanted {
        return wanted;
    }
    let room = scale::most(deployment) - sets.sum(sets::Set::wanted);
    has + room.clamp(0, wanted - has)
}

/// Old pods go as new ones become available: first those that never worked, then as many as availability allows.
fn down(deployment: &Deployment, sets: &Sets, outcome: &mut Outcome) {
    let old_pods: i64 = sets.old.iter().map(sets::Set::wanted).sum();
    let Some(new) = sets.new.as_ref().filter(|_| old_pods > 0) else {
        return;
    };
    let least_available = deployment.wanted() - Bounds::of(deployment).unavailable;
    let not_available = new.wanted() - new.available;
    let all = sets.sum(sets::Set::wanted);
    let mut may_go = all - least_available - not_available;
    if may_go <= 0 {
        return;
    }
    let mut sizes: Vec<i64> = sets.old.iter().map(sets::Set::wanted).collect();
    for (old, size) in sets.old.iter().zip(&mut sizes) {
        // A set whose status has not caught up with its size may have more available than it says.
        let broken = if old.observed < old.generation {
            0
        } else {
            (*size - old.available).max(0)
        };
        let go = broken.min(may_go);
        *size -= go;
        may_go -= go;
    }
    let mut may_go = sets.sum(sets::Set::surely_available) - least_available;
    for size in &mut sizes {
        let go = (*size).min(may_go.max(0));
        *size -= go;
        may_go -= go;
    }
    for (old, size) in sets.old.iter().zip(sizes) {
        if size != old.wanted() {
            scale::set(deployment, old, size, outcome);
        }
    }
}
