//! What policies know of `request` and `namespaceObject`.

use std::sync::{Arc, OnceLock};

use cel::{Field, Order, Shape, ShapeKind};

fn made(kind: ShapeKind) -> Arc<Shape> {
    Arc::new(Shape {
        kind,
        most: 0,
        least_bytes: 1,
    })
}

fn text() -> Arc<Shape> {
    made(ShapeKind::Text)
}

fn texts() -> Arc<Shape> {
    made(ShapeKind::List(text(), Order::Atomic))
}

fn object(name: &str, fields: Vec<(&str, Arc<Shape>)>) -> Arc<Shape> {
    let fields = fields.into_iter().map(|(name, shape)| {
        let field = Field {
            name: name.to_owned(),
            shape,
            nullable: false,
        };
        // `namespace` is a word of the language.
        (cel::escape(name).unwrap_or_else(|| name.to_owned()), field)
    });
    made(ShapeKind::Object(name.into(), fields.collect()))
}

/// `admission.k8s.io/v1 AdmissionRequest`, without the objects.
pub(crate) fn request() -> Arc<Shape> {
    static SHAPE: OnceLock<Arc<Shape>> = OnceLock::new();
    let make = || {
        let kind = || {
            let fields = vec![("group", text()), ("version", text()), ("kind", text())];
            object("kubernetes.GroupVersionKind", fields)
        };
        let resource = || {
            let fields = vec![("group", text()), ("version", text()), ("resource", text())];
            object("kubernetes.GroupVersionResource", fields)
        };
        let user = object(
            "kubernetes.UserInfo",
            vec![
                ("username", text()),
                ("uid", text()),
                ("groups", texts()),
                ("extra", made(ShapeKind::Map(texts()))),
            ],
        );
        object(
            "kubernetes.AdmissionRequest",
            vec![
                ("kind", kind()),
                ("resource", resource()),
                ("subResource", text()),
                ("requestKind", kind()),
                ("requestResource", resource()),
                ("requestSubResource", text()),
                ("name", text()),
                ("namespace", text()),
                ("operation", text()),
                ("userInfo", user),
                ("dryRun", made(ShapeKind::Bool)),
                ("options", made(ShapeKind::Opaque)),
            ],
        )
    };
    SHAPE.get_or_init(make).clone()
}

/// The parts of a Namespace that policies may look at.
pub(crate) fn namespace() -> Arc<Shape> {
    static SHAPE: OnceLock<Arc<Shape>> = OnceLock::new();
    let make = || {
        let pairs = || made(ShapeKind::Map(text()));
        let time = || made(ShapeKind::DateTime);
        let condition = object(
            "kubernetes.NamespaceCondition",
            vec![
                ("status", text()),
                ("type", text()),
                ("lastTransitionTime", time()),
                ("message", text()),
                ("reason", text()),
            ],
        );
        let conditions = made(ShapeKind::List(condition, Order::Atomic));
        let status = object(
            "kubernetes.NamespaceStatus",
            vec![("conditions", conditions), ("phase", text())],
        );
        let metadata = object(
            "kubernetes.NamespaceMetadata",
            vec![
                ("name", text()),
                ("generateName", text()),
                ("namespace", text()),
                ("labels", pairs()),
                ("annotations", pairs()),
                ("UID", text()),
                ("creationTimestamp", time()),
                ("deletionGracePeriodSeconds", made(ShapeKind::Int)),
                ("deletionTimestamp", time()),
                ("generation", made(ShapeKind::Int)),
                ("resourceVersion", text()),
                ("finalizers", texts()),
            ],
        );
        let spec = object("kubernetes.NamespaceSpec", vec![("finalizers", texts())]);
        object(
            "kubernetes.Namespace",
            vec![("metadata", metadata), ("spec", spec), ("status", status)],
        )
    };
    SHAPE.get_or_init(make).clone()
}
