//! Keeps more in its memo than it may.

use sdk::controller::Unread;
use sdk::{Outcome, View};

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View) -> sdk::Result<Outcome> {
    Ok(Outcome {
        memo: vec![b'm'; 4097],
        ..Outcome::new()
    })
}
