//! NodeResourcesFit: what a pod asks for is free. Scored by how much is left (LeastAllocated).

use sdk::scheduler::NodeSet;
use sdk::scheduler::records::{Class, PODS};

use crate::mirror::Mirror;

pub fn fits(mirror: &Mirror, class: &Class, slot: u32) -> bool {
    mirror.free(PODS, slot) >= 1
        && class
            .requests
            .iter()
            .all(|&(resource, amount)| mirror.free(resource, slot) >= amount)
}

/// Leaves of `nodes` those that the class [`fits`], a resource at a time over all of them.
pub fn keep_fitting(mirror: &Mirror, class: &Class, nodes: &mut NodeSet) {
    for (resource, amount) in [(PODS, 1)].iter().chain(&class.requests) {
        match mirror.columns.get(*resource as usize) {
            Some(column) => column.keep_free(*amount, nodes),
            None if *amount > 0 => nodes.0.fill(0),
            None => {}
        }
    }
}

/// `Too many pods`, `Insufficient cpu`: each resource that is short.
pub fn short_of(mirror: &Mirror, class: &Class, slot: u32) -> Vec<String> {
    let mut short = Vec::new();
    if mirror.free(PODS, slot) < 1 {
        short.push("Too many pods".into());
    }
    let lacking = class
        .requests
        .iter()
        .filter(|&&(resource, amount)| mirror.free(resource, slot) < amount);
    short.extend(lacking.map(|&(resource, _)| format!("Insufficient {}", mirror.resource(resource))));
    short
}

/// Whether the empty node would be too small as well.
pub fn never(mirror: &Mirror, class: &Class, slot: u32) -> bool {
    class.requests.iter().any(|&(resource, amount)| {
        let all = mirror
            .columns
            .get(resource as usize)
            .map_or(0, |c| c.allocatable[slot as usize]);
        all < amount
    })
}

/// 0 to 100: the mean share of cpu and memory that is left with the pod there.
pub fn score(mirror: &Mirror, class: &Class, slot: u32) -> i32 {
    let at = slot as usize;
    let [cpu, memory] = &mirror.for_score;
    let cpu = left(cpu.allocatable[at], cpu.used[at] + class.for_score.0);
    let memory = left(memory.allocatable[at], memory.used[at] + class.for_score.1);
    match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu + memory) / 2,
        (one, other) => one.or(other).unwrap_or(0),
    }
}

/// Whole percent of `all` that `used` leaves; `None` where there is nothing to use.
fn left(all: i64, used: i64) -> Option<i32> {
    (all > 0).then(|| percent((all - used).max(0), all))
}

/// Below this the quotient of hundredfold and whole differs from every whole number it is not by more than a `f64` rounds off.
const EXACT: i64 = 1 << 46;

/// Whole percent, rounded down. `part` is from 0 to `all`.
fn percent(part: i64, all: i64) -> i32 {
    if all < EXACT {
        // Several times as fast as dividing whole numbers.
        ((part * 100) as f64 / all as f64) as i32
    } else {
        (i128::from(part) * 100 / i128::from(all)) as i32
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn percents_are_exact_for_any_amount() {
        assert_eq!(super::percent(7, 9), 77);
        assert_eq!(super::percent(i64::MAX, i64::MAX), 100);
        assert_eq!(super::percent(i64::MAX / 2, i64::MAX), 49);
        // Around every whole percent of amounts of each size, where rounding would show.
        for bits in 1..63 {
            for all in [(1i64 << bits) - 1, 1 << bits, (1 << bits) + 1] {
                for percent in 0..=100 {
                    let there = (i128::from(all) * percent / 100) as i64;
                    for part in [there - 1, there, there + 1, there + 2] {
                        if (0..=all).contains(&part) {
                            let exact = (i128::from(part) * 100 / i128::from(all)) as i32;
                            assert_eq!(super::percent(part, all), exact, "{part} of {all}");
                        }
                    }
                }
            }
        }
    }
}
