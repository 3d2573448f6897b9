//! Laws that hold for every object: of apply, of strategic merge, of decoding.

use model::{GroupResource, Gvk, ObjectKey};
use proptest::prelude::*;
use schema::{Schema, Table, apply, strategic};
use serde_json::{Map, Value, json};

fn deployment() -> Schema {
    Table::builtin().schema(&Gvk::new("apps", "v1", "Deployment")).unwrap()
}

fn object(members: Vec<(&str, Option<Value>)>) -> Value {
    Value::Object(
        members
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect::<Map<_, _>>(),
    )
}

fn word(of: &'static str) -> impl Strategy<Value = Value> {
    of.prop_map(Value::from)
}

/// Elements of a list merged by `key`, each key once. Never none: an empty merged list is nobody's, to Kubernetes as well,
/// so that laws about owners would not hold of it.
fn keyed(key: &'static str, element: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::vec(element, 1..4).prop_map(move |list| {
        let mut seen = Vec::new();
        let once = |element: &Value| {
            !seen.contains(&element[key]) && {
                seen.push(element[key].clone());
                true
            }
        };
        Value::Array(list.into_iter().filter(once).collect())
    })
}

fn container() -> impl Strategy<Value = Value> {
    let variable = ("[XYZ]", word("[12]")).prop_map(|(name, value)| json!({"name": name, "value": value}));
    let port = (80..83u16, prop::option::of(word("[a-c]")))
        .prop_map(|(port, name)| object(vec![("containerPort", Some(port.into())), ("name", name)]));
    (
        word("[a-d]"),
        prop::option::of(word("[12]")),
        prop::option::of(keyed("name", variable)),
        prop::option::of(keyed("containerPort", port)),
        prop::option::of(prop::collection::vec("[pq]", 0..3).prop_map(Value::from)),
    )
        .prop_map(|(name, image, env, ports, args)| {
            object(vec![
                ("name", Some(name)),
                ("image", image),
                ("env", env),
                ("ports", ports),
                ("args", args),
            ])
        })
}

/// What somebody may apply: any part of a deployment.
fn config() -> impl Strategy<Value = Value> {
    (
        prop::option::of(1..4i64),
        prop::option::of(keyed("name", container())),
        prop::option::of(prop::collection::btree_map("[a-c]", "[12]", 1..3)),
        prop::collection::btree_set("x/[abc]", 0..3),
    )
        .prop_map(|(replicas, containers, labels, finalizers)| {
            let template = containers.map(|list| json!({"spec": {"containers": list}}));
            let spec = object(vec![("replicas", replicas.map(Value::from)), ("template", template)]);
            let labels = labels.map(|labels| json!(labels));
            let finalizers = (!finalizers.is_empty()).then(|| json!(finalizers));
            let metadata = object(vec![
                ("name", Some("x".into())),
                ("labels", labels),
                ("finalizers", finalizers),
            ]);
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        })
}

fn applied(live: Option<&Value>, config: &Value, manager: &str) -> Value {
    let schema = deployment();
    let writer = apply::Writer {
        manager,
        subresource: "",
        time: "2026-01-02T03:04:05Z",
        resets: &["status"],
    };
    let key = ObjectKey::new(GroupResource::new("apps", "deployments"), "", "x");
    let mut object = apply::apply(&schema, live, config, writer, true, &key).unwrap();
    schema.conform(&mut object).unwrap();
    object
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["manager"].as_str())
        .collect()
}

/// `config` is in `object`: each scalar stands there, each list element under its name.
fn holds(object: &Value, config: &Value) -> bool {
    match (object, config) {
        (Value::Object(has), Value::Object(wants)) => {
            wants.iter().all(|(key, wants)| match has.get(key) {
                Some(has) => holds(has, wants),
                // What is empty is not written.
                None => wants.as_array().is_some_and(Vec::is_empty),
            })
        }
        (Value::Array(has), Value::Array(wants)) => wants.iter().all(|wants| has.iter().any(|has| holds(has, wants))),
        (has, wants) => has == wants,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn applying_again_changes_nothing(first in config(), other in config(), second in config()) {
        let live = applied(Some(&applied(None, &first, "a")), &other, "b");
        let once = applied(Some(&live), &second, "a");
        prop_assert_eq!(applied(Some(&once), &second, "a"), once);
    }

    #[test]
    fn what_is_applied_by_force_stands(first in config(), second in config()) {
        let object = applied(Some(&applied(None, &first, "a")), &second, "b");
        prop_assert!(holds(&object, &second), "{second} is not in {object}");
    }

    #[test]
    fn whoever_applies_nothing_leaves_nothing(config in config()) {
        let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}});
        let object = applied(Some(&applied(None, &config, "a")), &empty, "a");
        prop_assert!(managers(&object).is_empty());
        let spec = &object["spec"];
        for gone in [spec.get("replicas"), spec.pointer("/template/spec/containers/0"), object.pointer("/metadata/labels/a")] {
            prop_assert_eq!(gone, None, "of {}", object);
        }
    }

    #[test]
    fn one_who_leaves_takes_nothing_of_the_other(mine in config(), theirs in config()) {
        let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}});
        let both = applied(Some(&applied(None, &mine, "a")), &theirs, "b");
        let left = applied(Some(&both), &empty, "a");
        prop_assert!(holds(&left, &theirs), "{theirs} is not in {left}");
        prop_assert!(!managers(&left).contains(&"a"));
    }

    #[test]
    fn an_update_that_changes_nothing_owns_nothing(config in config()) {
        let live = applied(None, &config, "a");
        let mut same = live.clone();
        let writer = apply::Writer { manager: "u", subresource: "", time: "2026-01-02T03:04:06Z", resets: &[] };
        apply::track_update(&deployment(), Some(&live), &mut same, writer).unwrap();
        prop_assert_eq!(same, live);
    }

    #[test]
    fn merging_an_object_into_itself_changes_nothing(config in config()) {
        let schema = deployment();
        let mut object = config.clone();
        strategic::merge(&schema, &mut object, &config).unwrap();
        prop_assert_eq!(object, config);
    }

    #[test]
    fn merging_strategically_twice_is_merging_once(object in config(), patch in config()) {
        let schema = deployment();
        let mut once = object.clone();
        strategic::merge(&schema, &mut once, &patch).unwrap();
        let mut twice = once.clone();
        strategic::merge(&schema, &mut twice, &patch).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn any_bytes_are_answered(bytes in "[{}\\[\\],:\"a0 \\\\.-]{0,60}") {
        let _ = deployment().decode(bytes.as_bytes());
    }

    #[test]
    fn what_was_decoded_decodes_to_itself(config in config()) {
        let schema = deployment();
        let once = schema.decode(config.to_string().as_bytes()).unwrap();
        let twice = schema.decode(once.value.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&twice.value, &once.value);
        prop_assert!(twice.problems.is_empty());
    }
}
