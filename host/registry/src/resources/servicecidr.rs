//! ServiceCIDR: a range that Services draw their addresses from. The cluster's own, `kubernetes`, is made at the start.

use model::Cause;
use serde_json::Value;

use crate::allocate::Cidr;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::born_with_status;
use crate::resources::networkpolicy::NOT_CIDR;
use crate::table::{Column, list_at, plain};

pub(crate) fn resource() -> Resource {
    Resource::cluster("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs")
        .no_generation()
        .columns(vec![
            Column::computed("CIDRs", |o, _| {
                let all = list_at(o, "spec.cidrs").iter().map(plain);
                all.collect::<Vec<_>>().join(",").into()
            })
            .about("The ranges, one a family."),
            Column::age(),
        ])
        .prepare(born_with_status)
        .validate(validate)
        .status_checked(|_, _, _| {})
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    let now = spec.list("cidrs");
    if let Some(old) = old {
        let before = list_at(old, "spec.cidrs");
        let grown = before.len() == 1 && now.len() == 2;
        if now.len() != before.len() && !grown {
            return spec.under("cidrs").invalid("field is immutable");
        }
        let mut at = before.iter();
        spec.each("cidrs", |mut cidr| {
            if at.next().is_some_and(|before| before != cidr.value) {
                cidr.invalid("field is immutable");
            }
        });
        if !grown {
            return;
        }
    }
    match now.len() {
        0 => return spec.under("cidrs").required("at least one CIDR required"),
        1 | 2 => {}
        _ => return spec.under("cidrs").invalid("may only hold up to 2 values"),
    }
    let mut families = Vec::new();
    spec.each("cidrs", |mut cidr| {
        match Cidr::parse(cidr.value.as_str().unwrap_or_default()) {
            Ok(range) if range.to_string() != plain(cidr.value) => {
                families.push(range.is_v6());
                cidr.invalid("must not have bits set beyond the prefix length");
            }
            Ok(range) => families.push(range.is_v6()),
            Err(_) => cidr.invalid(NOT_CIDR),
        }
    });
    if let [first, second] = families.as_slice()
        && first == second
    {
        let says = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        spec.under("cidrs").invalid(says);
    }
}
