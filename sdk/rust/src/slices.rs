//! EndpointSlices: whose they are and what says so. For the controllers that keep and read them, which must agree.

use std::collections::BTreeMap;

use crate::view::Selection;
use crate::{Value, within};

pub const SLICE: &str = "discovery.k8s.io/v1/EndpointSlice";
/// Keeps those that are made of a Service's pods.
pub const OF_PODS: &str = "endpointslice-controller.k8s.io";
/// Keeps those that are made of Endpoints that somebody wrote by hand.
pub const OF_ENDPOINTS: &str = "endpointslicemirroring-controller.k8s.io";

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Those that this keeper has for a Service: others may keep some, too.
pub fn of_service(namespace: &str, service: &str, keeper: &str) -> Selection {
    within(namespace).labels(format!("{SERVICE_NAME}={service},{MANAGED_BY}={keeper}"))
}

/// Adds what [`of_service`] selects by.
pub fn mark(labels: &mut BTreeMap<String, String>, service: &str, keeper: &str) {
    labels.insert(SERVICE_NAME.into(), service.to_owned());
    labels.insert(MANAGED_BY.into(), keeper.to_owned());
}

/// A Service's labels, as its slices and Endpoints have them: whether it is headless is told by its address alone.
pub fn labels_of(service: &BTreeMap<String, String>, cluster_ip: &str) -> BTreeMap<String, String> {
    let mut labels = service.clone();
    labels.remove(HEADLESS);
    if cluster_ip == "None" {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// A slice's ports as text, to compare by.
pub fn ports(of: &Value) -> String {
    if of.is_null() { "[]".into() } else { of.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_makes_a_service_headless() {
        let claims = BTreeMap::from([(HEADLESS.to_owned(), String::new()), ("app".into(), "a".into())]);
        assert_eq!(
            labels_of(&claims, "10.0.0.1").into_keys().collect::<Vec<_>>(),
            ["app".to_owned()]
        );
        assert_eq!(labels_of(&claims, "None"), claims);
        assert_eq!(labels_of(&claims, "").len(), 1);
    }

    #[test]
    fn no_ports_are_an_empty_list() {
        assert_eq!(ports(&Value::Null), "[]");
        assert_eq!(ports(&crate::json!([{"port": 80}])), r#"[{"port":80}]"#);
    }
}
