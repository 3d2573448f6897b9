//! NetworkPolicy: which traffic pods take and send.

use model::Cause;
use serde_json::{Value, json};

use crate::allocate::Cidr;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default, each_mut};
use crate::resources::pod_check::port_name;
use crate::table::{Column, list_at, selector};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .columns(vec![
            Column::computed("Pod-Selector", |o, _| selector(o["spec"].get("podSelector")).into())
                .about("The pods it applies to."),
            Column::age(),
        ])
        .prepare(prepare)
        .validate(validate)
}

fn prepare(new: &mut Value, _old: Option<&Value>) {
    let spec = child(new, "spec");
    if list_at(spec, "policyTypes").is_empty() {
        spec["policyTypes"] = if list_at(spec, "egress").is_empty() {
            json!(["Ingress"])
        } else {
            json!(["Ingress", "Egress"])
        };
    }
    for way in ["ingress", "egress"] {
        for rule in each_mut(spec, way) {
            for port in each_mut(rule, "ports") {
                default(port, "protocol", "TCP");
            }
        }
    }
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.selector("podSelector");
    for (way, peers) in [("ingress", "from"), ("egress", "to")] {
        spec.each(way, |mut rule| {
            rule.each("ports", port);
            rule.each(peers, peer);
        });
    }
    if spec.list("policyTypes").len() > 2 {
        spec.under("policyTypes")
            .invalid("may not specify more than two policyTypes");
        return;
    }
    spec.each("policyTypes", |mut kind| {
        if kind.value != "Ingress" && kind.value != "Egress" {
            kind.not_supported(&["Ingress", "Egress"]);
        }
    });
}

fn port(mut port: At<'_, '_>) {
    port.may_be_one_of("protocol", &["TCP", "UDP", "SCTP"]);
    let end = port.int("endPort");
    match (&port.value["port"], end) {
        (Value::Null, Some(_)) => port
            .under("endPort")
            .invalid("may not be specified when `port` is not specified"),
        (Value::String(name), end) => {
            if end.is_some() {
                port.under("endPort")
                    .invalid("may not be specified when `port` is non-numeric");
            }
            let complaints = port_name(name);
            port.under("port").fits(|_| complaints);
        }
        (Value::Number(first), end) => {
            port.port("port");
            if end.zip(first.as_i64()).is_some_and(|(end, first)| end < first) {
                let says = "must be greater than or equal to `port`";
                let cause = Cause::invalid(port.path_of("endPort"), first, says);
                port.push(cause);
            }
            if end.is_some() {
                port.port("endPort");
            }
        }
        _ => {}
    }
}

fn peer(mut peer: At<'_, '_>) {
    let block = peer.has("ipBlock");
    let mut others = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if peer.has(key) {
            others += 1;
            peer.selector(key);
        }
    }
    if block {
        ip_block(peer.under("ipBlock"));
    }
    match (block, others) {
        (false, 0) => peer.required("must specify a peer"),
        (true, 1..) => peer.forbidden("may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(mut block: At<'_, '_>) {
    if !block.need("cidr", "") {
        return;
    }
    let mut cidr = block.under("cidr");
    let Ok(range) = Cidr::parse(cidr.value.as_str().unwrap_or_default()) else {
        return cidr.invalid(NOT_CIDR);
    };
    block.each("except", |mut except| {
        match Cidr::parse(except.value.as_str().unwrap_or_default()) {
            Ok(part) if part.is_within(&range) && part != range => {}
            Ok(_) => except.invalid("must be a strict subset of `cidr`"),
            Err(_) => except.invalid(NOT_CIDR),
        }
    });
}

/// What upstream says of a range that cannot be read.
pub(crate) const NOT_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
