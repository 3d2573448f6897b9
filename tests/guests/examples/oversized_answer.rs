//! Answers with more than an answer may have.

use sdk::controller::Unread;
use sdk::{Outcome, View, json};

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    outcome.create(&json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "x".repeat(12 << 20)}}));
    Ok(outcome)
}
