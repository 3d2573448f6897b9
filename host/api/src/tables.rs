//! Where the columns of `kubectl get` come from.

use std::sync::Arc;

use model::{Gvr, Object};
use serde_json::{Value, json};

/// Knows how each kind prints itself.
pub trait Tables: Send + Sync + 'static {
    fn printer(&self, of: &Gvr) -> Arc<dyn Printer>;

    /// Of `autoscaling/v1 Scale`, which is asked of objects of other kinds.
    fn scale(&self) -> Arc<dyn Printer> {
        Arc::new(NameAndAge)
    }
}

/// How one kind prints itself.
pub trait Printer: Send + Sync {
    /// `TableColumnDefinition`s, left to right.
    fn definitions(&self) -> Vec<Value>;
    /// A cell per column.
    fn row(&self, object: &Object) -> Vec<Value>;
}

/// Name and age: what Kubernetes prints of a kind that says nothing else.
pub struct NameAndAge;

impl Tables for NameAndAge {
    fn printer(&self, _of: &Gvr) -> Arc<dyn Printer> {
        Arc::new(Self)
    }
}

impl Printer for NameAndAge {
    fn definitions(&self) -> Vec<Value> {
        let column = |name: &str, kind: &str, format: &str| json!({"name": name, "type": kind, "format": format, "description": "", "priority": 0});
        vec![column("Name", "string", "name"), column("Created At", "date", "")]
    }

    fn row(&self, object: &Object) -> Vec<Value> {
        let created = object.value()["metadata"]["creationTimestamp"].take();
        vec![object.key.name.as_str().into(), created]
    }
}
