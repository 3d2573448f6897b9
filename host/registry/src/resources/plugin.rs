//! Plugin (`plugins.pilotis.dev/v1alpha1`): a Wasm component that decides something in this cluster. The one thing an
//! operator applies; the plugin host loads it, swaps it, and reports in `status`.
//!
//! Figures (calls, faults, p99) are computed when the object is read (`gates::Figures`); they are never written.

use model::{Cause, Gvk};
use schema::Schema;
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::common::{child, default};
use crate::table::{Column, at, int_at, list_at, plain, text_at};

pub(crate) const GROUP: &str = "plugins.pilotis.dev";

pub(crate) fn resource() -> Resource {
    let gvk = Gvk::new(GROUP, "v1alpha1", "Plugin");
    let schema = Schema::from_crd(&document(), gvk).expect("the document below is a structural schema: see the test");
    let mut resource = Resource::cluster(GROUP, "v1alpha1", "Plugin", "plugins")
        .schema(schema)
        .stored_under("/registry/plugins.pilotis.dev/plugins/")
        .columns(vec![
            Column::computed("Worlds", |p, _| worlds(p).into()).about("What the component decides about."),
            Column::text_or("Revision", "status.revision", "").about("The revision that is active."),
            Column::text_or("State", "status.state", "Pending").about("Loading, Ready, Degraded, Failed or Disabled."),
            Column::counted("Calls", |p, _| int_at(p, "status.calls").into()).about("Calls since the host started."),
            Column::counted("Faults", |p, _| int_at(p, "status.faults").into())
                .about("Calls that trapped or missed a deadline."),
            Column::computed("P99", |p, _| p99(p).into()).about("Time that 99 of 100 calls stayed under."),
            Column::age(),
            Column::text("Source", "status.source")
                .wide()
                .about("Where the component came from."),
            Column::text("Digest", "status.digest")
                .wide()
                .about("The digest of the active component."),
        ])
        .prepare(prepare)
        .validate(validate)
        .status();
    // Validated by the schema below, like a custom kind.
    resource.checked = true;
    resource
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        new["status"] = json!({"state": "Pending"});
    }
    let spec = child(new, "spec");
    default(spec, "failurePolicy", "Fail");
    default(child(spec, "rollout"), "strategy", "Immediate");
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let source = &spec["source"];
    let given: Vec<&str> = ["embedded", "file", "oci"]
        .into_iter()
        .filter(|k| !source[*k].is_null())
        .collect();
    match given.as_slice() {
        [] => wrong.push(Cause::required(
            "spec.source",
            "one of embedded, file and oci says where the component is",
        )),
        [one] => {
            if text_at(source, one).is_empty() {
                wrong.push(Cause::required(format!("spec.source.{one}"), ""));
            }
        }
        _ => wrong.push(Cause::forbidden(
            "spec.source",
            "only one of embedded, file and oci may be given",
        )),
    }
    let digest = text_at(spec, "digest");
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if !digest.is_empty() && (hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()))
    {
        let says = "must be sha256: followed by 64 lower-case hexadecimal digits";
        wrong.push(Cause::invalid("spec.digest", format!("{digest:?}"), says));
    }
    for (i, rule) in list_at(spec, "grants.rules").iter().enumerate() {
        if list_at(rule, "verbs").is_empty() {
            wrong.push(Cause::required(
                format!("spec.grants.rules[{i}].verbs"),
                "verbs must contain at least one value",
            ));
        }
    }
}

fn worlds(plugin: &Value) -> String {
    list_at(plugin, "status.worlds")
        .iter()
        .map(plain)
        .collect::<Vec<_>>()
        .join(",")
}

/// From nanoseconds to what a person reads.
fn p99(plugin: &Value) -> String {
    match at(plugin, "status.p99Nanos").and_then(Value::as_u64) {
        None => String::new(),
        Some(n @ 0..1_000) => format!("{n}ns"),
        Some(n @ 1_000..1_000_000) => format!("{:.1}µs", n as f64 / 1e3),
        Some(n @ 1_000_000..1_000_000_000) => format!("{:.1}ms", n as f64 / 1e6),
        Some(n) => format!("{:.1}s", n as f64 / 1e9),
    }
}

