//! Sets of node slots, as they cross to policies.

/// Bit `i % 64` of word `i / 64` is slot `i`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSet(pub Vec<u64>);

impl NodeSet {
    pub fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    pub fn remove(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    pub fn contains(&self, slot: u32) -> bool {
        self.0
            .get(slot as usize / 64)
            .is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Whether everything in `self` is in `other`: an answer that is not within its question is a fault of the policy.
    pub fn within(&self, other: &NodeSet) -> bool {
        self.0
            .iter()
            .enumerate()
            .all(|(at, word)| word & !other.0.get(at).copied().unwrap_or(0) == 0)
    }

    /// The slot with `nth` others below it.
    pub fn nth(&self, mut nth: usize) -> Option<u32> {
        for (at, &word) in self.0.iter().enumerate() {
            let here = word.count_ones() as usize;
            if nth < here {
                let left = (0..nth).fold(word, |left, _| left & (left - 1));
                return Some(at as u32 * 64 + left.trailing_zeros());
            }
            nth -= here;
        }
        None
    }

    /// Slots in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_is_where_iterating_comes_to() {
        let mut set = NodeSet::default();
        [0, 3, 63, 64, 130, 200].into_iter().for_each(|slot| set.insert(slot));
        assert!((0..6).all(|n| set.nth(n) == set.iter().nth(n)));
        assert_eq!((set.nth(6), NodeSet::default().nth(0)), (None, None));
    }
}
