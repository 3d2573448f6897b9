//! Slices as subsets: addresses that share their ports, those that are ready apart from those that are not.

use std::collections::BTreeMap;

use sdk::{Fields, Value, json};

/// Addresses that Endpoints hold; the rest is left out, as the object would grow too large to be sent around.
pub(crate) const MOST: usize = 1000;

#[derive(Fields)]
pub(crate) struct Slice {
    #[at(".addressType")]
    family: String,
    #[at(".ports")]
    ports: Value,
    #[at(".endpoints")]
    endpoints: Value,
}

/// Ready and not ready, by address.
type Addresses = (BTreeMap<String, Value>, BTreeMap<String, Value>);

/// `subsets`, in order of their ports, and whether some were left out: first those that are not ready.
pub(crate) fn of(slices: &[Slice], family: &str, publishes_not_ready: bool) -> (Value, bool) {
    let mut by_ports: BTreeMap<String, Addresses> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let (ready, not_ready) = by_ports.entry(slice.ports.to_string()).or_default();
        for endpoint in slice.endpoints.as_array().into_iter().flatten() {
            let is = |condition: &str| endpoint["conditions"][condition] == true;
            // Whoever publishes what is not ready wants those on their way out, too.
            if is("terminating") && !publishes_not_ready {
                continue;
            }
            let Some(ip) = endpoint["addresses"][0].as_str() else {
                continue;
            };
            let into = if is("ready") { &mut *ready } else { &mut *not_ready };
            into.insert(ip.to_owned(), address(ip, endpoint));
        }
    }
    let all: usize = by_ports
        .values()
        .map(|(ready, not_ready)| ready.len() + not_ready.len())
        .sum();
    let mut left = MOST;
    let ready = by_ports.values_mut().map(|(ready, _)| ready);
    ready.for_each(|addresses| cut(addresses, &mut left));
    let not_ready = by_ports.values_mut().map(|(_, not_ready)| not_ready);
    not_ready.for_each(|addresses| cut(addresses, &mut left));
    let subsets = by_ports
        .into_iter()
        .filter(|(_, (ready, not_ready))| !(ready.is_empty() && not_ready.is_empty()))
        .map(|(ports, addresses)| subset(&ports, addresses));
    (subsets.collect(), all > MOST)
}

fn cut(addresses: &mut BTreeMap<String, Value>, left: &mut usize) {
    while addresses.len() > *left {
        addresses.pop_last();
    }
    *left -= addresses.len();
}

fn address(ip: &str, endpoint: &Value) -> Value {
    let mut address = json!({"ip": ip});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !endpoint[field].is_null() {
            address[field] = endpoint[field].clone();
        }
    }
    address
}

fn subset(ports: &str, (ready, not_ready): Addresses) -> Value {
    let mut subset = json!({});
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        if !addresses.is_empty() {
            subset[field] = addresses.into_values().collect();
        }
    }
    let ports: Vec<Value> = serde_json::from_str(ports).unwrap_or_default();
    let ports = ports.into_iter().map(|mut port| {
        // A port without a name has none here; in a slice its name is empty.
        if let Some(fields) = port.as_object_mut() {
            fields.retain(|_, value| *value != "");
        }
        port
    });
    let ports: Vec<Value> = ports.collect();
    if !ports.is_empty() {
        subset["ports"] = ports.into();
    }
    subset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_not_ready_are_left_out_first() {
        let endpoint = |n: usize, ready: bool| json!({"addresses": [format!("10.0.{}.{}", n / 250, n % 250)], "conditions": {"ready": ready}});
        let slice = |from: usize, ready: bool| Slice {
            family: "IPv4".into(),
            ports: json!([{"port": 80}]),
            endpoints: (from..from + 600).map(|n| endpoint(n, ready)).collect(),
        };
        let (subsets, was_cut) = of(&[slice(0, false), slice(600, true)], "IPv4", false);
        let count = |field: &str| subsets[0][field].as_array().map_or(0, Vec::len);
        assert_eq!(
            (count("addresses"), count("notReadyAddresses"), was_cut),
            (600, 400, true)
        );
    }
}
