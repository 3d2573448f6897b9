//! Gives containers the defaults of their namespace's LimitRanges, and holds pods and claims to their bounds.

mod bounds;
mod defaults;

use sdk::admission::{Answer, Phase, Request};
use sdk::{Fields, Value, View, within};

#[derive(Fields, Clone, Debug)]
struct Object {
    #[at(".metadata.annotations")]
    annotations: Value,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".spec.containers")]
    containers: Value,
    #[at(".spec.initContainers")]
    init_containers: Value,
    #[at(".spec.overhead")]
    overhead: Value,
    /// Of a pod as a whole, or of a claim.
    #[at(".spec.resources")]
    resources: Value,
}

#[derive(Fields)]
struct LimitRange {
    #[at(".spec.limits")]
    limits: Value,
}

#[sdk::admission(
    on = ["create pods", "update pods/resize", "create update persistentvolumeclaims"],
    phases = ["mutating", "validating"],
    asks = ["get limitranges"],
    with_kinds = ["v1/LimitRange"],
)]
fn review(request: Request<Object>, view: &View) -> sdk::Result<Answer> {
    let mut answer = Answer::allow();
    let Some(object) = &request.object else {
        return Ok(answer);
    };
    // What is on its way out is not held up.
    if request.old.as_ref().is_some_and(|old| old.deleting) {
        return Ok(answer);
    }
    let ranges: Vec<LimitRange> = view.find("v1/LimitRange", &within(&request.namespace), "", 0)?;
    let of_pod = request.resource == "pods";
    if matches!(request.phase, Phase::Mutating) {
        if of_pod && request.subresource.is_empty() {
            answer.patch = defaults::patch(object, ranges.iter().map(|range| &range.limits));
        }
        return Ok(answer);
    }
    for range in &ranges {
        let wrong = if of_pod {
            bounds::of_pod(object, &range.limits)
        } else {
            bounds::of_claim(object, &range.limits)
        };
        match wrong.as_slice() {
            [] => {}
            [one] => return Ok(Answer::deny(one.clone())),
            all => return Ok(Answer::deny(format!("[{}]", all.join(", ")))),
        }
    }
    Ok(answer)
}
