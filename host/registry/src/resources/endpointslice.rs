//! EndpointSlice: up to a hundred or so addresses of a Service, with what is known of each.

use std::net::IpAddr;

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{NOT_IP, default, each_mut};
use crate::resources::endpoints::shorten;
use crate::resources::service::reachable;
use crate::table::{Column, list_at, plain};

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
        .prepare(prepare)
        .validate(validate)
}

/// More addresses of one endpoint, topology labels or hints than these help nobody.
const MOST_ADDRESSES: usize = 100;
const MOST_HINTS: usize = 8;

fn prepare(new: &mut Value, _old: Option<&Value>) {
    for port in each_mut(new, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut slice = At::new(new, "", wrong);
    let kind = slice.text("addressType");
    slice.one_of("addressType", &["FQDN", "IPv4", "IPv6"]);
    if let Some(old) = old {
        slice.immutable("addressType", old);
    }
    let (endpoints, ports) = (slice.list("endpoints").len(), slice.list("ports").len());
    if endpoints > MOST_ENDPOINTS {
        return slice.under("endpoints").too_many(endpoints, MOST_ENDPOINTS);
    }
    slice.each("endpoints", |endpoint| self::endpoint(endpoint, kind));
    if ports > MOST_PORTS {
        return slice.under("ports").too_many(ports, MOST_PORTS);
    }
    let mut names: Vec<&str> = Vec::new();
    slice.each("ports", |mut port| {
        let name = port.text("name");
        port.may_fit("name", text::dns1123_label);
        if names.contains(&name) {
            port.under("name").duplicate();
        }
        names.push(name);
        port.one_of("protocol", &["SCTP", "TCP", "UDP"]);
        port.may_fit("appProtocol", text::qualified_name);
    });
}

fn endpoint(mut endpoint: At<'_, '_>, kind: &str) {
    let addresses = endpoint.list("addresses").len();
    if addresses == 0 {
        endpoint.under("addresses").required("must contain at least 1 address");
    } else if addresses > MOST_ADDRESSES {
        endpoint.under("addresses").too_many(addresses, MOST_ADDRESSES);
    }
    endpoint.each("addresses", |mut address| {
        let text = address.value.as_str().unwrap_or_default();
        match (kind, text.parse::<IpAddr>()) {
            ("IPv4" | "IPv6", Err(_)) => address.invalid(NOT_IP),
            ("IPv4", Ok(IpAddr::V6(_))) => address.invalid("must be an IPv4 address"),
            ("IPv6", Ok(IpAddr::V4(_))) => address.invalid("must be an IPv6 address"),
            ("IPv4" | "IPv6", Ok(found)) => reachable(&mut address, found),
            ("FQDN", _) => {
                let name = text.trim_end_matches('.');
                address.fits(|_| text::dns1123_subdomain(name));
            }
            _ => {}
        }
    });
    if endpoint.has("nodeName") {
        endpoint.under("nodeName").fits(text::dns1123_subdomain);
    }
    endpoint.may_fit("hostname", text::dns1123_label);
    for hints in ["hints.forZones", "hints.forNodes"] {
        let count = endpoint.list(hints).len();
        if count > MOST_HINTS {
            endpoint.under(hints).too_many(count, MOST_HINTS);
        }
        let mut seen: Vec<&Value> = Vec::new();
        endpoint.each(hints, |mut hint| {
            let name = &hint.value["name"];
            if seen.contains(&name) {
                hint.under("name").duplicate();
            }
            seen.push(name);
        });
    }
}
