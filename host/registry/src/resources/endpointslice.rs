//! EndpointSlice: up to a hundred or so addresses of a Service, with what is known of each.

use model::Cause;
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::common::immutable;
use crate::resources::endpoints::shorten;
use crate::table::{Column, list_at, plain, text_at};

/// The most endpoints in one slice, and the most ports.
const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 20_000;

pub(crate) fn resource() -> Resource {
    let ports = |o: &Value, _| {
        let all: Vec<String> = list_at(o, "ports")
            .iter()
            .map(|p| p.get("port").map_or("*".into(), plain))
            .collect();
        if all.is_empty() {
            "<unset>".into()
        } else {
            shorten(&all).into()
        }
    };
    let addresses = |o: &Value, _| {
        let all = list_at(o, "endpoints")
            .iter()
            .flat_map(|e| list_at(e, "addresses"))
            .map(plain);
        match all.collect::<Vec<_>>() {
            all if all.is_empty() => "<unset>".into(),
            all => shorten(&all).into(),
        }
    };
    Resource::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .columns(vec![
            Column::text_or("AddressType", "addressType", "").about("The type of address carried by this slice."),
            Column::computed("Ports", ports).about("The ports of every endpoint of this slice."),
            Column::computed("Endpoints", addresses).about("The addresses."),
            Column::age(),
        ])
        .validate(validate)
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let kind = text_at(new, "addressType");
    match kind {
        "IPv4" | "IPv6" | "FQDN" => {}
        "" => wrong.push(Cause::required("addressType", "")),
        _ => wrong.push(Cause::not_supported(
            "addressType",
            format!("{kind:?}"),
            &["FQDN", "IPv4", "IPv6"],
        )),
    }
    immutable(new, old, "addressType", wrong);
    let endpoints = list_at(new, "endpoints");
    if endpoints.len() > MOST_ENDPOINTS {
        wrong.push(too_many("endpoints", endpoints.len(), MOST_ENDPOINTS));
    }
    if list_at(new, "ports").len() > MOST_PORTS {
        wrong.push(too_many("ports", list_at(new, "ports").len(), MOST_PORTS));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let addresses = list_at(endpoint, "addresses");
        let field = format!("endpoints[{i}].addresses");
        if addresses.is_empty() {
            wrong.push(Cause::required(field, "must contain at least 1 address"));
            continue;
        }
        for (j, address) in addresses.iter().enumerate() {
            let parsed = plain(address).parse::<std::net::IpAddr>();
            let fits = match kind {
                "IPv4" => parsed.is_ok_and(|a| a.is_ipv4()),
                "IPv6" => parsed.is_ok_and(|a| a.is_ipv6()),
                _ => true,
            };
            if !fits {
                wrong.push(Cause::invalid(
                    format!("{field}[{j}]"),
                    address,
                    &format!("must be a valid {kind} address"),
                ));
            }
        }
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in list_at(new, "ports").iter().enumerate() {
        let name = text_at(port, "name");
        if names.contains(&name) {
            wrong.push(Cause::duplicate("ports", format!("{name:?}")));
        }
        names.push(name);
        if port["port"].as_i64().is_some_and(|n| !(1..=65535).contains(&n)) {
            wrong.push(Cause::invalid(
                format!("ports[{i}].port"),
                &port["port"],
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
}

fn too_many(field: &str, have: usize, most: usize) -> Cause {
    Cause {
        reason: model::CauseReason::TooMany,
        field: field.into(),
        message: format!("Too many: {have}: must have at most {most} items"),
    }
}
