//! Scheduling policies: the trait a policy implements, and the words it is asked in.

mod kept;
pub mod records;

pub use kept::Kept;

/// A set of node slots: bit `i % 64` of word `i / 64` is slot `i`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSet(pub Vec<u64>);

impl NodeSet {
    /// Empty, with room for slots below `slots`.
    pub fn with_room(slots: usize) -> Self {
        Self(vec![0; slots.div_ceil(64)])
    }

    pub fn contains(&self, slot: u32) -> bool {
        self.0
            .get(slot as usize / 64)
            .is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

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

    pub fn set(&mut self, slot: u32, there: bool) {
        if there { self.insert(slot) } else { self.remove(slot) }
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Slots in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(at, &word)| Bits {
            word,
            base: at as u32 * 64,
        })
    }

    /// What a column says of these slots, in slot order; nothing (`T::default()`) where it is shorter.
    ///
    /// A cluster's set is mostly whole words, and those are copied together.
    pub fn gather<T: Copy + Default>(&self, column: &[T]) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len());
        let mut at = 0;
        while at < self.0.len() {
            let whole = self.0[at..].iter().take_while(|&&word| word == u64::MAX).count();
            if let Some(neighbours) = column.get(at * 64..(at + whole) * 64) {
                values.extend_from_slice(neighbours);
                at += whole;
            }
            if let Some(&word) = self.0.get(at) {
                let bits = Bits {
                    word,
                    base: at as u32 * 64,
                };
                values.extend(bits.map(|slot| column.get(slot as usize).copied().unwrap_or_default()));
                at += 1;
            }
        }
        values
    }

    /// Keeps what is in both.
    pub fn intersect(&mut self, other: &NodeSet) {
        for (at, word) in self.0.iter_mut().enumerate() {
            *word &= other.0.get(at).copied().unwrap_or(0);
        }
    }
}

impl FromIterator<u32> for NodeSet {
    fn from_iter<I: IntoIterator<Item = u32>>(slots: I) -> Self {
        let mut set = NodeSet::default();
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

struct Bits {
    word: u64,
    base: u32,
}

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.base + bit)
    }
}

/// The config schema of a policy that is told nothing but its weight, which the host applies.
pub const WEIGHT_SCHEMA: &str =
    r#"{"type": "object", "properties": {"weight": {"type": "integer", "minimum": 0}}, "additionalProperties": false}"#;

/// A pod to be placed: what it wishes is its class, which the mirror was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod {
    pub id: u64,
    pub class: u32,
}

/// What a filter answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub passed: NodeSet,
    /// For each node that did not pass, in slot order, an index into `texts`. Only when asked to explain.
    pub reasons: Vec<u16>,
    pub texts: Vec<String>,
    /// Rejected nodes that would not pass with all their pods removed either. Only when asked to explain.
    pub unresolvable: NodeSet,
}

/// A change that has not happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Removed(u64),
    Added(Pod, u32),
}

/// A policy with its mirror. `sync` feeds the mirror; the questions read it. Points a policy has nothing to say at keep
/// their default and are not exported (`#[sdk::policy(filter, score)]` lists those that are).
pub trait Policy: Default {
    /// `config` is the Plugin's `spec.config` as JSON.
    ///
    /// # Errors
    /// A sentence for the Plugin's condition; the previous revision stays in service.
    fn configure(&mut self, config: &[u8]) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// # Errors
    /// When the bytes do not follow the layout; the host starts the mirror anew.
    fn sync(&mut self, deltas: &[u8]) -> Result<(), String>;

    /// # Errors
    /// A sentence; the pod is tried again later.
    fn filter(&mut self, pod: Pod, among: &NodeSet, explain: bool) -> Result<Verdict, String> {
        let _ = (pod, explain);
        Ok(Verdict {
            passed: among.clone(),
            ..Verdict::default()
        })
    }

    /// One score for each node of `feasible`, in slot order.
    ///
    /// # Errors
    /// A sentence; the pod is tried again later.
    fn score(&mut self, pod: Pod, feasible: &NodeSet) -> Result<Vec<i32>, String> {
        let _ = pod;
        Ok(vec![0; feasible.len()])
    }

    /// Where `pod` would pass if `changes` had happened.
    ///
    /// # Errors
    /// A sentence; the pod is tried again later.
    fn what_if(&mut self, changes: &[Change], pod: Pod, among: &NodeSet) -> Result<NodeSet, String> {
        let _ = changes;
        Ok(self.filter(pod, among, false)?.passed)
    }

    /// Where `pod` would pass if every pod of a priority below `below` were gone.
    ///
    /// # Errors
    /// A sentence; the pod is tried again later.
    fn without_lower(&mut self, pod: Pod, among: &NodeSet, below: i32) -> Result<NodeSet, String> {
        let _ = below;
        Ok(self.filter(pod, among, false)?.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_is_the_same_by_words_and_by_slots() {
        let column: Vec<i32> = (0..200).collect();
        let slots: NodeSet = (0..64).chain([65, 127]).chain(128..256).chain([300]).collect();
        for slots in [slots, NodeSet::default(), (0..192).collect(), (0..256).collect()] {
            let one_by_one: Vec<i32> = slots
                .iter()
                .map(|slot| column.get(slot as usize).copied().unwrap_or(0))
                .collect();
            assert_eq!(slots.gather(&column), one_by_one);
        }
    }
}
