//! Whatever bytes arrive, they are read or refused: no panic, and what was read once is read the same again.
//!
//! Documents begin well and are then damaged, which goes deeper than noise does. A failing case prints its own text; proptest
//! keeps its seed in `proptest-regressions`.

use model::{GroupResource, Gvk, ObjectKey};
use proptest::prelude::*;
use schema::{Schema, Table, apply, json_merge, json_patch, strategic};
use serde_json::{Value, json};

/// One hurt, at a place given in parts of the text's length.
#[derive(Debug, Clone)]
enum Hurt {
    Flip(u16, u8),
    Cut(u16, u16),
    Repeat(u16, u16),
    Insert(u16, &'static str),
}

/// What readers stumble over.
const ODD: [&str; 20] = [
    "null",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "-1",
    "1e999",
    "99999999999999999999",
    "0.1",
    "\"\"",
    "\"\\ud800\"",
    "\u{0}",
    "\u{feff}",
    "{\"a\":1}",
    "[null]",
    "\"$patch\":\"replace\",",
];

fn hurt() -> impl Strategy<Value = Hurt> {
    prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(at, bits)| Hurt::Flip(at, bits)),
        (any::<u16>(), 0..600u16).prop_map(|(at, many)| Hurt::Cut(at, many)),
        (any::<u16>(), 0..600u16).prop_map(|(at, many)| Hurt::Repeat(at, many)),
        (any::<u16>(), prop::sample::select(ODD.as_slice())).prop_map(|(at, text)| Hurt::Insert(at, text)),
    ]
}

fn damaged(text: &str, hurts: &[Hurt]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for hurt in hurts {
        let place = |part: u16| usize::from(part) * bytes.len() / (usize::from(u16::MAX) + 1);
        match *hurt {
            Hurt::Flip(at, bits) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Hurt::Cut(at, many) => {
                let from = place(at);
                bytes.drain(from..(from + usize::from(many)).min(bytes.len()));
            }
            Hurt::Repeat(at, many) => {
                let from = place(at);
                let piece = bytes[from..(from + usize::from(many)).min(bytes.len())].to_vec();
                bytes.splice(from..from, piece);
            }
            Hurt::Insert(at, text) => {
                let at = place(at);
                bytes.splice(at..at, text.bytes());
            }
        }
    }
    bytes
}

fn hurts() -> impl Strategy<Value = Vec<Hurt>> {
    prop::collection::vec(hurt(), 0..5)
}

fn custom() -> Schema {
    let of = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "minimum": 1, "default": 3},
        "port": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time", "nullable": true},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"], "items": {"type": "object",
            "required": ["key"], "properties": {"key": {"type": "string"}, "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "whole": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "by": {"type": "object", "additionalProperties": {"type": "number"}}},
        "x-kubernetes-validations": [{"rule": "!has(self.size) || self.size < 100"}]}}});
    Schema::from_crd(&of, Gvk::new("example.com", "v1", "Thing")).unwrap()
}

fn sound() -> Vec<(Schema, Value)> {
    let built_in = |gvk: Gvk| Table::builtin().schema(&gvk).unwrap();
    vec![
        (
            built_in(Gvk::new("", "v1", "Pod")),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "b"}, "creationTimestamp": "2026-01-02T03:04:05Z",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]},
                "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "500m", "memory": 1024}},
                    "ports": [{"containerPort": 80}], "env": [{"name": "X", "value": "1"}], "livenessProbe": {"httpGet": {"port": "http"}}}],
                    "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"}},
                "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null}]}}),
        ),
        (
            built_in(Gvk::new("apps", "v1", "Deployment")),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "annotations": {}},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}}}),
        ),
        (
            built_in(Gvk::new("", "v1", "Secret")),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"a": "YQ=="}, "stringData": {"b": "c"}, "immutable": false}),
        ),
        (
            built_in(Gvk::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition")),
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b"},
                "spec": {"group": "b", "scope": "Cluster", "names": {"plural": "a", "kind": "A"}, "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "additionalProperties": true, "items": [{}], "default": {"a": 1}}}}}}]}}),
        ),
        (
            custom(),
            json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "finalizers": ["x/y"]},
                "spec": {"size": 5, "port": "http", "when": null, "name": "abc", "parts": [{"key": "a", "tags": ["x", "y"]}, {"key": "b"}],
                    "open": {"any": [1, {"thing": null}]}, "whole": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}}, "by": {"x": 1.5}}}),
        ),
    ]
}

