//! Recurses without end.

use sdk::controller::Unread;
use sdk::{Outcome, View};

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View) -> sdk::Result<Outcome> {
    Ok(Outcome {
        memo: vec![deeper(1) as u8],
        ..Outcome::new()
    })
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn deeper(n: u64) -> u64 {
    let room = std::hint::black_box([n; 16]);
    deeper(n + 1) + room[3]
}
