//! Decoding of built-in and custom kinds: what comes out, and what is said of what does not fit.

use model::Gvk;
use schema::{Schema, Table};
use serde_json::{Value, json};

fn builtin(gvk: &str) -> Schema {
    Table::builtin()
        .schema(&Gvk::parse(gvk).unwrap())
        .unwrap_or_else(|| panic!("{gvk} is not in the table"))
}

fn decode(gvk: &str, value: &Value) -> (Value, Vec<String>) {
    let decoded = builtin(gvk).decode(value.to_string().as_bytes()).unwrap();
    (decoded.value, decoded.problems)
}

#[test]
fn a_deployment_comes_out_as_go_would_write_it() {
    let sent = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "creationTimestamp": null, "labels": {}, "annotations": {"a": ""}},
        "spec": {
            "replicas": 0, "paused": false, "minReadySeconds": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web", "image": "", "env": [{"name": "A", "value": ""}], "command": null,
                    "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "timeoutSeconds": 0},
                }]},
            },
        },
    });
    let (value, problems) = decode("apps/v1/Deployment", &sent);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        value,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "annotations": {"a": ""}},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{
                        "name": "web", "env": [{"name": "A"}],
                        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
                        "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
                    }]},
                },
            },
            "status": {},
        })
    );
}

#[test]
fn decoding_twice_changes_nothing() {
    for gvk in Table::builtin().kinds() {
        let schema = Table::builtin().schema(gvk).unwrap();
        let empty = json!({"apiVersion": gvk.api_version(), "kind": gvk.kind});
        let once = schema.decode(empty.to_string().as_bytes()).unwrap().value;
        let twice = schema.decode(once.to_string().as_bytes()).unwrap();
        assert_eq!(twice.value, once, "{gvk}");
        assert_eq!(twice.problems, Vec::<String>::new(), "{gvk}");
    }
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let body = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"1","x":"2"}},"spec":{"foo":1,"containers":[{"name":"a","imagee":"b","name":"c"}],"nodeName":"a","nodeName":"b"}}"#;
    let schema = builtin("v1/Pod");
    let decoded = schema.decode(body).unwrap();
    assert_eq!(
        decoded.problems,
        [
            r#"duplicate field "metadata.labels.x""#,
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.containers[0].imagee""#,
            r#"duplicate field "spec.containers[0].name""#,
            r#"duplicate field "spec.nodeName""#,
        ]
    );
    assert_eq!(
        decoded.value["spec"],
        json!({"containers": [{"name": "c", "resources": {}}], "nodeName": "b"})
    );
    assert_eq!(
        schema.strict(&decoded.problems[1..2]).to_string(),
        r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo""#
    );
}

#[test]
fn wrong_types_are_told_in_gos_words() {
    for (gvk, sent, says) in [
        (
            "apps/v1/Deployment",
            json!({"spec": {"replicas": "3"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps/v1/Deployment",
            json!({"spec": {"replicas": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "v1/Pod",
            json!({"spec": {"containers": [{"env": [{"value": 1}]}]}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            "v1/Pod",
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "v1/Pod",
            json!({"metadata": {"labels": {"a": true}}}),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "v1/Pod",
            json!({"spec": []}),
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            "v1/Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "v1/Secret",
            json!({"data": {"a": "!"}}),
            "illegal base64 data at input byte 0",
        ),
        (
            "v1/Pod",
            json!(3),
            "json: cannot unmarshal number into Go value of type v1.Pod",
        ),
    ] {
        let kind = gvk.rsplit('/').next().unwrap();
        let failure = builtin(gvk)
            .decode(sent.to_string().as_bytes())
            .unwrap_err()
            .to_string();
        assert_eq!(
            failure,
            format!("{kind} in version \"v1\" cannot be handled as a {kind}: {says}")
        );
    }
    assert!(
        builtin("v1/Pod")
            .decode(b"{")
            .unwrap_err()
            .to_string()
            .contains("json parse error: EOF while parsing")
    );
}

#[test]
fn declared_defaults_are_filled_in() {
    let mut value = json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}});
    builtin("v1/Service").default(&mut value);
    assert_eq!(
        value["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}])
    );
}

fn widget() -> Schema {
    let schema = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "maximum": 5, "default": 3},
                    "color": {"type": "string", "enum": ["red", "blue"], "maxLength": 4},
                    "name": {"type": "string", "pattern": "^[a-z]+$", "nullable": true},
                    "port": {"x-kubernetes-int-or-string": true},
                    "parts": {
                        "type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                        "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "n": {"type": "integer", "default": 1}}},
                    },
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "string"}}},
                    "more": {"type": "object", "additionalProperties": {"type": "number"}},
                    "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
                    "either": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
                },
            },
        },
    });
    Schema::from_crd(&schema, Gvk::new("example.com", "v1", "Widget")).unwrap()
}