fn key() -> ObjectKey {
    ObjectKey::new(GroupResource::new("", "things"), "default", "a")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What a client sends: read, pruned, defaulted and judged, or refused. What came out goes in again as it is.
    #[test]
    fn bodies_are_read_or_refused(which in 0..5usize, hurts in hurts()) {
        let (schema, sound) = &sound()[which];
        let bytes = damaged(&sound.to_string(), &hurts);
        let Ok(read) = schema.decode(&bytes) else { return Ok(()) };
        let mut value = read.value.clone();
        let again = schema.decode(value.to_string().as_bytes());
        prop_assert_eq!(again.as_ref().map(|again| &again.value).ok(), Some(&read.value), "of {}", String::from_utf8_lossy(&bytes));
        schema.default(&mut value);
        let _ = schema.validate(&value);
        let _ = schema.validate_update(&value, sound);
        if schema.has_protobuf()
            && let Ok(message) = schema.encode_protobuf(&read.value)
        {
            let back = schema.decode_protobuf(&message);
            prop_assert!(back.is_ok(), "{:?} of {}", back, String::from_utf8_lossy(&bytes));
        }
    }

    /// Patches of every kind, on an object that is sound.
    #[test]
    fn patches_are_applied_or_refused(which in 0..5usize, hurts in hurts(), managed in any::<bool>()) {
        let (schema, sound) = &sound()[which];
        let Ok((patch, _)) = schema::parse(&damaged(&sound.to_string(), &hurts)) else { return Ok(()) };
        let mut merged = sound.clone();
        json_merge(&mut merged, &patch);
        let _ = schema.conform(&mut merged);
        let mut strategic = sound.clone();
        if strategic::merge(schema, &mut strategic, &patch).is_ok() {
            let _ = schema.conform(&mut strategic);
        }
        let writer = |manager| apply::Writer { manager, subresource: "", time: "2026-01-02T03:04:05Z", resets: &[] };
        let mut live = sound.clone();
        if managed {
            live = apply::apply(schema, None, sound, writer("first"), false, &key()).unwrap();
        }
        if let Ok(applied) = apply::apply(schema, Some(&live), &patch, writer("second"), true, &key()) {
            let again = apply::apply(schema, Some(&applied), &patch, writer("second"), true, &key());
            prop_assert_eq!(again.ok(), Some(applied), "applied again, {} changes nothing", patch);
        }
    }

    #[test]
    fn operations_are_done_or_refused(hurts in hurts()) {
        let operations = json!([
            {"op": "add", "path": "/metadata/labels/x~1y", "value": "z"}, {"op": "test", "path": "/metadata/name", "value": "a"},
            {"op": "copy", "from": "/spec/containers/0", "path": "/spec/containers/-"}, {"op": "move", "from": "/spec/volumes", "path": "/spec/other"},
            {"op": "replace", "path": "/spec/containers/1/name", "value": "d"}, {"op": "remove", "path": "/spec/nodeSelector"}]);
        let Ok((patch, _)) = schema::parse(&damaged(&operations.to_string(), &hurts)) else { return Ok(()) };
        let (schema, sound) = sound().swap_remove(0);
        let mut target = sound.clone();
        // Nothing partial: a patch that fails has changed nothing.
        if json_patch(&mut target, &patch, schema.gvk(), "a").is_err() {
            prop_assert_eq!(target, sound);
        } else {
            let _ = schema.conform(&mut target);
        }
    }
}
