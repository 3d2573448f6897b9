//! Counts and sums by field values, kept as objects change; for a `distinct`, which values there are.

use bytes::Bytes;
use model::{FieldPath, FieldValue, Object, Quantity};
use smallvec::SmallVec;

use crate::columns::{Packer, pack};
use crate::fields::{Row, Wanted};

/// Group values → how many and how much. Groups without objects are not there.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    groups: imbl::OrdMap<Row, Amounts>,
}

#[derive(Clone, Default)]
struct Amounts {
    count: i64,
    sums: SmallVec<[i128; 2]>,
}

/// What one object adds.
#[derive(PartialEq, Eq)]
pub(crate) struct Share {
    group: Row,
    sums: SmallVec<[i128; 2]>,
}

impl Tally {
    pub(crate) fn share(by: &Wanted, sums: Option<&Wanted>, object: &Object) -> Share {
        let amounts = |sums: &Wanted| {
            let row = sums.row(object);
            let amounts = sums.paths().iter().zip(&row).map(|(path, value)| amount(path, value));
            amounts.collect()
        };
        Share {
            group: by.owned(object),
            sums: sums.map(amounts).unwrap_or_default(),
        }
    }

    /// Whether the group came or went with it.
    pub(crate) fn add(&mut self, share: Share, times: i64) -> bool {
        let amounts = self.groups.entry(share.group.clone()).or_default();
        amounts.count += times;
        amounts.sums.resize(share.sums.len(), 0);
        for (sum, one) in amounts.sums.iter_mut().zip(&share.sums) {
            *sum += one * i128::from(times);
        }
        let (count, came) = (amounts.count, amounts.count == times);
        if count == 0 {
            self.groups.remove(&share.group);
        }
        came || count == 0
    }

    /// Rows in the order of their values: those, the count, the sums. Without `sums` the values alone.
    pub(crate) fn pack(&self, by: &Wanted, sums: Option<&Wanted>) -> Bytes {
        let Some(sums) = sums else {
            return pack(by.columns(), self.groups.keys().map(|group| &**group));
        };
        let mut packer = Packer::new(by.columns() + 1 + sums.columns());
        for (group, amounts) in &self.groups {
            let bounded = |sum: &i128| i64::try_from(*sum).unwrap_or(if *sum < 0 { i64::MIN } else { i64::MAX });
            let counted = std::iter::once(amounts.count).chain(amounts.sums.iter().map(bounded));
            let counted: SmallVec<[FieldValue<'_>; 3]> = counted.map(FieldValue::I64).collect();
            packer.row(group.iter().chain(&counted));
        }
        packer.finish()
    }
}

/// Numbers as they are, quantities in milli-units, lists as the sum of their elements, anything else as nothing.
fn amount(path: &FieldPath, value: &FieldValue<'_>) -> i128 {
    match value {
        FieldValue::I64(number) => i128::from(*number),
        FieldValue::F64(number) => *number as i128,
        FieldValue::Str(text) => Quantity::parse(text).map_or(0, |quantity| i128::from(quantity.milli())),
        FieldValue::Json(json) if path.is_many() => {
            let list: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap_or_default();
            // The elements are no lists of wanted values themselves: nested `[*]` are flattened.
            let scalar = |v: &serde_json::Value| !(v.is_array() || v.is_object());
            list.iter()
                .filter(|v| scalar(v))
                .map(|v| amount(path, &FieldValue::of(v)))
                .sum()
        }
        FieldValue::Absent | FieldValue::Null | FieldValue::Bool(_) | FieldValue::Json(_) => 0,
    }
}
