//! NodeResourcesFit: what a pod asks for is free. Scored by how much is left (LeastAllocated).

use sdk::scheduler::records::{Class, PODS};

use crate::mirror::Mirror;

pub fn fits(mirror: &Mirror, class: &Class, slot: u32) -> bool {
    mirror.free(PODS, slot) >= 1
        && class
            .requests
            .iter()
            .all(|&(resource, amount)| mirror.free(resource, slot) >= amount)
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
    let asked = [class.for_score.0, class.for_score.1];
    let (mut sum, mut counted) = (0, 0);
    for (column, asked) in mirror.for_score.iter().zip(asked) {
        let all = column.allocatable[slot as usize];
        if all > 0 {
            let left = all - column.used[slot as usize] - asked;
            sum += if left < 0 { 0 } else { percent(left, all) };
            counted += 1;
        }
    }
    if counted == 0 { 0 } else { sum / counted }
}

/// Whole percent. Division of 128 bits is a slow call in Wasm, and needed above 92 PB only.
fn percent(part: i64, all: i64) -> i32 {
    match part.checked_mul(100) {
        Some(hundredfold) => (hundredfold / all) as i32,
        None => (i128::from(part) * 100 / i128::from(all)) as i32,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn percents_of_what_does_not_fit_a_hundredfold() {
        assert_eq!(super::percent(7, 9), 77);
        assert_eq!(super::percent(i64::MAX, i64::MAX), 100);
        assert_eq!(super::percent(i64::MAX / 2, i64::MAX), 49);
    }
}
