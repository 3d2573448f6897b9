//! Strategic merge and server-side apply against the answers of Kubernetes' own code.
//!
//! The cases are in `cases/`, a line each; `go run ./oracle` in `generate` fills in the answers.

use model::{CauseReason, Failure, Gvk, ObjectKey};
use schema::{Schema, Table, apply, json_merge, strategic};
use serde_json::{Value, json};

fn cases(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("the cases are JSON")
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn schema_of(case: &Value) -> Schema {
    let gvk = Gvk::parse(text(case, "kind")).unwrap();
    match case.get("schema") {
        Some(schema) => Schema::from_crd(schema, gvk).unwrap(),
        None => Table::builtin().schema(&gvk).unwrap(),
    }
}

#[test]
fn strategic_merge_answers_as_kubernetes_does() {
    let cases = cases(include_str!("cases/strategic.json"));
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for case in &cases {
        let mut value = case["original"].clone();
        let merged = strategic::merge(&schema_of(case), &mut value, &case["patch"]);
        // Compared as decoded: upstream leaves some nulls and directives for the decoder to drop.
        let decoded = |value: &Value| {
            let mut value = value.clone();
            schema_of(case)
                .conform(&mut value)
                .map(|_| value)
                .map_err(|failure| failure.to_string())
        };
        match (merged, case.get("result")) {
            (Ok(()), Some(expected)) if decoded(&value) == decoded(expected) => {}
            (Err(Failure::BadRequest(_)), None) => {
                assert_eq!(value, case["original"], "{}", text(case, "name"))
            }
            (merged, expected) => wrong.push(format!(
                "{}: {}\n  with {}\n  gave {:?} {value}\n  not  {}",
                text(case, "name"),
                case["original"],
                case["patch"],
                merged,
                expected.unwrap_or(&Value::Null)
            )),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// As the oracle tidies: times differ from run to run, and entries stand in the order of their times.
fn tidy(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(Value::Array(entries)) = object.pointer_mut("/metadata/managedFields") {
        for entry in entries.iter_mut() {
            assert_eq!(text(entry, "time"), "2026-01-02T03:04:05Z", "an entry without its time");
            entry.as_object_mut().unwrap().remove("time");
        }
        let key = |e: &Value| {
            ["operation", "manager", "apiVersion", "subresource"]
                .map(|name| text(e, name).to_owned())
                .concat()
        };
        entries.sort_by_key(key);
    }
    object
}

/// What one step does to the live object.
fn tell(schema: &Schema, live: Option<&Value>, step: &Value) -> Result<Value, Failure> {
    let subresource = text(step, "subresource");
    let resets: &[&str] = if subresource == "status" {
        &["spec"]
    } else {
        &["status"]
    };
    let writer = apply::Writer {
        manager: text(step, "manager"),
        subresource,
        time: "2026-01-02T03:04:05Z",
        resets,
    };
    let key = ObjectKey::new(model::GroupResource::new("", "x"), "d", "x");
    if text(step, "verb") == "apply" {
        let force = step.get("force").and_then(Value::as_bool).unwrap_or(false);
        let mut object = apply::apply(schema, live, &step["object"], writer, force, &key)?;
        schema.conform(&mut object)?;
        return Ok(object);
    }
    let mut object = match step.get("merge") {
        Some(patch) => {
            let mut object = live.cloned().unwrap_or_else(|| json!({}));
            json_merge(&mut object, patch);
            object
        }
        None => step["object"].clone(),
    };
    schema.conform(&mut object)?;
    apply::track_update(schema, live, &mut object, writer)?;
    Ok(object)
}

/// A conflict is told line by line; upstream's order of managers' fields is that of a hash map.
fn lines(message: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = message.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn server_side_apply_answers_as_kubernetes_does() {
    let stories = cases(include_str!("cases/apply.json"));
    assert!(stories.len() > 50);
    let mut wrong = Vec::new();
    for story in &stories {
        let schema = schema_of(story);
        let mut live: Option<Value> = None;
        for (at, step) in story["steps"].as_array().unwrap().iter().enumerate() {
            let told = tell(&schema, live.as_ref(), step);
            let differs = match (&told, step.get("answer")) {
                (Ok(object), Some(answer)) => {
                    (tidy(object) != *answer).then(|| format!("gave {}\n  not  {answer}", tidy(object)))
                }
                (Err(failure), None) => {
                    let (ours, theirs) = (failure.to_string(), text(step, "error"));
                    let same = lines(&ours) == lines(theirs)
                        || matches!(failure, Failure::BadRequest(_)) && alike(&ours, theirs);
                    (!same).then(|| format!("said {ours}\n  not  {theirs}"))
                }
                (told, answer) => Some(format!("gave {told:?}\n  not  {answer:?} {}", text(step, "error"))),
            };
            if let Some(differs) = differs {
                wrong.push(format!(
                    "{}, step {at}: {}\n  {differs}",
                    text(story, "name"),
                    step.get("object").or(step.get("merge")).unwrap()
                ));
                break;
            }
            live = told.ok().or(live);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} stories differ:\n{}",
        wrong.len(),
        stories.len(),
        wrong[..wrong.len().min(6)].join("\n")
    );
}

/// Refusals of a malformed configuration agree in what comes last, the complaint itself.
fn alike(ours: &str, theirs: &str) -> bool {
    let end = |text: &str| text.rsplit(": ").next().unwrap_or_default().to_owned();
    end(ours) == end(theirs)
}

#[test]
fn a_conflict_names_each_field_and_owner() {
    let deployment = Table::builtin().schema(&Gvk::new("apps", "v1", "Deployment")).unwrap();
    let object = |replicas: u32| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replicas": replicas}});
    let step =
        |verb: &str, manager: &str, replicas| json!({"verb": verb, "manager": manager, "object": object(replicas)});
    let live = tell(&deployment, None, &step("update", "kubectl-client-side-apply", 1)).unwrap();
    let failure = tell(&deployment, Some(&live), &step("apply", "me", 2)).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let Failure::Conflict { causes, .. } = failure else {
        panic!("a conflict")
    };
    assert_eq!(causes[0].reason, CauseReason::FieldManagerConflict);
    assert_eq!(causes[0].field, ".spec.replicas");
    assert_eq!(
        causes[0].message,
        "conflict with \"kubectl-client-side-apply\" using apps/v1"
    );
}

#[test]
fn many_updaters_are_folded_into_one() {
    let config_map = Table::builtin().schema(&Gvk::new("", "v1", "ConfigMap")).unwrap();
    let mut live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"first": "1"}});
    let time = |n: usize| format!("2026-01-02T03:{n:02}:05Z");
    apply::track_update(
        &config_map,
        None,
        &mut live,
        apply::Writer {
            manager: "m0",
            subresource: "",
            time: &time(0),
            resets: &[],
        },
    )
    .unwrap();
    for n in 1..15 {
        let mut new = live.clone();
        new["data"][format!("k{n}")] = "1".into();
        let manager = format!("m{n}");
        let writer = apply::Writer {
            manager: &manager,
            subresource: "",
            time: &time(n),
            resets: &[],
        };
        apply::track_update(&config_map, Some(&live), &mut new, writer).unwrap();
        live = new;
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    let ancient = entries
        .iter()
        .find(|e| text(e, "manager") == "ancient-changes")
        .unwrap();
    let fields: Vec<&String> = ancient["fieldsV1"]["f:data"].as_object().unwrap().keys().collect();
    assert_eq!(fields, [".", "f:first", "f:k1", "f:k2", "f:k3", "f:k4", "f:k5"]);
}
