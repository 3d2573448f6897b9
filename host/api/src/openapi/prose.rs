//! What Kubernetes' reference says of its types and fields: packed by `build.rs`, unpacked for the making of a document.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::ZlibDecoder;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/prose.bin"));

/// Far above what there is: whoever changes the build script is told.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Documents are kept, so this is read a few times in a server's life and let go each time.
pub(super) struct Prose {
    types: HashMap<String, Words>,
}

#[derive(Default)]
struct Words {
    own: String,
    fields: HashMap<String, Field>,
}

struct Field {
    required: bool,
    says: String,
}

impl Prose {
    pub(super) fn read() -> Self {
        let mut text = String::new();
        if let Err(error) = ZlibDecoder::new(PACKED).take(LIMIT).read_to_string(&mut text) {
            tracing::error!(%error, "what the types mean cannot be read: OpenAPI goes without it");
        }
        let mut types: HashMap<String, Words> = HashMap::new();
        let mut current = String::new();
        for line in text.lines() {
            let words = |text: &str| text.replace('\u{1}', "\n").replace('\u{2}', "\t");
            let parts: Vec<&str> = line.splitn(4, '\t').collect();
            match parts[..] {
                ["", field, mark, says] => {
                    let fields = &mut types.entry(current.clone()).or_default().fields;
                    let field_of = Field {
                        required: mark == "!",
                        says: words(says),
                    };
                    fields.insert(field.to_owned(), field_of);
                }
                [name, says] => {
                    current = name.to_owned();
                    types.entry(current.clone()).or_default().own = words(says);
                }
                _ => {}
            }
        }
        Self { types }
    }

    /// Of a type, by its full name (`io.k8s.api.core.v1.Pod`).
    pub(super) fn of(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(|w| w.own.as_str()).filter(|w| !w.is_empty())
    }

    /// Of one of its fields.
    pub(super) fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        let says = &self.types.get(name)?.fields.get(field)?.says;
        (!says.is_empty()).then_some(says.as_str())
    }

    /// Whether the reference says that the field must be there; `None` for one it does not know.
    pub(super) fn requires(&self, name: &str, field: &str) -> Option<bool> {
        Some(self.types.get(name)?.fields.get(field)?.required)
    }
}

#[cfg(test)]
mod tests {
    use super::super::definitions::name_of;
    use super::Prose;

    #[test]
    fn every_served_kind_is_explained() {
        let prose = Prose::read();
        let all = registry::resources::all();
        let computed: Vec<_> = crate::computed::kinds().map(|(_, kind)| kind).collect();
        let missing: Vec<String> = all
            .iter()
            .filter(|r| r.kind.gvk.group != "plugins.pilotis.dev")
            .map(|r| &r.kind.gvk)
            .chain(computed.iter().map(|kind| &kind.gvk))
            .map(name_of)
            .filter(|name| prose.of(name).is_none())
            .collect();
        assert!(missing.is_empty(), "to be named in build.rs: {missing:?}");
        let containers = prose.of_field("io.k8s.api.core.v1.PodSpec", "containers").unwrap();
        assert!(
            containers.starts_with("List of containers belonging to the pod."),
            "{containers}"
        );
        let requires = |of: &str, field: &str| prose.requires(&format!("io.k8s.api.{of}"), field);
        assert_eq!(requires("apps.v1.DeploymentSpec", "selector"), Some(true));
        assert_eq!(requires("apps.v1.DeploymentSpec", "replicas"), Some(false));
        assert_eq!(requires("apps.v1.DeploymentSpec", "colour"), None);
    }
}
