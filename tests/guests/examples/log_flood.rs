//! Says far too much, by the log and by standard output, and then answers as it should.

use sdk::controller::Unread;
use sdk::{Outcome, View};

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View) -> sdk::Result<Outcome> {
    for n in 0..2_000 {
        sdk::log::info(&format!("line {n}: {}", "x".repeat(1_000)));
    }
    for n in 0..100 {
        println!("printed {n}: {}\n\x1b[2Jand a forged line", "y".repeat(1_000));
    }
    Ok(Outcome {
        memo: b"still here".to_vec(),
        ..Outcome::new()
    })
}
