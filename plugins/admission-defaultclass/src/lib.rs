//! Gives claims and Ingresses the class that is marked as the default where they name none (DefaultStorageClass and
//! DefaultIngressClass of kube-apiserver).

use std::cmp::Reverse;

use sdk::admission::{Answer, Request};
use sdk::{Fields, Value, View};

/// A PersistentVolumeClaim or an Ingress. A class of no name is a choice, too: none.
#[derive(Fields, Clone, Debug)]
struct Object {
    #[at(".metadata.annotations")]
    annotations: Value,
    #[at(".spec.storageClassName?")]
    has_storage_class: bool,
    #[at(".spec.ingressClassName?")]
    has_ingress_class: bool,
}

#[derive(Fields, Clone, Debug)]
struct Class {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.annotations")]
    annotations: Value,
    /// RFC 3339 in UTC, whose order as text is that of time.
    #[at(".metadata.creationTimestamp")]
    created: String,
}

/// Where a kind has its class.
struct Place {
    kind: &'static str,
    field: &'static str,
    /// How it was said before there was a field.
    annotation: &'static str,
    /// What marks the default one.
    marks: &'static [&'static str],
}

const OF_CLAIMS: Place = Place {
    kind: "storage.k8s.io/v1/StorageClass",
    field: "/spec/storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
    marks: &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ],
};

const OF_INGRESSES: Place = Place {
    kind: "networking.k8s.io/v1/IngressClass",
    field: "/spec/ingressClassName",
    annotation: "kubernetes.io/ingress.class",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
};

#[sdk::admission(
    on = ["create persistentvolumeclaims", "create ingresses.networking.k8s.io"],
    phases = ["mutating"],
    asks = ["get storageclasses.storage.k8s.io", "get ingressclasses.networking.k8s.io"],
    with_kinds = ["storage.k8s.io/v1/StorageClass", "networking.k8s.io/v1/IngressClass"],
)]
fn review(request: Request<Object>, view: &View) -> sdk::Result<Answer> {
    let Some(object) = &request.object else {
        return Ok(Answer::allow());
    };
    let (place, has) = match request.resource.as_str() {
        "ingresses" => (OF_INGRESSES, object.has_ingress_class),
        _ => (OF_CLAIMS, object.has_storage_class),
    };
    if has || object.annotations.get(place.annotation).is_some() {
        return Ok(Answer::allow());
    }
    let classes = view.find(place.kind, &sdk::all(), "", 0)?;
    Ok(match default_of(classes, place.marks) {
        Some(class) => Answer::allow().patch("add", place.field, class.name.into()),
        None => Answer::allow(),
    })
}

/// Of several the newest, so that marking another one is enough to change it; of those made in one second the first by name.
fn default_of(classes: Vec<Class>, marks: &[&str]) -> Option<Class> {
    let marked = |class: &Class| marks.iter().any(|mark| class.annotations[*mark] == "true");
    let marked = classes.into_iter().filter(marked);
    marked.min_by_key(|class| (Reverse(class.created.clone()), class.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk::json;

    #[test]
    fn the_newest_that_is_marked() {
        let class = |name: &str, mark: &str, day: u32| Class {
            name: name.into(),
            annotations: json!({"storageclass.kubernetes.io/is-default-class": mark}),
            created: format!("2026-01-{day:02}T00:00:00Z"),
        };
        let chosen = |classes: &[Class]| default_of(classes.to_vec(), OF_CLAIMS.marks).map(|class| class.name);
        let all = [
            class("a", "true", 1),
            class("c", "true", 2),
            class("b", "true", 2),
            class("d", "false", 3),
        ];
        assert_eq!(chosen(&all).as_deref(), Some("b"));
        assert_eq!(chosen(&all[..1]).as_deref(), Some("a"));
        assert_eq!(chosen(&all[3..]), None);
    }
}
