//! The weighted sum of all policies' scores, and the best of them.

use crate::dice::Dice;

/// The largest weight that counts; kube-scheduler's own are below 10.
const MOST_WEIGHT: i64 = 1_000_000;

/// One sum for each feasible node. In 32 bits as long as no sum can leave them, whatever it is of, so that several are worked
/// on at a time: scores and weights as they are meant to be are far from that.
#[derive(Debug)]
pub(crate) struct Totals {
    sums: Sums,
    /// No sum is further from 0.
    most: i64,
}

#[derive(Debug)]
enum Sums {
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
}

impl Totals {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            sums: Sums::Narrow(vec![0; nodes]),
            most: 0,
        }
    }

    /// `scores` has one for each node.
    pub(crate) fn add(&mut self, weight: i64, scores: &[i32]) {
        let weight = weight.clamp(-MOST_WEIGHT, MOST_WEIGHT);
        let (low, high) = scores
            .iter()
            .fold((0, 0), |(low, high), &score| (score.min(low), score.max(high)));
        // At most 10^6 × 2^31 each: 4,000 policies would not overflow it.
        self.most += weight.abs() * i64::from(high).max(-i64::from(low));
        if let Sums::Narrow(sums) = &self.sums
            && self.most > i64::from(i32::MAX)
        {
            self.sums = Sums::Wide(sums.iter().copied().map(i64::from).collect());
        }
        match &mut self.sums {
            Sums::Narrow(sums) => add(sums, scores, |score| weight as i32 * score),
            Sums::Wide(sums) => add(sums, scores, |score| weight * i64::from(score)),
        }
    }

    /// The position of one of the highest sums, each equally likely; 0 where there is none.
    pub(crate) fn best(&self, dice: &mut Dice) -> usize {
        match &self.sums {
            Sums::Narrow(sums) => best(sums, i32::MIN, dice),
            Sums::Wide(sums) => best(sums, i64::MIN, dice),
        }
    }
}

fn add<T: std::ops::AddAssign>(sums: &mut [T], scores: &[i32], weighted: impl Fn(i32) -> T) {
    sums.iter_mut()
        .zip(scores)
        .for_each(|(sum, &score)| *sum += weighted(score));
}

/// Passes without a branch on each value, one after the other: together faster than one pass with branches.
fn best<T: Copy + Ord>(sums: &[T], least: T, dice: &mut Dice) -> usize {
    /// Values that are counted at once when looking for the chosen one.
    const BLOCK: usize = 256;
    let count = |sums: &[T], best: T| sums.iter().map(|&sum| u32::from(sum == best)).sum::<u32>();
    let best = sums.iter().fold(least, |best, &sum| best.max(sum));
    let ties = count(sums, best);
    let mut before = if ties > 1 {
        (dice.roll() % u64::from(ties)) as u32
    } else {
        0
    };
    for (at, block) in sums.chunks(BLOCK).enumerate() {
        let here = count(block, best);
        if before < here {
            let those = block.iter().enumerate().filter(|&(_, &sum)| sum == best);
            return those
                .map(|(within, _)| at * BLOCK + within)
                .nth(before as usize)
                .unwrap_or(0);
        }
        before -= here;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is meant, as plainly as it can be said.
    fn plainly(columns: &[(i64, Vec<i32>)], nodes: usize, dice: &mut Dice) -> usize {
        let sum = |at: usize| columns.iter().map(|(w, scores)| w * i64::from(scores[at])).sum::<i64>();
        let best = (0..nodes).map(sum).max().expect("a node");
        let best: Vec<usize> = (0..nodes).filter(|&at| sum(at) == best).collect();
        let chosen = if best.len() > 1 {
            dice.roll() % best.len() as u64
        } else {
            0
        };
        best[chosen as usize]
    }

    #[test]
    fn the_best_of_any_sums_is_found_as_it_is_meant() {
        let mut dice = Dice::new(7);
        let scores = [[0, 100], [0, 1], [-3, 3], [0, i32::MAX], [i32::MIN, 0]];
        let weights = [1, 2, 0, -5, 1_000, MOST_WEIGHT];
        for round in 0..500 {
            let nodes = 1 + dice.roll() as usize % 700;
            let columns: Vec<(i64, Vec<i32>)> = (0..1 + dice.roll() % 4)
                .map(|_| {
                    let [low, high] = scores[dice.roll() as usize % scores.len()];
                    let span = (i64::from(high) - i64::from(low) + 1) as u64;
                    let score = |roll: u64| (i64::from(low) + (roll % span) as i64) as i32;
                    let weight = weights[dice.roll() as usize % weights.len()];
                    (weight, (0..nodes).map(|_| score(dice.roll())).collect())
                })
                .collect();
            let mut totals = Totals::new(nodes);
            columns.iter().for_each(|(weight, scores)| totals.add(*weight, scores));
            let mut again = dice.clone();
            assert_eq!(
                totals.best(&mut dice),
                plainly(&columns, nodes, &mut again),
                "round {round}"
            );
            assert_eq!(dice.roll(), again.roll(), "round {round}: as many rolls");
        }
    }
}
