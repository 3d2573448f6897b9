//! Custom kinds against the answers of apiextensions-apiserver: what objects become, and what is wrong with them.
//!
//! The cases are in `cases/customs.json` and `cases/definitions.json`; `go run ./custom` in `generate` fills in the answers.

use model::{Cause, CauseReason, Gvk};
use schema::{Definition, Schema};
use serde_json::Value;

/// A complaint as the cases spell it.
fn shown(cause: &Cause) -> String {
    let kind = match cause.reason {
        CauseReason::Required => "Required value",
        CauseReason::Invalid | CauseReason::TypeInvalid => "Invalid value",
        CauseReason::Duplicate => "Duplicate value",
        CauseReason::Forbidden => "Forbidden",
        CauseReason::NotSupported => "Unsupported value",
        CauseReason::TooLong => "Too long",
        CauseReason::TooMany => "Too many",
        CauseReason::Internal => "Internal error",
        other => other.as_str(),
    };
    format!("{kind} {}: {}", cause.field, cause.message)
}

fn compare(name: &str, causes: &[Cause], case: &Value, only: impl Fn(&str) -> bool, wrong: &mut Vec<String>) {
    // Syntax errors are told in ANTLR's words, which are not ours; a schema is printed as Go prints it.
    let blur = |text: &str| match text.split_once("Syntax error: ") {
        Some((before, _)) => before.to_owned(),
        None => match text.split_once("Invalid value: {\"") {
            Some((before, after)) if !after.starts_with("Rule") && after.contains("}: ") => {
                format!("{before}{}", after.rsplit_once("}: ").map_or("", |(_, says)| says))
            }
            _ => text.to_owned(),
        },
    };
    let mut ours: Vec<String> = causes
        .iter()
        .map(|cause| blur(&shown(cause)))
        .filter(|c| only(c))
        .collect();
    let theirs = case["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let mut theirs: Vec<String> = theirs.map(blur).filter(|c| only(c)).collect();
    ours.sort();
    theirs.sort();
    if ours != theirs {
        wrong.push(format!(
            "{name}\n  ours\n    {}\n  theirs\n    {}",
            ours.join("\n    "),
            theirs.join("\n    ")
        ));
    }
}

#[test]
fn objects_become_and_fail_as_in_kubernetes() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases/customs.json")).expect("the cases are JSON");
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap_or_default();
        let schema = Schema::from_crd(&case["schema"], Gvk::new("a", "v1", "K")).expect("the schema compiles");
        let ready = |object: &Value| {
            let decoded = schema
                .decode(object.to_string().as_bytes())
                .expect("the object decodes");
            let mut value = decoded.value;
            schema.default(&mut value);
            value
        };
        let object = ready(&case["object"]);
        if object["spec"] != case["result"]["spec"] {
            wrong.push(format!(
                "{name}: became {} and not {}",
                object["spec"], case["result"]["spec"]
            ));
        }
        let causes = match &case["old"] {
            Value::Null => schema.validate(&object),
            old => schema.validate_update(&object, &ready(old)),
        };
        compare(name, &causes, case, |_| true, &mut wrong);
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn schemas_are_refused_as_in_kubernetes() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases/definitions.json")).expect("the cases are JSON");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for case in &cases {
        let versions = case["crd"]["spec"]["versions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let [version] = versions else { continue };
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            continue;
        }
        seen += 1;
        let before = &case["old"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let definition = Definition {
            schema,
            has_status: version["subresources"]["status"].is_object(),
            unchanged: before == schema,
        };
        let causes = definition.check("spec.validation.openAPIV3Schema");
        let name = case["name"].as_str().unwrap_or_default();
        compare(name, &causes, case, |c| c.contains("openAPIV3Schema"), &mut wrong);
    }
    assert!(seen > 60);
    assert!(
        wrong.is_empty(),
        "{} of {seen} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