/// The structural schema, as a CRD would carry it.
fn document() -> Value {
    let text = |about: &str| json!({"type": "string", "description": about});
    let count = |about: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": about});
    let texts = |about: &str| json!({"type": "array", "items": {"type": "string"}, "description": about});
    json!({
        "type": "object",
        "description": "A Wasm component that decides something in this cluster.",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["source"],
                "properties": {
                    "source": {
                        "type": "object",
                        "description": "Where the component is: exactly one of the three.",
                        "properties": {
                            "embedded": text("The name of a component built into the binary."),
                            "file": text("A path on the machine of the plugin host."),
                            "oci": text("A reference in an OCI registry."),
                        }
                    },
                    "digest": text("What the component's bytes must be: sha256:…"),
                    "signature": {
                        "type": "object",
                        "description": "Whose signature the component must carry.",
                        "properties": {
                            "policy": {"type": "string", "enum": ["None", "Required"]},
                            "keys": texts("Public keys, any of which will do."),
                        }
                    },
                    "config": {
                        "type": "object",
                        "description": "Given to the component; validated against the schema it declares.",
                        "x-kubernetes-preserve-unknown-fields": true
                    },
                    "grants": {
                        "type": "object",
                        "description": "What the component may do, compared with what it asks for.",
                        "properties": {
                            "rules": {
                                "type": "array",
                                "description": "RBAC rules of the plugin's own user.",
                                "items": {
                                    "type": "object",
                                    "required": ["verbs"],
                                    "properties": {
                                        "apiGroups": texts("API groups; the empty text is the core group."),
                                        "resources": texts("Resources, with subresources after a slash."),
                                        "resourceNames": texts("Only these objects."),
                                        "verbs": texts("What may be done."),
                                    }
                                }
                            },
                            "httpHosts": texts("Hosts that may be reached over HTTPS."),
                            "secrets": texts("Secrets, NAMESPACE/NAME, that may be used through a handle."),
                        }
                    },
                    "limits": {
                        "type": "object",
                        "description": "What one call and one instance may use.",
                        "properties": {
                            "memory": {"x-kubernetes-int-or-string": true, "description": "Linear memory of an instance."},
                            "cpuMillis": count("Guest CPU time of a call, in milliseconds."),
                            "wallMillis": count("Wall time of a call, in milliseconds."),
                            "hostCalls": count("Calls of a call into the host."),
                            "hostBytes": count("Bytes that a call moves across the wall."),
                        }
                    },
                    "rollout": {
                        "type": "object",
                        "description": "How a new revision takes over.",
                        "properties": {
                            "strategy": {"type": "string", "enum": ["Immediate", "Shadow", "Canary"]},
                            "percent": {"type": "integer", "minimum": 0, "maximum": 100},
                        }
                    },
                    "failurePolicy": {
                        "type": "string",
                        "enum": ["Fail", "Ignore"],
                        "description": "What a fault means for the request at hand."
                    },
                    "matchConditions": {
                        "type": "array",
                        "description": "CEL expressions that must all hold for a call to be made.",
                        "items": {
                            "type": "object",
                            "required": ["name", "expression"],
                            "properties": {"name": text("For messages."), "expression": text("CEL.")}
                        },
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"]
                    },
                    "order": {"type": "integer", "format": "int32", "description": "Lower ones are asked first."}
                }
            },
            "status": {
                "type": "object",
                "properties": {
                    "state": text("Pending, Loading, Ready, Degraded, Failed or Disabled."),
                    "revision": text("The revision that is active."),
                    "digest": text("The digest of the active component."),
                    "source": text("Where the active component came from."),
                    "previous": {
                        "type": "object",
                        "description": "The revision before, which a roll-back returns to.",
                        "properties": {"revision": text("Its number."), "digest": text("Its digest.")}
                    },
                    "worlds": texts("The worlds the component exports, as it was found to."),
                    "observedGeneration": count("The generation this status speaks of."),
                    "calls": count("Calls since the host started; computed when read."),
                    "faults": count("Faults since the host started; computed when read."),
                    "p50Nanos": count("Median time of a call; computed when read."),
                    "p99Nanos": count("Time that 99 of 100 calls stayed under; computed when read."),
                    "memoryBytes": count("Memory of all instances; computed when read."),
                    "breaker": text("Closed, Open or HalfOpen."),
                    "lastFault": {
                        "type": "object",
                        "properties": {
                            "time": {"type": "string", "format": "date-time"},
                            "message": text("What happened."),
                            "backtrace": text("The Wasm frames, innermost first.")
                        }
                    },
                    "conditions": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["type", "status"],
                            "properties": {
                                "type": text("What it is about."),
                                "status": text("True, False or Unknown."),
                                "reason": text("One word."),
                                "message": text("For people."),
                                "observedGeneration": {"type": "integer", "format": "int64"},
                                "lastTransitionTime": {"type": "string", "format": "date-time"}
                            }
                        },
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["type"]
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_structural_and_knows_the_spec() {
        let resource = resource();
        let good = json!({"apiVersion": "plugins.pilotis.dev/v1alpha1", "kind": "Plugin", "metadata": {"name": "a"},
            "spec": {"source": {"embedded": "scheduler-default"}, "config": {"anything": [1]}}});
        assert!(resource.schema.validate(&good).is_empty());
        let bad = json!({"spec": {"source": {"embedded": 1}, "failurePolicy": "Maybe"}});
        assert_eq!(resource.schema.validate(&bad).len(), 2);
        let decoded = resource.schema.decode(br#"{"spec":{"sauce":1}}"#).unwrap();
        assert_eq!(decoded.problems, ["unknown field \"spec.sauce\""]);
    }

    #[test]
    fn times_are_for_people() {
        let shown = |nanos: u64| p99(&json!({"status": {"p99Nanos": nanos}}));
        assert_eq!([shown(5), shown(1_400), shown(2_500_000)], ["5ns", "1.4µs", "2.5ms"]);
    }
}
