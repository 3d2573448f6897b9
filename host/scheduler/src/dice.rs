//! Chance that can be replayed: a small generator with a printed seed.

/// SplitMix64. Ties between equally good nodes need no better.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// The position of one of the highest values, each equally likely. `values` is not empty.
    pub fn among_best(&mut self, values: &[i64]) -> usize {
        let (mut best, mut ties) = (i64::MIN, 0);
        for &value in values {
            if value > best {
                (best, ties) = (value, 1);
            } else {
                ties += u64::from(value == best);
            }
        }
        let chosen = if ties > 1 { self.roll() % ties } else { 0 };
        values
            .iter()
            .enumerate()
            .filter(|&(_, &v)| v == best)
            .nth(chosen as usize)
            .map_or(0, |(at, _)| at)
    }
}
