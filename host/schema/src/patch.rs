//! JSON patch, RFC 6902, with the complaints kube-apiserver gives.

use model::{Cause, Failure, Gvk};
use serde_json::Value;

/// More operations than this are refused, as kube-apiserver does.
const MOST_OPERATIONS: usize = 10_000;

/// Carries out the operations in order; on a failure `target` is as it was.
///
/// # Errors
/// [`Failure::BadRequest`] for a patch that is none, [`Failure::TooLarge`] for a very long one, and [`Failure::Invalid`] of
/// the object (`gvk`, `name`), with the operation's place in the patch, when a test fails or a path is not there.
pub fn json_patch(target: &mut Value, patch: &Value, gvk: &Gvk, name: &str) -> Result<(), Failure> {
    if patch.as_array().is_some_and(|list| list.len() > MOST_OPERATIONS) {
        return Err(Failure::TooLarge { limit: MOST_OPERATIONS });
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Failure::BadRequest(format!("error decoding patch: {error}")))?;
    // On a copy: the library's own way back forgets what a `move` took when a later operation fails.
    let mut changed = target.clone();
    json_patch::patch_unsafe(&mut changed, &operations).map_err(|error| {
        let operation = patch.get(error.operation).map(Value::to_string).unwrap_or_default();
        let cause = Cause::invalid(
            format!("patch[{}]", error.operation),
            operation,
            &error.kind.to_string(),
        );
        Failure::Invalid {
            kind: gvk.clone(),
            name: name.to_owned(),
            causes: vec![cause],
        }
    })?;
    *target = changed;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches_or_leaves_alone() {
        let mut value = json!({"a": [1, 2], "b": {"c/d": 1}});
        let patch = json!([
            {"op": "test", "path": "/a/0", "value": 1},
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "replace", "path": "/b/c~1d", "value": 2},
            {"op": "move", "from": "/b", "path": "/e"},
            {"op": "remove", "path": "/a/0"},
        ]);
        let gvk = Gvk::new("apps", "v1", "Deployment");
        json_patch(&mut value, &patch, &gvk, "web").unwrap();
        assert_eq!(value, json!({"a": [2, 3], "e": {"c/d": 2}}));

        let before = value.clone();
        let moved = json!([{"op": "move", "from": "/e", "path": "/g"}, {"op": "remove", "path": "/nothing"}]);
        json_patch(&mut value, &moved, &gvk, "web").unwrap_err();
        assert_eq!(value, before);
        let patch = json!([{"op": "remove", "path": "/a/0"}, {"op": "test", "path": "/e", "value": 1}]);
        let failure = json_patch(&mut value, &patch, &gvk, "web").unwrap_err().to_string();
        assert!(
            failure.contains("\"web\" is invalid: patch[1]: Invalid value: {\"op\":\"test\""),
            "{failure}"
        );
        assert_eq!(value, before);
        assert!(json_patch(&mut value, &json!({"op": "add"}), &gvk, "web").is_err());
    }
}
