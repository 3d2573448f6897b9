//! PriorityLevelConfiguration: how many requests of a level run at once, and what becomes of the others.

use model::Cause;
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{born_with_status, child, default, unique_conditions};
use crate::table::{Column, int_at, text_at};

/// More queues than this cost more than they help.
const MOST_QUEUES: i64 = 10_000_000;

/// Bits of a hash that shuffle sharding may use.
const HASH_BITS: u32 = 60;

pub(crate) fn resource() -> Resource {
    Resource::cluster(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
    )
    .columns(vec![
        Column::text_or("Type", "spec.type", "").about("Whether the level is limited."),
        Column::text("NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares")
            .about("Its share of the server."),
        Column::text("Queues", "spec.limited.limitResponse.queuing.queues").about("How many queues it has."),
        Column::text("HandSize", "spec.limited.limitResponse.queuing.handSize").about("Queues that one flow may use."),
        Column::text(
            "QueueLengthLimit",
            "spec.limited.limitResponse.queuing.queueLengthLimit",
        )
        .about("How long a queue may be."),
        Column::age(),
    ])
    .prepare(prepare)
    .validate(validate)
    .status_checked(|new, _, wrong| unique_conditions(new, wrong))
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    born_with_status(new, old);
    let spec = child(new, "spec");
    for (part, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(part) = spec.get_mut(part).filter(|p| p.is_object()) {
            default(part, "nominalConcurrencyShares", shares);
            default(part, "lendablePercent", 0);
        }
    }
    if text_at(spec, "type") == "Exempt" && spec["exempt"].is_null() {
        spec["exempt"] = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    }
    if let Some(queuing) = spec
        .pointer_mut("/limited/limitResponse/queuing")
        .filter(|q| q.is_object())
    {
        for (key, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            if int_at(queuing, key) == 0 {
                queuing[key] = value.into();
            }
        }
    }
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let mut spec = At::new(&new["spec"], "spec", wrong);
    let kind = spec.text("type");
    if name == "exempt" && kind != "Exempt" {
        spec.under("type")
            .invalid("must be 'Exempt' for the priority level named 'exempt'");
    }
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                spec.under("limited")
                    .forbidden("must be nil if the type is not Limited");
            }
            if name != "exempt" {
                spec.under("type")
                    .invalid("must be 'Exempt' if and only if `name` is 'exempt'");
            }
            shares(spec.under("exempt"));
        }
        "Limited" => {
            if spec.has("exempt") {
                spec.under("exempt").forbidden("must be nil if the type is Limited");
            }
            if !spec.has("limited") {
                return spec.under("limited").required("must not be empty when type is Limited");
            }
            let mut limited = spec.under("limited");
            if limited.int("nominalConcurrencyShares").is_some_and(|n| n < 0) {
                limited
                    .under("nominalConcurrencyShares")
                    .invalid("must be a non-negative integer");
            }
            if limited.int("lendablePercent").is_some_and(|n| !(0..=100).contains(&n)) {
                limited
                    .under("lendablePercent")
                    .invalid("must be between 0 and 100, inclusive");
            }
            if limited.int("borrowingLimitPercent").is_some_and(|n| n < 0) {
                limited
                    .under("borrowingLimitPercent")
                    .invalid("if specified, must be a non-negative integer");
            }
            response(limited.under("limitResponse"));
        }
        _ => spec.under("type").not_supported(&["Exempt", "Limited"]),
    }
}

fn shares(mut exempt: At<'_, '_>) {
    if exempt.int("nominalConcurrencyShares").is_some_and(|n| n < 0) {
        exempt
            .under("nominalConcurrencyShares")
            .invalid("must be a non-negative integer");
    }
    if exempt.int("lendablePercent").is_some_and(|n| !(0..=100).contains(&n)) {
        exempt
            .under("lendablePercent")
            .invalid("must be between 0 and 100, inclusive");
    }
}

fn response(mut response: At<'_, '_>) {
    match (response.text("type"), response.has("queuing")) {
        ("Reject", true) => response
            .under("queuing")
            .forbidden("must be nil if limited.limitResponse.type is not Limited"),
        ("Reject", false) => {}
        ("Queue", false) => response
            .under("queuing")
            .required("must not be empty if limited.limitResponse.type is Limited"),
        ("Queue", true) => queuing(response.under("queuing")),
        _ => response.under("type").not_supported(&["Queue", "Reject"]),
    }
}

fn queuing(mut queuing: At<'_, '_>) {
    let at = |key: &str| int_at(queuing.value, key);
    let (length, queues, hand) = (at("queueLengthLimit"), at("queues"), at("handSize"));
    if length <= 0 {
        queuing.under("queueLengthLimit").invalid("must be positive");
    }
    if queues <= 0 {
        queuing.under("queues").invalid("must be positive");
    } else if queues > MOST_QUEUES {
        let says = format!("must not be greater than {MOST_QUEUES}");
        queuing.under("queues").invalid(&says);
    }
    if hand <= 0 {
        queuing.under("handSize").invalid("must be positive");
    } else if hand > queues {
        let says = format!("should not be greater than queues ({queues})");
        queuing.under("handSize").invalid(&says);
    } else {
        // Bits to tell all ordered hands of that size apart.
        let bits = (0..hand).map(|i| ((queues - i) as f64).log2()).sum::<f64>().ceil() as u32;
        if bits > HASH_BITS {
            let says = format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
            );
            queuing.under("handSize").invalid(&says);
        }
    }
}
