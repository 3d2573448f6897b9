//! What is counted, and what is charged beyond it.
//!
//! A request is charged before its object is stored, so there may be more charged than there is to count: that is no
//! mistake to be put right, or the next request would find room that is taken. What went is given back at once; what
//! stays charged and never comes (its write failed, and so did giving it back) is given back after a while.

use std::collections::BTreeMap;

use sdk::pods::Amounts;
use sdk::{Instant, Quantity};
use serde::{Deserialize, Serialize};

/// Longer than a write may take.
const PATIENCE: i64 = 10;

/// What the last run left. A lost one costs that wait.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memo {
    counted: BTreeMap<String, String>,
    used: BTreeMap<String, String>,
    /// Since when it has been so, in milliseconds.
    since: i64,
}

pub(crate) fn settle(
    charged: &Amounts,
    counted: &Amounts,
    last: &Memo,
    now: Instant,
    reached: &dyn Fn(Instant) -> bool,
) -> (Amounts, Memo) {
    let amount = |amounts: &Amounts, name: &String| amounts.get(name).copied().unwrap_or_default();
    let still = last.counted == texts(counted) && last.used == texts(charged);
    let since = if still { Instant(last.since) } else { now };
    let mut used = counted.clone();
    for (name, charged) in charged {
        let counted = amount(counted, name);
        let before = last.counted.get(name).and_then(|text| Quantity::parse(text).ok());
        let gone = before.map_or(Quantity::ZERO, |before| (before - counted).max(Quantity::ZERO));
        let left = *charged - gone;
        if left > counted && !(still && reached(since.plus_seconds(PATIENCE))) {
            used.insert(name.clone(), left);
        }
    }
    if used != *counted {
        // Asked for its own sake: this runs again then.
        reached(since.plus_seconds(PATIENCE));
    }
    let memo = Memo {
        counted: texts(counted),
        used: texts(&used),
        since: since.0,
    };
    (used, memo)
}

fn texts(amounts: &Amounts) -> BTreeMap<String, String> {
    let texts = amounts.iter().filter(|(_, amount)| !amount.is_zero());
    texts.map(|(name, amount)| (name.clone(), amount.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(number: i64) -> Amounts {
        [("pods".to_owned(), Quantity::from_milli(number * 1000))].into()
    }

    fn run(charged: i64, counted: i64, last: &Memo, now: i64) -> (i64, Memo) {
        let reached = |due: Instant| due.0 <= now;
        let (used, memo) = settle(&pods(charged), &pods(counted), last, Instant(now), &reached);
        (used["pods"].value(), memo)
    }

    #[test]
    fn a_charge_waits_for_its_object_and_what_went_is_given_back() {
        let (used, memo) = run(0, 1, &Memo::default(), 0);
        assert_eq!(used, 1, "what is there is counted");
        let (used, memo) = run(2, 1, &memo, 1000);
        assert_eq!(used, 2, "a second one is under way");
        let (used, memo) = run(2, 2, &memo, 2000);
        assert_eq!(used, 2, "it came");
        let (used, memo) = run(3, 1, &memo, 3000);
        assert_eq!(used, 2, "one went while another is under way");
        let (used, memo) = run(2, 1, &memo, 12_000);
        assert_eq!(used, 2, "not yet for long enough");
        let (used, _) = run(2, 1, &memo, 13_000);
        assert_eq!(used, 1, "it never came");
    }
}
