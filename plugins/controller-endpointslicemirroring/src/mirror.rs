//! Subsets as slices: one for each address family and list of ports.

use std::collections::BTreeMap;

use sdk::{Value, json};

/// Addresses of one subset that are shown; a slice holds no more.
const MOST: usize = 1000;

/// By family and ports (as a slice writes them): the endpoints, in order of their addresses.
pub(crate) type Wanted = BTreeMap<(String, String), Value>;

pub(crate) fn of(subsets: &Value) -> Wanted {
    let mut by_address: BTreeMap<(String, String), BTreeMap<String, Value>> = BTreeMap::new();
    for subset in subsets.as_array().into_iter().flatten() {
        let ports = ports(&subset["ports"]).to_string();
        // An address that is in both lists is ready.
        for (field, ready) in [("notReadyAddresses", false), ("addresses", true)] {
            for address in subset[field].as_array().into_iter().flatten() {
                let Some(ip) = address["ip"].as_str() else { continue };
                let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
                let endpoints = by_address.entry((family.to_owned(), ports.clone())).or_default();
                if endpoints.len() < MOST || endpoints.contains_key(ip) {
                    endpoints.insert(ip.to_owned(), endpoint(ip, address, ready));
                }
            }
        }
    }
    let in_order = |endpoints: BTreeMap<String, Value>| endpoints.into_values().collect();
    by_address
        .into_iter()
        .map(|(key, endpoints)| (key, in_order(endpoints)))
        .collect()
}

fn endpoint(ip: &str, address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [ip], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    endpoint
}

fn ports(ports: &Value) -> Value {
    let ports = ports.as_array().into_iter().flatten().map(|port| {
        let mut written = json!({
            "name": port["name"].as_str().unwrap_or_default(),
            "port": port["port"],
            "protocol": port["protocol"].as_str().unwrap_or("TCP"),
        });
        if !port["appProtocol"].is_null() {
            written["appProtocol"] = port["appProtocol"].clone();
        }
        written
    });
    ports.collect()
}
