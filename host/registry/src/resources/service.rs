//! Service: a name and an address for a set of pods.
//!
//! ClusterIP and node ports are taken from the cluster's ranges at the write (`allocate.rs`); the proxy and DNS do the
//! rest. `None` as address makes it headless; `ExternalName` has neither address nor pods.

use std::net::IpAddr;

use model::{Cause, Failure, Verb};
use serde_json::{Value, json};

use crate::allocate::{Claims, Good, Protocol, goods};
use crate::meta;
use crate::names::NameRule;
use crate::names::validate_labels;
use crate::resource::Resource;
use crate::resources::common::default;
use crate::resources::pod_check::port_name;
use crate::table::{Column, list_at, pairs, plain, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "Service", "services")
        .short(&["svc"])
        .categories(&["all"])
        .stored_under("/registry/services/specs/")
        .names(NameRule::Label1035)
        .no_generation()
        .columns(vec![
            Column::text_or("Type", "spec.type", "").about("How the service is exposed."),
            Column::text("Cluster-IP", "spec.clusterIP").about("The address of the service inside the cluster."),
            Column::computed("External-IP", |service, _| external(service).into())
                .about("Addresses that lead here from outside."),
            Column::computed("Port(s)", |service, _| ports(service).into())
                .about("The ports that are exposed by this service."),
            Column::age(),
            Column::computed("Selector", |service, _| pairs(service["spec"].get("selector")).into())
                .wide()
                .about("Route service traffic to pods with label keys and values matching this selector."),
        ])
        .selectable(&["spec.clusterIP", "spec.type"])
        .prepare(prepare)
        .claim(claim)
        .validate(validate)
        .status()
        .stream(
            "proxy",
            Some(model::Gvk::new("", "v1", "ServiceProxyOptions")),
            &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        )
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        new["status"] = json!({"loadBalancer": {}});
    }
    let Some(spec) = new.get_mut("spec").filter(|s| s.is_object()) else {
        return;
    };
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        default(
            spec,
            "sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10800}}),
        );
    }
    let kind = text_at(spec, "type").to_owned();
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        let target = port.get("targetPort").cloned().unwrap_or_default();
        if target.is_null() || target == 0 || target == "" {
            port["targetPort"] = number;
        }
    }
    // What the system gave stays, unless the caller names something else or the type no longer has it.
    let Some(old) = old.and_then(|o| o.get("spec")) else {
        return;
    };
    let had = text_at(old, "type");
    let with_address = |kind: &str| kind != "ExternalName";
    if with_address(&kind) && with_address(had) {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec
                .get(key)
                .is_none_or(|v| v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty))
            {
                meta::put(spec, key, old.get(key).cloned());
            }
        }
    }
    let node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if node_ports(&kind) && node_ports(had) {
        let before = list_at(old, "ports");
        let named: Vec<Value> = list_at(spec, "ports").iter().map(|p| p["nodePort"].clone()).collect();
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if port["nodePort"].as_i64().unwrap_or(0) != 0 {
                continue;
            }
            let same = |b: &&Value| b["port"] == port["port"] && b["protocol"] == port["protocol"];
            let kept = before
                .iter()
                .find(same)
                .map(|b| b["nodePort"].clone())
                .filter(|n| !n.is_null() && !named.contains(n));
            meta::put(port, "nodePort", kept);
        }
    }
    if !node_ports(&kind) && node_ports(had) {
        // Ports left over from the old type go, as long as the caller has not chosen others.
        let before: Vec<&Value> = list_at(old, "ports").iter().map(|p| &p["nodePort"]).collect();
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if before.contains(&&port["nodePort"]) {
                meta::put(port, "nodePort", None);
            }
        }
        for key in [
            "externalTrafficPolicy",
            "allocateLoadBalancerNodePorts",
            "healthCheckNodePort",
        ] {
            if spec.get(key) == old.get(key) {
                meta::put(spec, key, None);
            }
        }
    }
    if !with_address(&kind) && with_address(had) {
        for key in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            if spec.get(key) == old.get(key) {
                meta::put(spec, key, None);
            }
        }
    }
}

