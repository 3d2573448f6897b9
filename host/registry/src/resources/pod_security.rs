//! The pod spec: as whom containers run, with what of the host, and how names are found.

use std::net::IpAddr;

use model::{Cause, text};
use serde_json::Value;

use crate::resources::check::At;
use crate::resources::common::NOT_IP;

const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const LONGEST_SEARCHES: usize = 2048;
const LONGEST_SYSCTL: usize = 253;

const NOT_SEARCHED: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";

/// `securityContext` of a pod.
pub(crate) fn validate_pod(spec: &mut At<'_, '_>) {
    let host_network = spec.value["hostNetwork"] == true;
    let host_ipc = spec.value["hostIPC"] == true;
    let mut context = spec.under("securityContext");
    for id in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.in_range(id, 0..=i64::from(i32::MAX));
    }
    context.each("supplementalGroups", |mut group| {
        if group
            .value
            .as_i64()
            .is_some_and(|g| !(0..=i64::from(i32::MAX)).contains(&g))
        {
            group.invalid("must be between 0 and 2147483647, inclusive");
        }
    });
    let mut seen: Vec<&str> = Vec::new();
    context.each("sysctls", |mut sysctl| {
        let name = sysctl.text("name");
        if sysctl.need("name", "") && !is_sysctl(name) {
            let says = format!("must have at most {LONGEST_SYSCTL} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
            sysctl.under("name").invalid(&says);
        } else if seen.contains(&name) {
            sysctl.under("name").duplicate();
        }
        seen.push(name);
        let of_network = name.starts_with("net.") || name.starts_with("net/");
        let of_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| name.starts_with(p));
        if of_network && host_network {
            sysctl.under("name").invalid("may not be specified when 'hostNetwork' is true");
        }
        if of_ipc && host_ipc {
            sysctl.under("name").invalid("may not be specified when 'hostIPC' is true");
        }
    });
    context.may_be_one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    context.may_be_one_of("supplementalGroupsPolicy", &["Merge", "Strict"]);
    profiles(&mut context);
    if spec.value["hostPID"] == true && spec.value["shareProcessNamespace"] == true {
        spec.under("shareProcessNamespace")
            .invalid("ShareProcessNamespace and HostPID cannot both be enabled");
    }
    if spec.value["hostUsers"] == false {
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            if spec.value[shared] == true {
                let says = format!("when `{shared}` is true");
                spec.under("hostUsers").forbidden(&says);
            }
        }
    }
}

/// Segments of letters, digits, dashes and underscores, with dots or slashes between them.
fn is_sysctl(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let segment = |s: &str| edge(s.as_bytes().first()) && edge(s.as_bytes().last()) && s.bytes().all(inner);
    name.len() <= LONGEST_SYSCTL && name.split(['.', '/']).all(segment)
}

/// `securityContext` of a container.
pub(crate) fn validate_container(mut context: At<'_, '_>) {
    for id in ["runAsUser", "runAsGroup"] {
        context.in_range(id, 0..=i64::from(i32::MAX));
    }
    context.may_be_one_of("procMount", &["Default", "Unmasked"]);
    if context.value["allowPrivilegeEscalation"] == false {
        if context.value["privileged"] == true {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if context.list("capabilities.add").iter().any(|c| c == "CAP_SYS_ADMIN") {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    profiles(&mut context);
}

/// What seccomp and AppArmor hold a process to.
fn profiles(context: &mut At<'_, '_>) {
    for key in ["seccompProfile", "appArmorProfile"] {
        if !context.has(key) {
            continue;
        }
        let mut profile = context.under(key);
        let local = profile.has("localhostProfile");
        match profile.text("type") {
            "Localhost" if !local => profile
                .under("localhostProfile")
                .required("must be set when seccomp type is Localhost"),
            "Localhost" => super::pod_volumes::local(profile.under("localhostProfile")),
            "RuntimeDefault" | "Unconfined" if local => profile
                .under("localhostProfile")
                .invalid("can only be set when seccomp type is Localhost"),
            "RuntimeDefault" | "Unconfined" => {}
            "" => profile
                .under("type")
                .required("type is required when seccompProfile is set"),
            _ => profile
                .under("type")
                .not_supported(&["Localhost", "RuntimeDefault", "Unconfined"]),
        }
    }
}

/// `dnsConfig` and `hostAliases`.
pub(crate) fn validate_names(spec: &mut At<'_, '_>) {
    spec.each("hostAliases", |mut alias| {
        if alias.text("ip").parse::<IpAddr>().is_err() {
            alias.under("ip").invalid(NOT_IP);
        }
        alias.each("hostnames", |mut name| name.fits(text::dns1123_subdomain));
    });
    let none = spec.text("dnsPolicy") == "None";
    if none && !spec.has("dnsConfig") {
        return spec
            .under("dnsConfig")
            .required("must provide `dnsConfig` when `dnsPolicy` is None");
    }
    if !spec.has("dnsConfig") {
        return;
    }
    let mut config = spec.under("dnsConfig");
    let (servers, searches) = (config.list("nameservers"), config.list("searches"));
    if none && servers.is_empty() {
        return config
            .under("nameservers")
            .required("must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if servers.len() > MOST_NAMESERVERS {
        let says = format!("must not have more than {MOST_NAMESERVERS} nameservers");
        config.under("nameservers").invalid(&says);
    }
    config.each("nameservers", |mut server| {
        if server.value.as_str().unwrap_or_default().parse::<IpAddr>().is_err() {
            server.invalid(NOT_IP);
        }
    });
    if searches.len() > MOST_SEARCHES {
        let says = format!("must not have more than {MOST_SEARCHES} search paths");
        config.under("searches").invalid(&says);
    }
    let length: usize = searches.iter().map(|s| s.as_str().map_or(0, str::len) + 1).sum();
    if length > LONGEST_SEARCHES + 1 {
        let says =
            format!("must not have more than {LONGEST_SEARCHES} characters (including spaces) in the search list");
        config.under("searches").invalid(&says);
    }
    config.each("searches", |mut search| {
        let domain = search.value.as_str().unwrap_or_default();
        // A dot alone and underscores are fine where names are only looked up.
        if domain != "." {
            search.fits(|domain| {
                let plain = domain.trim_end_matches('.').replace('_', "a");
                match text::dns1123_subdomain(&plain).is_empty() {
                    true => Vec::new(),
                    false => vec![NOT_SEARCHED.into()],
                }
            });
        }
    });
    config.each("options", |mut option| {
        if option.text("name").is_empty() {
            option.required("must not be empty");
        }
    });
}

/// Scheduling gates, readiness gates and the like: names.
pub(crate) fn validate_gates(spec: &mut At<'_, '_>) {
    spec.each("readinessGates", |mut gate| {
        gate.under("conditionType").fits(text::qualified_name);
    });
    let mut seen: Vec<&Value> = Vec::new();
    spec.each("schedulingGates", |mut gate| {
        for complaint in text::qualified_name(gate.text("name")) {
            let cause = Cause::invalid(gate.path(), &gate.value["name"], &complaint);
            gate.push(cause);
        }
        if seen.contains(&&gate.value["name"]) {
            let cause = Cause::duplicate(gate.path(), &gate.value["name"]);
            gate.push(cause);
        }
        seen.push(&gate.value["name"]);
    });
}