#[test]
fn custom_kinds_are_pruned_and_defaulted() {
    let sent = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "creationTimestamp": null, "x": 1},
        "spec": {
            "color": "", "name": null, "gone": 1, "parts": [{"id": "a", "gone": 1}],
            "free": {"kept": {"deep": [1]}, "known": "k"}, "more": {"a": 1.5},
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "gone": 1}, "spec": {"kept": 1}},
        },
    });
    let decoded = widget().decode(sent.to_string().as_bytes()).unwrap();
    assert_eq!(
        decoded.problems,
        [
            r#"unknown field "metadata.x""#,
            r#"unknown field "spec.gone""#,
            r#"unknown field "spec.parts[0].gone""#,
            r#"unknown field "spec.template.metadata.gone""#,
        ]
    );
    let mut value = decoded.value;
    widget().default(&mut value);
    assert_eq!(
        value,
        json!({
            "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"},
            "spec": {
                "color": "", "name": null, "size": 3, "parts": [{"id": "a", "n": 1}],
                "free": {"kept": {"deep": [1]}, "known": "k"}, "more": {"a": 1.5},
                "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"kept": 1}},
            },
        })
    );
}

#[test]
fn custom_kinds_are_validated_in_kubes_words() {
    let says = |spec: Value| {
        let causes = widget().validate(&json!({"metadata": {"name": "a"}, "spec": spec}));
        causes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        says(
            json!({"size": 3, "color": "red", "name": null, "port": "http", "parts": [{"id": "a"}], "more": {"a": 1}})
        ),
        Vec::<String>::new()
    );
    for (spec, complaint) in [
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": "3"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({"size": 0}),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (
            json!({"size": 9}),
            "spec.size: Invalid value: 9: spec.size in body should be less than or equal to 5",
        ),
        (
            json!({"size": 1, "color": "x"}),
            "spec.color: Unsupported value: \"x\": supported values: \"red\", \"blue\"",
        ),
        (
            json!({"size": 1, "name": "A"}),
            "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'",
        ),
        (
            json!({"size": 1, "port": 1.5}),
            "spec.port: Invalid value: \"number\": spec.port in body must be of type integer,string: \"number\"",
        ),
        (json!({"size": 1, "parts": [{}]}), "spec.parts[0].id: Required value"),
        (
            json!({"size": 1, "parts": [{"id": "a"}, {"id": "a"}]}),
            "spec.parts[1]: Duplicate value: {\"id\":\"a\"}",
        ),
        (
            json!({"size": 1, "parts": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}),
            "spec.parts: Too many: 3: must have at most 2 items",
        ),
        (
            json!({"size": 1, "tags": ["a", "b", "a"]}),
            "spec.tags[2]: Duplicate value: \"a\"",
        ),
        (
            json!({"size": 1, "more": {"a": "x"}}),
            "spec.more.a: Invalid value: \"string\": spec.more.a in body must be of type number: \"string\"",
        ),
        (
            json!({"size": 1, "template": {"kind": "Pod"}}),
            "spec.template.apiVersion: Required value: must not be empty",
        ),
    ] {
        assert_eq!(says(spec), [complaint]);
    }
    assert_eq!(
        says(json!({"size": 1, "either": {}})),
        [
            "spec.either.a: Required value",
            "<nil>: Invalid value: \"\": \"spec.either\" must validate one and only one schema (oneOf). Found none valid",
        ]
    );
}

#[test]
fn a_schema_that_cannot_be_compiled_is_refused_with_the_place() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "strin"}, "b": {"type": "string", "pattern": "("}, "c": {"type": "array"}}});
    let failure = Schema::from_crd(&schema, Gvk::new("example.com", "v1", "Widget"))
        .unwrap_err()
        .to_string();
    for part in [
        "openAPIV3Schema.properties[a].type: ",
        "openAPIV3Schema.properties[b].pattern: ",
        "openAPIV3Schema.properties[c].items: Required value",
    ] {
        assert!(failure.contains(part), "{part} in {failure}");
    }
}
