//! The short way: some pods changed, the slices that hold them are written, nothing else is looked at.

use std::collections::BTreeMap;

use sdk::{Outcome, View};

use crate::fill::{self, Slice};
use crate::{Memo, Service, endpoint, slices};

/// With more pods than this the long way is not longer.
const FEW: usize = 16;

/// `None`: this takes the long way. So it is when the slices are not as the last run left them, when a pod needs a place or
/// changes its ports, and when a slice would be empty.
pub(crate) fn step(service: &Service, memo: &Memo, view: &View) -> sdk::Result<Option<Outcome>> {
    // Read in every run, so that whoever else writes a slice makes this one run again.
    let mut stands = slices::stands(service, view)?;
    if slices::fingerprint_of(&stands) != memo.slices {
        return Ok(None);
    }
    let changes = endpoint::pods(service, memo.cursor, view)?;
    if changes.complete || changes.rows.len() + changes.gone.len() > FEW {
        return Ok(None);
    }
    let mut makes = endpoint::Maker::new(service, view)?;
    // Slices as this run leaves them: two pods may be in one.
    let mut touched: BTreeMap<String, (Slice, Vec<sdk::Value>)> = BTreeMap::new();
    for identity in &changes.gone {
        for slice in slices::holding(service, &identity.uid, view)? {
            let (_, endpoints) = open(&mut touched, slice);
            endpoints.retain(|one| fill::pod(one) != identity.uid);
        }
    }
    for (identity, pod) in &changes.rows {
        let made = makes.endpoints(identity, pod)?;
        let mut holding = slices::holding(service, &identity.uid, view)?;
        for (family, ports, endpoint) in made {
            let is = |slice: &Slice| slice.family == family && fill::normal(&slice.ports) == ports;
            let Some(at) = holding.iter().position(is) else {
                return Ok(None);
            };
            let (_, endpoints) = open(&mut touched, holding.remove(at));
            let Some(place) = endpoints.iter_mut().find(|one| fill::pod(one) == identity.uid) else {
                return Ok(None);
            };
            *place = endpoint;
        }
        // It has no address any more, or is finished; or it is where it should not be.
        for slice in holding {
            let (_, endpoints) = open(&mut touched, slice);
            endpoints.retain(|one| fill::pod(one) != identity.uid);
        }
    }
    let mut outcome = Outcome::new();
    for (slice, endpoints) in touched.values() {
        if endpoints.is_empty() || !slice.stale_labels.is_null() {
            return Ok(None);
        }
        if *endpoints != slice.endpoints {
            slices::update(service, slice, endpoints, &mut outcome);
            *stands.entry(slice.name.clone()).or_default() += i64::from(slice.generation > 0);
        }
    }
    let memo = Memo {
        cursor: changes.cursor,
        service: memo.service,
        slices: slices::fingerprint_of(&stands),
    };
    outcome.memo = serde_json::to_vec(&memo)?;
    Ok(Some(outcome))
}

fn open(touched: &mut BTreeMap<String, (Slice, Vec<sdk::Value>)>, slice: Slice) -> &mut (Slice, Vec<sdk::Value>) {
    touched.entry(slice.name.clone()).or_insert_with(|| {
        let endpoints = slice.endpoints.clone();
        (slice, endpoints)
    })
}
