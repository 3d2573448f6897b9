//! Service: a name and an address for a set of pods.
//!
//! ClusterIP and node ports are taken from the cluster's ranges at the write (`allocate.rs`); the proxy and DNS do the
//! rest. `None` as address makes it headless; `ExternalName` has neither address nor pods.

use std::net::IpAddr;

use model::{Cause, Failure, Verb, text};
use serde_json::{Value, json};

use crate::allocate::{Cidr, Claims, Good, Protocol, goods};
use crate::meta;
use crate::names::NameRule;
use crate::names::validate_labels;
use crate::resource::{Resource, status_and_metadata};
use crate::resources::check::At;
use crate::resources::common::{NOT_IP, default};
use crate::resources::networkpolicy::NOT_CIDR;
use crate::resources::pod_check::port_name;
use crate::table::{Column, list_at, pairs, plain, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "Service", "services")
        .short(&["svc"])
        .categories(&["all"])
        .stored_under("/registry/services/specs/")
        .names(NameRule::Label)
        .no_generation()
        .columns(vec![
            Column::text_or("Type", "spec.type", "").about("How the service is exposed."),
            Column::text("Cluster-IP", "spec.clusterIP").about("The address of the service inside the cluster."),
            Column::computed("External-IP", |service, _| external(service).into())
                .about("Addresses that lead here from outside."),
            Column::computed("Port(s)", |service, _| shown_ports(service).into())
                .about("The ports that are exposed by this service."),
            Column::age(),
            Column::computed("Selector", |service, _| pairs(service["spec"].get("selector")).into())
                .wide()
                .about("Route service traffic to pods with label keys and values matching this selector."),
        ])
        .selectable(&["spec.clusterIP", "spec.type"])
        .prepare(prepare)
        .claim(claim)
        .create_on_update()
        .validate(validate)
        .status_door(status_part, validate_status)
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
        wrong = validate_families(&new["spec"]);
    }
    if new["spec"].is_object() && wrong.is_empty() {
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
        // Without a selector nobody knows the families of what is behind the name: any will do.
        let open = spec["selector"].as_object().is_none_or(|s| s.is_empty());
        let families: Vec<Value> = match list_at(spec, "ipFamilies") {
            [] if open => {
                let other = ranges.first().is_some_and(|r| !r.is_v6());
                let first = ranges.first().map(|r| family(r.is_v6()));
                spec["ipFamilyPolicy"] = "RequireDualStack".into();
                first.into_iter().chain([family(other)]).map(Value::from).collect()
            }
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
                    wrong.push(Cause::invalid(field, format!("{text:?}"), NOT_IP));
                    continue;
                };
                if claims.range_of(address).is_none() {
                    let says = format!(
                        "failed to allocate IP {address}: the provided network does not match the current range"
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

const LONGEST_AFFINITY: i64 = 86_400;

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    let kind = spec.text("type");
    let headless = spec.text("clusterIP") == "None";
    let outside = matches!(kind, "NodePort" | "LoadBalancer");
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        spec.under("ports").required("");
    }
    match kind {
        "LoadBalancer" => spec.each("ports", |mut port| {
            if !matches!(port.text("protocol"), "TCP" | "UDP" | "SCTP") {
                port.under("protocol").not_supported(&["SCTP", "TCP", "UDP"]);
            }
        }),
        "ExternalName" => {
            if !spec.text("clusterIP").is_empty() || !spec.list("clusterIPs").is_empty() {
                spec.under("clusterIPs")
                    .forbidden("may not be set for ExternalName services");
            }
            for key in ["ipFamilies", "ipFamilyPolicy"] {
                if spec.has(key) && !spec.list(key).is_empty() || !spec.text(key).is_empty() {
                    spec.under(key).forbidden("may not be set for ExternalName services");
                }
            }
            match spec.text("externalName").trim_end_matches('.') {
                "" => spec.under("externalName").required(""),
                name => spec.under("externalName").fits(|_| text::dns1123_subdomain(name)),
            }
        }
        _ => {}
    }
    if headless && outside {
        let says = format!("may not be set to 'None' for {kind} services");
        spec.push(Cause::invalid("spec.clusterIPs[0]", "\"None\"", &says));
    }
    ports(&mut spec, kind, outside);
    spec.with("selector", |labels, field, wrong| {
        validate_labels(Some(labels), field, wrong)
    });
    spec.one_of("sessionAffinity", &["ClientIP", "None"]);
    let timeout = spec.int("sessionAffinityConfig.clientIP.timeoutSeconds");
    match (spec.text("sessionAffinity"), timeout) {
        ("None", Some(_)) => spec
            .under("sessionAffinityConfig")
            .forbidden("must not be set when session affinity is None"),
        ("ClientIP", Some(seconds)) if seconds <= 0 || seconds > LONGEST_AFFINITY => spec
            .under("sessionAffinityConfig.clientIP.timeoutSeconds")
            .invalid(&format!("must be greater than 0 and less than {LONGEST_AFFINITY}")),
        _ => {}
    }
    spec.each("externalIPs", |mut ip| {
        match ip.value.as_str().unwrap_or_default().parse::<IpAddr>() {
            Ok(address) => reachable(&mut ip, address),
            Err(_) => ip.invalid(NOT_IP),
        }
    });
    spec.one_of("type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    for (key, who) in [
        ("loadBalancerSourceRanges", "LoadBalancer"),
        ("loadBalancerClass", "LoadBalancer"),
    ] {
        let given = spec.has(key) && (spec.value[key].is_string() || !spec.list(key).is_empty());
        if given && kind != who {
            spec.under(key)
                .forbidden("may only be used when `type` is 'LoadBalancer'");
        }
    }
    if kind == "LoadBalancer" {
        spec.each("loadBalancerSourceRanges", |mut range| {
            if Cidr::parse(range.value.as_str().unwrap_or_default().trim()).is_err() {
                range.invalid(NOT_CIDR);
            }
        });
        if spec.has("loadBalancerClass") {
            spec.under("loadBalancerClass").fits(text::qualified_name);
        }
    }
    traffic(&mut spec, kind, outside);
    if let Some(old) = old {
        validate_change(spec, &old["spec"], kind);
    }
}

fn ports(spec: &mut At<'_, '_>, kind: &str, outside: bool) {
    let several = spec.list("ports").len() > 1;
    let mut names: Vec<&str> = Vec::new();
    let mut served: Vec<(&str, i64)> = Vec::new();
    let mut on_nodes: Vec<(&str, i64)> = Vec::new();
    spec.each("ports", |mut port| {
        let (name, protocol) = (port.text("name"), port.text("protocol"));
        if name.is_empty() && several {
            port.under("name").required("");
        } else if !name.is_empty() {
            port.under("name").fits(text::dns1123_label);
            if names.contains(&name) {
                port.under("name").duplicate();
            }
            names.push(name);
        }
        port.port("port");
        if kind != "LoadBalancer" {
            port.one_of("protocol", &["SCTP", "TCP", "UDP"]);
        }
        match &port.value["targetPort"] {
            Value::String(name) => {
                let complaints = port_name(name);
                port.under("targetPort").fits(|_| complaints);
            }
            _ => port.port("targetPort"),
        }
        port.may_fit("appProtocol", text::qualified_name);
        let (number, on_node) = (port.int("port").unwrap_or(0), port.int("nodePort").unwrap_or(0));
        if on_node != 0 && !outside {
            let says = format!("may not be used when `type` is '{kind}'");
            port.under("nodePort").forbidden(&says);
        }
        if served.contains(&(protocol, number)) {
            let cause = Cause::duplicate(port.path(), json!({"port": number, "protocol": protocol}));
            port.push(cause);
        }
        served.push((protocol, number));
        if on_node != 0 && on_nodes.contains(&(protocol, on_node)) {
            port.under("nodePort").duplicate();
        }
        on_nodes.push((protocol, on_node));
    });
}

/// No address that means none, only the link at hand, or many at once. (Loopback is fine, unlike upstream: the Wasm runtime
/// gives its pods addresses of 127.0.0.0/8.)
pub(crate) fn reachable(ip: &mut At<'_, '_>, address: IpAddr) {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let multicast = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 224 && v4.octets()[1] == 0 && v4.octets()[2] == 0,
        IpAddr::V6(v6) => v6.segments()[0] == 0xff02,
    };
    if address.is_unspecified() {
        ip.invalid(&format!(
            "may not be unspecified ({:?})",
            ip.value.as_str().unwrap_or_default()
        ));
    }
    if local {
        ip.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        ip.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Who sees the client's own address, and where traffic may go.
fn traffic(spec: &mut At<'_, '_>, kind: &str, outside: bool) {
    let external = spec.text("externalTrafficPolicy");
    let may = outside || !spec.list("externalIPs").is_empty() && kind == "ClusterIP";
    if !external.is_empty() && !may {
        spec.under("externalTrafficPolicy")
            .invalid("may only be set for externally-accessible services");
    } else if outside {
        spec.one_of("externalTrafficPolicy", &["Cluster", "Local"]);
    }
    if kind != "ExternalName" {
        spec.one_of("internalTrafficPolicy", &["Cluster", "Local"]);
    }
    let local = kind == "LoadBalancer" && external == "Local";
    if spec.int("healthCheckNodePort").is_some_and(|n| n != 0) && !local {
        spec.under("healthCheckNodePort")
            .invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
    }
    if spec.has("allocateLoadBalancerNodePorts") && kind != "LoadBalancer" {
        spec.under("allocateLoadBalancerNodePorts")
            .forbidden("may only be used when `type` is 'LoadBalancer'");
    }
    spec.may_be_one_of(
        "trafficDistribution",
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
    );
}

fn validate_change(mut spec: At<'_, '_>, was: &Value, kind: &str) {
    let had = text_at(was, "type");
    let address = text_at(was, "clusterIP");
    let changed = spec.value["clusterIP"] != was["clusterIP"];
    if had != "ExternalName" && kind != "ExternalName" && !address.is_empty() && changed {
        let shown = &spec.value["clusterIPs"];
        let cause = Cause::invalid("spec.clusterIPs[0]", shown, "may not change once set");
        spec.push(cause);
    }
    if had == "LoadBalancer" && kind == "LoadBalancer" && was["loadBalancerClass"] != spec.value["loadBalancerClass"] {
        spec.under("loadBalancerClass").invalid("may not change once set");
    }
}

/// What can be said before addresses are taken: afterwards the words would be about something else.
fn validate_families(spec: &Value) -> Vec<Cause> {
    let mut wrong = Vec::new();
    let mut spec = At::new(spec, "spec", &mut wrong);
    spec.may_be_one_of(
        "ipFamilyPolicy",
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    let mut seen: Vec<&Value> = Vec::new();
    spec.each("ipFamilies", |mut family| {
        if family.value != "IPv4" && family.value != "IPv6" {
            family.not_supported(&["IPv4", "IPv6"]);
        }
        if seen.contains(&family.value) {
            family.duplicate();
        }
        seen.push(family.value);
    });
    wrong
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let load_balancer = text_at(new, "spec.type") == "LoadBalancer";
    let mut status = At::new(&new["status"], "status", wrong);
    if !load_balancer && !status.list("loadBalancer.ingress").is_empty() {
        let says = "may only be used when `spec.type` is \"LoadBalancer\"";
        status.under("loadBalancer.ingress").forbidden(says);
        return;
    }
    status.each("loadBalancer.ingress", |mut ingress| {
        let ip = ingress.text("ip");
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            ingress.under("ip").invalid(NOT_IP);
        }
        if ip.is_empty() && ingress.has("ipMode") {
            ingress
                .under("ipMode")
                .forbidden("may not be specified when `ip` is not set");
        } else if !ip.is_empty() {
            ingress.may_be_one_of("ipMode", &["Proxy", "VIP"]);
        }
        let hostname = ingress.text("hostname");
        if !hostname.is_empty() {
            ingress.under("hostname").fits(text::dns1123_subdomain);
            if hostname.parse::<IpAddr>().is_ok() {
                ingress
                    .under("hostname")
                    .invalid("must be a DNS name, not an IP address");
            }
        }
    });
}

/// An address that a load balancer gives is one of its own, unless it says otherwise.
fn status_part(new: &mut Value, old: &Value) {
    status_and_metadata(new, old);
    if let Some(ingress) = new
        .pointer_mut("/status/loadBalancer/ingress")
        .and_then(Value::as_array_mut)
    {
        for one in ingress.iter_mut().filter(|i| !text_at(i, "ip").is_empty()) {
            default(one, "ipMode", "VIP");
        }
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

fn shown_ports(service: &Value) -> String {
    let port = |p: &Value| match p["nodePort"].as_i64().unwrap_or(0) {
        0 => format!("{}/{}", p["port"], text_at(p, "protocol")),
        node => format!("{}:{node}/{}", p["port"], text_at(p, "protocol")),
    };
    match list_at(service, "spec.ports") {
        [] => "<none>".into(),
        ports => ports.iter().map(port).collect::<Vec<_>>().join(","),
    }
}
