//! Answers kept by class and mended as the mirror changes, so that a question costs what changed since the last one.

use std::collections::{BTreeMap, VecDeque};

/// Changes kept for classes that have not been asked about since. A class that is further behind is worked out anew.
const CHANGES: usize = 16_384;
/// Classes whose answers are kept, so that memory stays bounded; the one that was asked about longest ago goes first.
const CLASSES: usize = 1_024;

/// One answer of kind `A` a class, and the changes of kind `C` (the slot of a node, say) since it was right.
///
/// ```
/// # use sdk::scheduler::Kept;
/// let free = [4, 7];
/// let mut kept: Kept<Vec<i32>, u32> = Kept::default();
/// let column = kept.current(0, 2, || free.to_vec(), |_, _| true);
/// assert_eq!(column, &[4, 7]);
/// // The second node has less now: only its entry is worked out again.
/// let free = [4, 6];
/// kept.hear(1);
/// let look_at = |column: &mut Vec<i32>, slot: u32| {
///     column[slot as usize] = free[slot as usize];
///     true
/// };
/// assert_eq!(kept.current(0, 2, || unreachable!(), look_at), &[4, 6]);
/// ```
#[derive(Debug)]
pub struct Kept<A, C> {
    answers: BTreeMap<u32, Answer<A>>,
    changes: VecDeque<C>,
    /// Number of the first change in `changes`.
    first: u64,
    questions: u64,
}

#[derive(Debug)]
struct Answer<A> {
    /// Right as of this change.
    upto: u64,
    /// The number of the last question.
    asked: u64,
    answer: A,
}

impl<A, C> Default for Kept<A, C> {
    fn default() -> Self {
        Self {
            answers: BTreeMap::new(),
            changes: VecDeque::new(),
            first: 0,
            questions: 0,
        }
    }
}

impl<A, C: Copy> Kept<A, C> {
    pub fn hear(&mut self, change: C) {
        self.changes.push_back(change);
        if self.changes.len() > CHANGES {
            self.changes.pop_front();
            self.first += 1;
        }
    }

    /// Everything changed.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The class is gone. Its number may be given to another one.
    pub fn forget(&mut self, class: u32) {
        self.answers.remove(&class);
    }

    /// All that is kept, right or not yet.
    pub fn each(&mut self) -> impl Iterator<Item = &mut A> {
        self.answers.values_mut().map(|kept| &mut kept.answer)
    }

    /// The class's answer, right as of the last change. `mend` takes one change into it, or says `false`: then, and where there
    /// is none or more than `most` changes are missing from it, it is made `anew`.
    pub fn current(
        &mut self,
        class: u32,
        most: usize,
        anew: impl Fn() -> A,
        mut mend: impl FnMut(&mut A, C) -> bool,
    ) -> &A {
        let end = self.first + self.changes.len() as u64;
        self.questions += 1;
        if self.answers.len() >= CLASSES && !self.answers.contains_key(&class) {
            let oldest = self.answers.iter().map(|(&class, kept)| (kept.asked, class)).min();
            oldest.map(|(_, class)| self.answers.remove(&class));
        }
        let kept = self.answers.entry(class).or_insert_with(|| Answer {
            upto: end,
            asked: 0,
            answer: anew(),
        });
        let mended = kept.upto >= self.first && {
            let missing = self.changes.range((kept.upto - self.first) as usize..);
            missing.len() <= most && missing.copied().all(|change| mend(&mut kept.answer, change))
        };
        if !mended {
            kept.answer = anew();
        }
        (kept.upto, kept.asked) = (end, self.questions);
        &kept.answer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Sums of numbers heard so far, as a fold of all and as kept.
    #[test]
    fn mended_or_made_anew_it_is_the_same() {
        let mut kept: Kept<u64, u64> = Kept::default();
        let (mut sum, made) = (0, Cell::new(0));
        let mut random = 1u64;
        for _ in 0..5_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for n in 0..random >> 60 {
                kept.hear(n);
                sum += n;
            }
            // More classes than are kept, some asked about often and some almost never.
            let class = (random >> 40) as u32 % (1 << ((random >> 32) % 13));
            let anew = || {
                made.set(made.get() + 1);
                sum
            };
            let mend = |answer: &mut u64, change: u64| {
                *answer += change;
                change != 7
            };
            assert_eq!(*kept.current(class, 40, anew, mend), sum);
        }
        assert!(kept.answers.len() <= CLASSES && kept.changes.len() <= CHANGES);
        assert!((1..5_000).contains(&made.get()), "{} made anew", made.get());
    }
}
