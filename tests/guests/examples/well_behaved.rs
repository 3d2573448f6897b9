//! Does nothing wrong: answers what it was given, and reads as often as its memo says. For figures, and as the neighbour
//! of those that misbehave.

use sdk::controller::Unread;
use sdk::{ObjectKey, Outcome, Request, View};

#[sdk::controller(
    of = "v1/ConfigMap",
    asks = ["get configmaps", "delete configmaps"],
    config = r#"{"type":"object","properties":{"greeting":{"type":"string"}}}"#
)]
fn reconcile(_: Unread, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let reads: u32 = std::str::from_utf8(&request.memo)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    for n in 0..reads {
        let key = ObjectKey::new("v1/ConfigMap", "default", &format!("c{n}"));
        view.get_packed(&key, ".metadata.uid .data")?;
    }
    Ok(Outcome {
        memo: request.memo.clone(),
        ..Outcome::new()
    })
}
