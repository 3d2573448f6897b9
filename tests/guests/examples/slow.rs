//! Waits for an hour, without using the processor.

use std::time::Duration;

use sdk::controller::Unread;
use sdk::{Outcome, View};

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View) -> sdk::Result<Outcome> {
    std::thread::sleep(Duration::from_secs(3600));
    Ok(Outcome::new())
}
