//! JSON patch, RFC 6902, with the lenience and the complaints of kube-apiserver.

use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation,
};
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

/// Says in RFC 6902's terms what kube-apiserver takes beyond them: indices that count from a list's end; a member that an
/// object lacks, which is null to `test`, by which clients ask that nobody has set it yet, and is made by `replace`.
/// `None` if nothing is left to be done.
fn strict(mut operation: PatchOperation, target: &Value) -> Option<PatchOperation> {
    count_from_front(&mut operation, target);
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

fn count_from_front(operation: &mut PatchOperation, target: &Value) {
    match operation {
        PatchOperation::Add(AddOperation { path, .. }) => counted(path, target, true),
        PatchOperation::Copy(CopyOperation { from, path }) => {
            counted(from, target, false);
            counted(path, target, true);
        }
        PatchOperation::Move(MoveOperation { from, path }) => {
            counted(from, target, false);
            if counts_back(path) {
                // The list it goes to may be the one it is taken from, and is shorter then.
                let mut left = target.clone();
                let taken = PatchOperation::Remove(RemoveOperation { path: from.clone() });
                if json_patch::patch_unsafe(&mut left, &[taken]).is_ok() {
                    counted(path, &left, true);
                }
            }
        }
        PatchOperation::Remove(RemoveOperation { path })
        | PatchOperation::Replace(ReplaceOperation { path, .. })
        | PatchOperation::Test(TestOperation { path, .. }) => counted(path, target, false),
    }
}

/// The index that counts from the end: `-1` is the last.
fn back(token: &Token<'_>) -> Option<usize> {
    let back = token.encoded().strip_prefix('-')?.parse().ok()?;
    (back > 0).then_some(back)
}

fn counts_back(path: &Pointer) -> bool {
    path.tokens().any(|token| back(&token).is_some())
}

/// Has every index count from the front of the list it is of. `adds`: the last one is a place between, of which a list has
/// one more than elements, so that `-1` is behind the last. What is in no list, or not in it, stays as it is.
fn counted(path: &mut PointerBuf, target: &Value, adds: bool) {
    if !counts_back(path) {
        return;
    }
    let mut front = PointerBuf::new();
    let mut tokens = path.tokens().peekable();
    while let Some(token) = tokens.next() {
        let list = target.pointer(front.as_str()).and_then(Value::as_array);
        let places = list.map(|list| list.len() + usize::from(adds && tokens.peek().is_none()));
        match places.zip(back(&token)) {
            Some((places, back)) if back <= places => front.push_back(places - back),
            _ => front.push_back(token.into_owned()),
        }
    }
    *path = front;
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
    #[test]
    fn indices_count_from_the_end_too() {
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let patched = |operation: Value| {
            let mut value = json!({"list": [1, 2, 3], "deep": [{"in": ["a"]}], "-1": "a member"});
            json_patch(&mut value, &json!([operation]), &gvk, "a").map(|()| value)
        };
        for (operation, list) in [
            (
                json!({"op": "add", "path": "/list/-1", "value": 4}),
                json!([1, 2, 3, 4]),
            ),
            (
                json!({"op": "add", "path": "/list/-4", "value": 0}),
                json!([0, 1, 2, 3]),
            ),
            (
                json!({"op": "replace", "path": "/list/-1", "value": 4}),
                json!([1, 2, 4]),
            ),
            (json!({"op": "remove", "path": "/list/-3"}), json!([2, 3])),
            (json!({"op": "test", "path": "/list/-2", "value": 2}), json!([1, 2, 3])),
            (
                json!({"op": "copy", "from": "/list/-1", "path": "/list/-4"}),
                json!([3, 1, 2, 3]),
            ),
            (
                json!({"op": "move", "from": "/list/-3", "path": "/list/-1"}),
                json!([2, 3, 1]),
            ),
            (json!({"op": "add", "path": "/list/-", "value": 4}), json!([1, 2, 3, 4])),
        ] {
            assert_eq!(patched(operation.clone()).unwrap()["list"], list, "{operation}");
        }
        let deep = patched(json!({"op": "add", "path": "/deep/-1/in/-1", "value": "b"}));
        assert_eq!(deep.unwrap()["deep"], json!([{"in": ["a", "b"]}]));
        let member = patched(json!({"op": "remove", "path": "/-1"}));
        assert_eq!(member.unwrap().get("-1"), None);
        for beyond in [
            json!({"op": "add", "path": "/list/-5", "value": 0}),
            json!({"op": "remove", "path": "/list/-4"}),
            json!({"op": "test", "path": "/list/-4", "value": null}),
        ] {
            assert!(patched(beyond.clone()).is_err(), "{beyond}");
        }
    }
}