/// Takes the addresses and node ports that the Service needs and has not, and lets go of those it needs no more.
fn claim(claims: &mut Claims<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
    let owner = format!("{}/{}", meta::text(new, "namespace"), meta::text(new, "name"));
    let mut wrong = Vec::new();
    if new["spec"].is_object() {
        claim_addresses(claims, &mut new["spec"], &owner, &mut wrong)?;
        claim_ports(claims, &mut new["spec"], &owner, &mut wrong)?;
    }
    if !wrong.is_empty() {
        let kind = model::Gvk::new("", "v1", "Service");
        return Err(Failure::Invalid {
            kind,
            name: meta::text(new, "name").into(),
            causes: wrong,
        });
    }
    let has = goods(new);
    for good in old.map(goods).into_iter().flatten().filter(|g| !has.contains(g)) {
        claims.leave(good, &owner);
    }
    Ok(())
}

fn claim_addresses(
    claims: &mut Claims<'_>,
    spec: &mut Value,
    owner: &str,
    wrong: &mut Vec<Cause>,
) -> Result<(), Failure> {
    if text_at(spec, "type") == "ExternalName" {
        return Ok(());
    }
    let policy = match text_at(spec, "ipFamilyPolicy") {
        "" => "SingleStack".to_owned(),
        policy => policy.to_owned(),
    };
    spec["ipFamilyPolicy"] = policy.clone().into();
    let mut asked: Vec<String> = list_at(spec, "clusterIPs").iter().map(plain).collect();
    let first = text_at(spec, "clusterIP").to_owned();
    match (first.as_str(), asked.first()) {
        ("", Some(_)) | (_, None) => {}
        (first, Some(listed)) if first == listed => {}
        (first, _) => asked = vec![first.to_owned()],
    }
    if asked.is_empty() && !first.is_empty() {
        asked.push(first);
    }
    let ranges = claims.ranges().to_vec();
    let family = |v6: bool| if v6 { "IPv6" } else { "IPv4" };
    if asked.first().is_some_and(|a| a == "None") {
        let families: Vec<Value> = match list_at(spec, "ipFamilies") {
            [] => ranges.iter().take(1).map(|r| family(r.is_v6()).into()).collect(),
            given => given.to_vec(),
        };
        spec["clusterIP"] = "None".into();
        spec["clusterIPs"] = json!(["None"]);
        spec["ipFamilies"] = families.into();
        return Ok(());
    }
    let count = if policy == "SingleStack" {
        1
    } else {
        2.min(ranges.len())
    };
    if policy == "RequireDualStack" && ranges.len() < 2 {
        let says = "this cluster is not configured for dual-stack services";
        wrong.push(Cause::invalid("spec.ipFamilyPolicy", "\"RequireDualStack\"", says));
        return Ok(());
    }
    let mut wanted: Vec<bool> = list_at(spec, "ipFamilies").iter().map(|f| f == "IPv6").collect();
    for text in asked.iter().skip(wanted.len()) {
        wanted.push(text.contains(':'));
    }
    for range in &ranges {
        if wanted.len() < count && !wanted.contains(&range.is_v6()) {
            wanted.push(range.is_v6());
        }
    }
    wanted.truncate(count.max(asked.len()));
    let mut addresses: Vec<Value> = Vec::new();
    for (i, v6) in wanted.iter().enumerate() {
        let Some(range) = ranges.iter().copied().find(|r| r.is_v6() == *v6) else {
            let says = format!("not configured on this cluster: {}", family(*v6));
            wrong.push(Cause::invalid(
                format!("spec.ipFamilies[{i}]"),
                format!("{:?}", family(*v6)),
                &says,
            ));
            return Ok(());
        };
        let field = format!("spec.clusterIPs[{i}]");
        match asked.get(i) {
            Some(text) => {
                let Ok(address) = text.parse::<IpAddr>() else {
                    wrong.push(Cause::invalid(
                        field,
                        format!("{text:?}"),
                        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    ));
                    continue;
                };
                if claims.range_of(address).is_none() {
                    let says = format!(
                        "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
                    );
                    wrong.push(Cause::invalid("spec.clusterIPs", format!("[{text:?}]"), &says));
                } else if !claims.take(Good::Address(address), owner) {
                    let says = format!("failed to allocate IP {address}: provided IP is already allocated");
                    wrong.push(Cause::invalid("spec.clusterIPs", format!("[{text:?}]"), &says));
                } else {
                    addresses.push(address.to_string().into());
                }
            }
            None => {
                let full = || Failure::Internal(format!("failed to allocate a serviceIP: range {range} is full"));
                addresses.push(claims.take_address(range, owner).ok_or_else(full)?.to_string().into());
            }
        }
    }
    spec["ipFamilies"] = wanted
        .iter()
        .map(|v6| Value::from(family(*v6)))
        .collect::<Vec<_>>()
        .into();
    if let Some(first) = addresses.first() {
        spec["clusterIP"] = first.clone();
    }
    spec["clusterIPs"] = addresses.into();
    Ok(())
}

