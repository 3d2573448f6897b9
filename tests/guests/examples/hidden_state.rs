//! Counts its calls in a static: an answer that depends on more than its arguments.

use std::sync::atomic::{AtomicU8, Ordering};

use sdk::controller::Unread;
use sdk::{Outcome, View};

static CALLS: AtomicU8 = AtomicU8::new(0);

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View) -> sdk::Result<Outcome> {
    Ok(Outcome {
        memo: vec![CALLS.fetch_add(1, Ordering::Relaxed)],
        ..Outcome::new()
    })
}
