//! A container's environment: `envFrom`, `env`, `$(VAR)`, field and resource references, service variables.

use std::collections::BTreeMap;

use model::{Failure, Format, Quantity};
use serde_json::Value;

use crate::pod::spec::{ContainerSpec, FieldRef, Pod, ResourceFieldRef};
use crate::read::{Keys, Reader};
use crate::resources::quantity;

/// What of a pod is known only on its node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placed {
    pub pod_ip: String,
    pub host_ip: String,
    /// The node's allocatable resources: the limit of a container that has none.
    pub allocatable: BTreeMap<String, String>,
}

/// The variables in the order they are set, each name once. The error is a sentence for the waiting message.
pub(crate) async fn environment(
    pod: &Pod,
    container: &ContainerSpec,
    placed: &Placed,
    reader: &Reader,
) -> Result<Vec<(String, String)>, String> {
    let namespace = &pod.metadata.namespace;
    let mut set = Variables::default();
    let services = services(pod, reader).await.map_err(|f| f.to_string())?;
    for from in &container.env_from {
        let (what, source) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(source), _) => ("configmap", source),
            (None, Some(source)) => ("secret", source),
            (None, None) => continue,
        };
        match read(reader, what, namespace, &source.name).await? {
            Some(keys) => {
                for (key, value) in keys {
                    set.put(&format!("{}{key}", from.prefix), &String::from_utf8_lossy(&value));
                }
            }
            None if source.optional => {}
            None => return Err(format!("{what} \"{}\" not found", source.name)),
        }
    }
    for variable in &container.env {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => expand(value, |name| {
                set.get(name).or_else(|| find(&services, name)).map(Into::into)
            }),
            (None, None) => String::new(),
            (None, Some(from)) => {
                let key = from.config_map_key_ref.as_ref().map(|r| ("configmap", r));
                match key.or(from.secret_key_ref.as_ref().map(|r| ("secret", r))) {
                    Some((what, key)) => {
                        let keys = read(reader, what, namespace, &key.name).await?;
                        match keys.as_ref().map(|keys| keys.get(&key.key)) {
                            Some(Some(value)) => String::from_utf8_lossy(value).into_owned(),
                            _ if key.optional => continue,
                            Some(None) => {
                                let (name, key) = (&key.name, &key.key);
                                return Err(format!("couldn't find key {key} in {what} {namespace}/{name}"));
                            }
                            None => return Err(format!("{what} \"{}\" not found", key.name)),
                        }
                    }
                    None => match (&from.field_ref, &from.resource_field_ref) {
                        (Some(field), _) => field_value(pod, placed, field)?,
                        (None, Some(resource)) => resource_value(pod, container, placed, resource)?,
                        (None, None) => String::new(),
                    },
                }
            }
        };
        set.put(&variable.name, &value);
    }
    // What the pod sets itself wins over what Services give.
    for (name, value) in services {
        if set.get(&name).is_none() {
            set.list.push((name, value));
        }
    }
    Ok(set.list)
}

#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<&str> {
        find(&self.list, name)
    }

    fn put(&mut self, name: &str, value: &str) {
        match self.list.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.into(),
            None => self.list.push((name.into(), value.into())),
        }
    }
}

fn find<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
    list.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