fn claim_ports(claims: &mut Claims<'_>, spec: &mut Value, owner: &str, wrong: &mut Vec<Cause>) -> Result<(), Failure> {
    let kind = text_at(spec, "type").to_owned();
    let needs = match kind.as_str() {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    };
    let full = || Failure::Internal("failed to allocate a nodePort: range is full".into());
    // First those that are named, so that none of them is given to a port that did not ask.
    for named in [true, false] {
        for (i, port) in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .enumerate()
        {
            let number = port["nodePort"].as_i64().unwrap_or(0);
            let protocol = Protocol::of(text_at(port, "protocol"));
            match (named, number) {
                (true, 0) | (false, 1..) => {}
                (true, number) => {
                    let field = format!("spec.ports[{i}].nodePort");
                    let valid = u16::try_from(number).ok().filter(|n| claims.in_port_range(*n));
                    match valid {
                        None => {
                            let (first, last) = claims.port_range();
                            let says = format!(
                                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                            );
                            wrong.push(Cause::invalid(field, number, &says));
                        }
                        Some(port) if !claims.take(Good::Port(protocol, port), owner) => {
                            wrong.push(Cause::invalid(field, number, "provided port is already allocated"));
                        }
                        Some(_) => {}
                    }
                }
                (false, _) if needs => port["nodePort"] = claims.take_port(protocol, owner).ok_or_else(full)?.into(),
                (false, _) => meta::put(port, "nodePort", None),
            }
        }
    }
    let health = kind == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
    match spec["healthCheckNodePort"].as_u64().unwrap_or(0) {
        0 if health => spec["healthCheckNodePort"] = claims.take_port(Protocol::Tcp, owner).ok_or_else(full)?.into(),
        0 => {}
        number => {
            let port = u16::try_from(number).unwrap_or(0);
            if !claims.in_port_range(port) || !claims.take(Good::Port(Protocol::Tcp, port), owner) {
                let says = format!(
                    "failed to allocate requested HealthCheck NodePort {number}: provided port is already allocated or out of range"
                );
                wrong.push(Cause::invalid("spec.healthCheckNodePort", number, &says));
            }
        }
    }
    Ok(())
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let kind = text_at(spec, "type");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
        wrong.push(Cause::not_supported("spec.type", format!("{kind:?}"), &types));
    }
    let headless = spec["clusterIP"] == "None";
    let ports = list_at(spec, "ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        wrong.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" {
        let name = text_at(spec, "externalName").trim_end_matches('.');
        if name.is_empty() {
            wrong.push(Cause::required("spec.externalName", ""));
        } else {
            for complaint in model::text::dns1123_subdomain(name) {
                wrong.push(Cause::invalid("spec.externalName", format!("{name:?}"), &complaint));
            }
        }
        if !text_at(spec, "clusterIP").is_empty() {
            wrong.push(Cause::forbidden(
                "spec.clusterIPs",
                "may not be set when type is 'ExternalName'",
            ));
        }
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let says = format!("may not be set to 'None' for {kind} services");
        wrong.push(Cause::invalid("spec.clusterIPs[0]", "\"None\"", &says));
    }
    if !matches!(text_at(spec, "sessionAffinity"), "None" | "ClientIP") {
        wrong.push(Cause::not_supported(
            "spec.sessionAffinity",
            &spec["sessionAffinity"],
            &["ClientIP", "None"],
        ));
    }
    validate_labels(spec.get("selector"), "spec.selector", wrong);
    let (mut names, mut numbers): (Vec<&str>, Vec<(&str, i64)>) = Default::default();
    for (i, port) in ports.iter().enumerate() {
        let field = |key: &str| format!("spec.ports[{i}].{key}");
        let (name, protocol) = (text_at(port, "name"), text_at(port, "protocol"));
        if name.is_empty() && ports.len() > 1 {
            wrong.push(Cause::required(field("name"), ""));
        } else if !name.is_empty() {
            for complaint in model::text::dns1123_label(name) {
                wrong.push(Cause::invalid(field("name"), format!("{name:?}"), &complaint));
            }
            if names.contains(&name) {
                wrong.push(Cause::duplicate(field("name"), format!("{name:?}")));
            }
            names.push(name);
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            wrong.push(Cause::invalid(
                field("port"),
                number,
                "must be between 1 and 65535, inclusive",
            ));
        }
        if numbers.contains(&(protocol, number)) {
            let shown = json!({"port": number, "protocol": protocol});
            wrong.push(Cause::duplicate(format!("spec.ports[{i}]"), shown));
        }
        numbers.push((protocol, number));
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            wrong.push(Cause::not_supported(
                field("protocol"),
                format!("{protocol:?}"),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        match &port["targetPort"] {
            Value::Number(n) if !n.as_i64().is_some_and(|n| (1..=65535).contains(&n)) => {
                wrong.push(Cause::invalid(
                    field("targetPort"),
                    n,
                    "must be between 1 and 65535, inclusive",
                ));
            }
            Value::String(name) => {
                for complaint in port_name(name) {
                    wrong.push(Cause::invalid(field("targetPort"), format!("{name:?}"), &complaint));
                }
            }
            _ => {}
        }
        if port["nodePort"].as_i64().unwrap_or(0) != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            wrong.push(Cause::forbidden(
                field("nodePort"),
                &format!("may not be used when `type` is '{kind}'"),
            ));
        }
    }
    let Some(old) = old else { return };
    let was = text_at(old, "spec.type");
    let address = text_at(old, "spec.clusterIP");
    if was != "ExternalName"
        && kind != "ExternalName"
        && !address.is_empty()
        && spec["clusterIP"] != old["spec"]["clusterIP"]
    {
        wrong.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIPs"],
            "may not change once set",
        ));
    }
}

fn external(service: &Value) -> String {
    let mut given: Vec<String> = list_at(service, "spec.externalIPs").iter().map(plain).collect();
    match text_at(service, "spec.type") {
        "ExternalName" => text_at(service, "spec.externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = list_at(service, "status.loadBalancer.ingress").iter();
            let mut all: Vec<String> = ingress
                .map(|i| [text_at(i, "ip"), text_at(i, "hostname")].concat())
                .collect();
            all.append(&mut given);
            if all.is_empty() {
                "<pending>".into()
            } else {
                all.join(",")
            }
        }
        _ if given.is_empty() => "<none>".into(),
        _ => given.join(","),
    }
}

fn ports(service: &Value) -> String {
    let port = |p: &Value| match p["nodePort"].as_i64().unwrap_or(0) {
        0 => format!("{}/{}", p["port"], text_at(p, "protocol")),
        node => format!("{}:{node}/{}", p["port"], text_at(p, "protocol")),
    };
    match list_at(service, "spec.ports") {
        [] => "<none>".into(),
        ports => ports.iter().map(port).collect::<Vec<_>>().join(","),
    }
}
