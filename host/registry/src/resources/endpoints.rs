//! Endpoints: a Service's addresses in the old form, still read by older programs.

use std::net::IpAddr;

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{NOT_IP, default, each_mut};
use crate::resources::service::reachable;
use crate::table::{Column, list_at, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "Endpoints", "endpoints")
        .short(&["ep"])
        .stored_under("/registry/services/endpoints/")
        .no_generation()
        .create_on_update()
        .columns(vec![
            Column::computed("Endpoints", |o, _| addresses(o).into()).about("Addresses that are ready."),
            Column::age(),
        ])
        .prepare(|new, _| {
            for subset in each_mut(new, "subsets") {
                for port in each_mut(subset, "ports") {
                    default(port, "protocol", "TCP");
                }
            }
        })
        .validate(validate)
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    At::new(new, "", wrong).each("subsets", |mut subset| {
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            subset.required("must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            subset.each(list, |mut address| {
                let mut ip = address.under("ip");
                match ip.value.as_str().unwrap_or_default().parse::<IpAddr>() {
                    Ok(found) => reachable(&mut ip, found),
                    Err(_) => ip.invalid(NOT_IP),
                }
                address.may_fit("hostname", text::dns1123_label);
                address.may_fit("nodeName", text::dns1123_subdomain);
            });
        }
        let several = subset.list("ports").len() > 1;
        subset.each("ports", |mut port| {
            match port.text("name") {
                "" if several => port.under("name").required(""),
                "" => {}
                _ => port.under("name").fits(text::dns1123_label),
            }
            port.port("port");
            port.one_of("protocol", &["SCTP", "TCP", "UDP"]);
            port.may_fit("appProtocol", text::qualified_name);
        });
    });
}

/// The first three, and how many more there are.
pub(crate) fn shorten(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".into(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in list_at(endpoints, "subsets") {
        for address in list_at(subset, "addresses") {
            let ip = text_at(address, "ip");
            let host = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            };
            match list_at(subset, "ports") {
                [] => all.push(host),
                ports => all.extend(ports.iter().map(|p| format!("{host}:{}", p["port"]))),
            }
        }
    }
    shorten(&all)
}
