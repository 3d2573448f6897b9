//! JSON patch, RFC 6902, with the lenience and the complaints of kube-apiserver.

use json_patch::jsonptr::Pointer;
use json_patch::{AddOperation, PatchOperation, ReplaceOperation};
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
    for (nth, operation) in operations.0.into_iter().enumerate() {
        let Some(operation) = strict(operation, &changed) else {
            continue;
        };
        json_patch::patch_unsafe(&mut changed, &[operation]).map_err(|error| {
            let operation = patch.get(nth).map(Value::to_string).unwrap_or_default();
            let cause = Cause::invalid(format!("patch[{nth}]"), operation, &error.kind.to_string());
            Failure::Invalid {
                kind: gvk.clone(),
                name: name.to_owned(),
                causes: vec![cause],
            }
        })?;
    }
    *target = changed;
    Ok(())
}

/// Says in RFC 6902's terms what kube-apiserver takes beyond them: a member that an object lacks is null to `test`, by which
/// clients ask that nobody has set it yet, and is made by `replace`. `None` if nothing is left to be done.
fn strict(operation: PatchOperation, target: &Value) -> Option<PatchOperation> {
    match operation {
        PatchOperation::Test(test) if test.value.is_null() && lacks(target, &test.path) => None,
        PatchOperation::Replace(ReplaceOperation { path, value }) if lacks(target, &path) => {
            Some(PatchOperation::Add(AddOperation { path, value }))
        }
        other => Some(other),
    }
}

/// Whether the path ends with a member that its object has not.
fn lacks(target: &Value, path: &Pointer) -> bool {
    path.split_back().is_some_and(|(parent, member)| {
        let object = target.pointer(parent.as_str()).and_then(Value::as_object);
        object.is_some_and(|object| !object.contains_key(member.decoded().as_ref()))
    })
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

    #[test]
    fn a_missing_member_is_null_and_can_be_replaced() {
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let patched = |patch: Value| {
            let mut value = json!({"metadata": {"name": "a"}, "list": [1]});
            json_patch(&mut value, &patch, &gvk, "a").map(|()| value)
        };
        // How a client adds the first finalizer.
        let first = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["mine"]},
        ]);
        assert_eq!(patched(first).unwrap()["metadata"]["finalizers"], json!(["mine"]));
        let replaced = patched(json!([{"op": "replace", "path": "/metadata/a~1b", "value": 1}]));
        assert_eq!(replaced.unwrap()["metadata"], json!({"name": "a", "a/b": 1}));
        for refused in [
            json!({"op": "test", "path": "/metadata/name", "value": null}),
            json!({"op": "test", "path": "/metadata/labels", "value": {}}),
            json!({"op": "test", "path": "/metadata/labels/a", "value": null}),
            json!({"op": "test", "path": "/list/1", "value": null}),
            json!({"op": "replace", "path": "/metadata/labels/a", "value": "1"}),
            json!({"op": "replace", "path": "/list/1", "value": 2}),
        ] {
            assert!(patched(json!([refused])).is_err(), "{refused}");
        }
    }
}
