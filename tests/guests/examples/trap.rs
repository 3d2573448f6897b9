//! Panics, some functions deep.

use sdk::controller::Unread;
use sdk::{Outcome, Request, View};

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View, request: &Request) -> sdk::Result<Outcome> {
    Ok(an_honest_mistake(request))
}

#[inline(never)]
fn an_honest_mistake(request: &Request) -> Outcome {
    panic!("no idea what to do about {}", request.key.name);
}