async fn read(reader: &Reader, what: &str, namespace: &str, name: &str) -> Result<Option<Keys>, String> {
    let keys = match what {
        "configmap" => reader.config_map(namespace, name).await,
        _ => reader.secret(namespace, name).await,
    };
    keys.map_err(|failure| failure.to_string())
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; a name that is not known stays as it is written.
pub(crate) fn expand(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out + rest
}

/// A field of the pod as the downward API names it.
pub(crate) fn field_value(pod: &Pod, placed: &Placed, field: &FieldRef) -> Result<String, String> {
    let (meta, spec) = (&pod.metadata, &pod.spec);
    let path = field.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => spec.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" => placed.host_ip.clone(),
        "status.podIP" | "status.podIPs" => placed.pod_ip.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"`, a line each.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(k, v)| format!("{k}={v:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A limit or request in units of `divisor`, rounded up.
pub(crate) fn resource_value(
    pod: &Pod,
    container: &ContainerSpec,
    placed: &Placed,
    wanted: &ResourceFieldRef,
) -> Result<String, String> {
    let of = match wanted.container_name.as_str() {
        "" => container,
        name => pod
            .spec
            .container(name)
            .ok_or_else(|| format!("container {name} not found"))?,
    };
    let (list, name) = match wanted.resource.split_once('.') {
        Some(("limits", name)) => (&of.resources.limits, name),
        Some(("requests", name)) => (&of.resources.requests, name),
        _ => {
            return Err(format!("unsupported container resource : {}", wanted.resource));
        }
    };
    let limits = wanted.resource.starts_with("limits.");
    let amount = quantity(list, name).or_else(|| limits.then(|| quantity(&placed.allocatable, name)).flatten());
    let divisor = wanted
        .divisor
        .as_deref()
        .and_then(|d| Quantity::parse(d).ok())
        .filter(|d| !d.is_zero());
    let divisor = divisor.unwrap_or(Quantity::from_whole(1, Format::Decimal)).nanos();
    let nanos = amount.unwrap_or_default().nanos();
    Ok(((nanos + divisor - 1) / divisor).to_string())
}

/// Variables of `default/kubernetes` and, with service links, of the Services of the pod's namespace.
async fn services(pod: &Pod, reader: &Reader) -> Result<Vec<(String, String)>, Failure> {
    let namespace = &pod.metadata.namespace;
    let mut set = Vec::new();
    if pod.spec.enable_service_links != Some(false) {
        for service in reader.services(namespace).await? {
            service_variables(&service, &mut set);
        }
    }
    if find(&set, "KUBERNETES_SERVICE_HOST").is_none() {
        let all = reader.services("default").await?;
        if let Some(service) = all.iter().find(|s| s["metadata"]["name"] == "kubernetes") {
            service_variables(service, &mut set);
        }
    }
    Ok(set)
}

fn service_variables(service: &Value, set: &mut Vec<(String, String)>) {
    let ip = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    let ports = service["spec"]["ports"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if ip.is_empty() || ip == "None" || ports.is_empty() {
        return;
    }
    let variable = |text: &str| text.to_uppercase().replace('-', "_");
    let name = variable(service["metadata"]["name"].as_str().unwrap_or_default());
    let mut put = |suffix: String, value: String| set.push((format!("{name}{suffix}"), value));
    put("_SERVICE_HOST".into(), ip.into());
    for (at, port) in ports.iter().enumerate() {
        let number = port["port"].as_u64().unwrap_or(0);
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        if at == 0 {
            put("_SERVICE_PORT".into(), number.to_string());
            put("_PORT".into(), format!("{lower}://{ip}:{number}"));
        }
        if let Some(port_name) = port["name"].as_str().filter(|n| !n.is_empty()) {
            put(format!("_SERVICE_PORT_{}", variable(port_name)), number.to_string());
        }
        let prefix = format!("_PORT_{number}_{protocol}");
        put(prefix.clone(), format!("{lower}://{ip}:{number}"));
        put(format!("{prefix}_PROTO"), lower);
        put(format!("{prefix}_PORT"), number.to_string());
        put(format!("{prefix}_ADDR"), ip.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_knows_escapes_and_leaves_what_it_does_not_know() {
        let value = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, expanded) in [
            ("$(A)", "x"),
            ("a$(A)b$(A)", "axbx"),
            ("$$(A)", "$(A)"),
            ("$(B)-$(A)", "$(B)-x"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("€$(A)€", "€x€"),
        ] {
            assert_eq!(expand(text, value), expanded, "{text}");
        }
    }

    #[test]
    fn resources_are_counted_in_divisors_and_rounded_up() {
        let pod = Pod::default();
        let mut c = ContainerSpec::default();
        c.resources.limits.insert("cpu".into(), "250m".into());
        c.resources.limits.insert("memory".into(), "100Mi".into());
        let of = |resource: &str, divisor: &str| {
            let wanted = ResourceFieldRef {
                resource: resource.into(),
                divisor: Some(divisor.into()),
                ..Default::default()
            };
            resource_value(&pod, &c, &Placed::default(), &wanted).unwrap()
        };
        assert_eq!(of("limits.cpu", "1"), "1");
        assert_eq!(of("limits.cpu", "1m"), "250");
        assert_eq!(of("limits.memory", "1Mi"), "100");
        assert_eq!(of("requests.cpu", "1"), "0");
    }

    #[test]
    fn a_service_is_told_in_both_styles() {
        let service = serde_json::json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "10.0.0.9",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}});
        let mut set = Vec::new();
        service_variables(&service, &mut set);
        let text: Vec<String> = set.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "MY_DB_SERVICE_HOST=10.0.0.9",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_PORT=tcp://10.0.0.9:5432",
                "MY_DB_SERVICE_PORT_SQL=5432",
                "MY_DB_PORT_5432_TCP=tcp://10.0.0.9:5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_ADDR=10.0.0.9",
            ]
        );
    }
}
