//! A kind's schema, and what is done with objects by it.

use std::fmt;
use std::sync::Arc;

use model::{Cause, CauseReason, Failure, Gvk};
use serde_json::Value;

use crate::form::{AS_SENT, Form, Node, Type};
use crate::laws::{Before, Court};
use crate::{decode, json, rules};

/// One kind. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    form: Arc<Form>,
    root: u32,
    gvk: Gvk,
}

/// What came of decoding.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// As it would be stored: pruned and canonical, not yet defaulted.
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.replicas"`: refused ([`Schema::strict`]), warned of, or ignored,
    /// as the request's `fieldValidation` says.
    pub problems: Vec<String>,
}

impl Schema {
    pub(crate) fn new(form: Arc<Form>, root: u32, gvk: Gvk) -> Self {
        Self { form, root, gvk }
    }

    pub fn gvk(&self) -> &Gvk {
        &self.gvk
    }

    pub fn root(&self) -> Type<'_> {
        Type {
            form: &self.form,
            id: self.root,
        }
    }

    /// A request's body. Reads JSON, checks types, prunes, and writes everything in its canonical form.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] for what is not JSON or has the wrong type, in kube-apiserver's words with the field's path.
    pub fn decode(&self, body: &[u8]) -> Result<Decoded, Failure> {
        let (mut value, mut problems) =
            json::parse(body).map_err(|error| self.refused(format!("json parse error: {error}")))?;
        problems.extend(self.conform(&mut value)?);
        if problems.len() > 1 {
            json::in_order(body, &mut problems);
        }
        Ok(Decoded { value, problems })
    }

    /// Brings a value that was just patched into the form [`Schema::decode`] would have given it. Answers its problems.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] when a field has the wrong type.
    pub fn conform(&self, value: &mut Value) -> Result<Vec<String>, Failure> {
        let mut unknown = Vec::new();
        decode::conform(self.root(), value, &mut unknown).map_err(|mistake| self.refused(mistake))?;
        Ok(unknown)
    }

    /// The refusal that `fieldValidation=Strict` makes of problems.
    pub fn strict(&self, problems: &[String]) -> Failure {
        self.refused(format!("strict decoding error: {}", problems.join(", ")))
    }

    pub(crate) fn refused(&self, why: String) -> Failure {
        let Gvk { version, kind, .. } = &self.gvk;
        Failure::BadRequest(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    }

    /// Removes members that no schema knows of. Types are not looked at.
    pub fn prune(&self, value: &mut Value) {
        prune(self.root(), value);
    }

    /// Fills in the declared defaults, wherever the struct around them is there.
    pub fn default(&self, value: &mut Value) {
        default(self.root(), value);
    }

    /// What a custom kind's schema demands of the value (built-in kinds demand nothing here). Empty: it fits.
    pub fn validate(&self, value: &Value) -> Vec<Cause> {
        self.judge(value, None)
    }

    /// The same for a change: transition rules see the old value, and what stays as it was is not complained of.
    pub fn validate_update(&self, value: &Value, old: &Value) -> Vec<Cause> {
        self.judge(value, Some(old))
    }

    fn judge(&self, value: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let root = self.root();
        rules::check(root, value, old, "", &mut causes);
        // Lists that held an element twice before may go on doing so.
        let mut doubled = Vec::new();
        if let Some(old) = old {
            rules::check_lists(root, old, "", &mut doubled);
        }
        if doubled.is_empty() {
            rules::check_lists(root, value, "", &mut causes);
        }
        if root.laws().is_none() {
            return causes;
        }
        // Rules may rely on values being of their types and sizes.
        if causes.iter().any(|cause| blocks(cause.reason)) {
            let says = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            causes.push(Cause::invalid("<nil>", "null", says));
            return causes;
        }
        let before = Before {
            value: old,
            held: false,
        };
        Court::new(&mut causes).check(root, value, before, "");
        causes
    }
}

fn blocks(reason: CauseReason) -> bool {
    use CauseReason::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(reason, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.gvk)
    }
}

pub(crate) fn prune(of: Type<'_>, value: &mut Value) {
    match (of.node(), value) {
        (Node::Struct(shape), Value::Object(members)) => {
            if !shape.open {
                members.retain(|key, _| of.member(key).is_some());
            }
            for (key, value) in members.iter_mut() {
                if let Some(member) = of.member(key) {
                    prune(member.of(), value);
                }
            }
        }
        (Node::Map { .. }, Value::Object(members)) => {
            if let Some(values) = of.values() {
                members.values_mut().for_each(|value| prune(values, value));
            }
        }
        (Node::List(_), Value::Array(list)) => {
            if let Some(item) = of.item() {
                list.iter_mut().for_each(|value| prune(item, value));
            }
        }
        _ => {}
    }
}

/// Places without a type hold null like anything else.
fn takes_null(of: Type<'_>) -> bool {
    rules::nullable(of) || matches!(of.node(), Node::Any)
}

pub(crate) fn default(of: Type<'_>, value: &mut Value) {
    match (of.node(), value) {
        (Node::Struct(_), Value::Object(members)) => {
            for member in of.members() {
                let default_value = || member.default_json().and_then(|json| serde_json::from_str(json).ok());
                match members.get_mut(member.name()) {
                    // A null that the schema does not allow stands for "not given".
                    Some(Value::Null) if !rules::nullable(member.of()) => match default_value() {
                        Some(value) => {
                            members.insert(member.name().to_owned(), value);
                        }
                        None if member.has(AS_SENT) && !takes_null(member.of()) => {
                            members.remove(member.name());
                        }
                        None => {}
                    },
                    Some(_) => {}
                    None => {
                        if let Some(value) = default_value() {
                            members.insert(member.name().to_owned(), value);
                        }
                    }
                }
                if let Some(value) = members.get_mut(member.name()) {
                    default(member.of(), value);
                }
            }
        }
        (Node::Map { .. }, Value::Object(members)) => {
            if let Some(values) = of.values() {
                if of.rules().is_some() && !takes_null(values) {
                    members.retain(|_, value| !value.is_null());
                }
                members.values_mut().for_each(|value| default(values, value));
            }
        }
        (Node::List(_), Value::Array(list)) => {
            if let Some(item) = of.item() {
                list.iter_mut().for_each(|value| default(item, value));
            }
        }
        _ => {}
    }
}
