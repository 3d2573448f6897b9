//! `x-kubernetes-validations`: rules of a definition, in CEL, and what is said where one does not hold.

use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use cel::{BUDGET, CALL_LIMIT, Env, Estimate, Fault, Program, Shape, Val};
use model::{Cause, CauseReason};
use serde_json::Value;

use crate::form::{Form, Node, Type};
use crate::rules::{child, same_item};
use crate::shape;

/// The rules at one node, and the mark of a node that has some below it.
#[derive(Debug, Default)]
pub(crate) struct Laws {
    /// `object`, `string` …
    kind: String,
    shape: Option<Arc<Shape>>,
    list: Vec<Law>,
}

/// One rule. Compiled when the first value comes: most definitions have more rules than objects.
#[derive(Debug)]
pub(crate) struct Law {
    rule: String,
    message: String,
    message_expression: String,
    reason: String,
    /// Below the node, normalised: `a.b[c]`.
    field: String,
    optional_old: bool,
    compiled: OnceLock<Result<Compiled, String>>,
}

#[derive(Debug)]
pub(crate) struct Compiled {
    pub rule: Program,
    pub message: Option<Program>,
}

/// What checking a definition wants to know of a rule.
pub(crate) struct Judged {
    pub rule: Result<(Estimate, bool), String>,
    /// `None`: there is no message expression, or the rule is wrong already.
    pub message: Option<Result<Estimate, String>>,
    /// How often a value of the shape fits into a request.
    pub most: u64,
}

impl Law {
    pub(crate) fn read(rule: &Value, field: String) -> Self {
        let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field,
            optional_old: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
            compiled: OnceLock::new(),
        }
    }

    fn env(&self, shape: &Arc<Shape>) -> Env {
        let env = Env::default().shaped("self", shape);
        if self.optional_old {
            env.shaped_optional("oldSelf", shape)
        } else {
            env.shaped("oldSelf", shape)
        }
    }

    /// Compiles it for the definition's own sake.
    pub(crate) fn judge(&self, shape: &Arc<Shape>) -> Judged {
        let env = self.env(shape);
        let most = shape.most_in_a_request();
        let program = match env.compile(&self.rule) {
            Err(refused) => Err(format!("compilation failed: {}", refused.0)),
            Ok(program) if *program.ty() != cel::Type::Bool => Err("cel expression must evaluate to a bool".into()),
            Ok(program) => Ok((env.estimate(&program), program.reads("oldSelf"))),
        };
        let message = (program.is_ok() && !self.message_expression.trim().is_empty()).then(|| {
            match env.compile(&self.message_expression) {
                Err(refused) => Err(format!("messageExpression compilation failed: {}", refused.0)),
                Ok(program) if *program.ty() != cel::Type::String => {
                    Err("messageExpression must evaluate to a string".into())
                }
                Ok(program) => Ok(env.estimate(&program)),
            }
        });
        Judged {
            rule: program,
            message,
            most,
        }
    }

    fn compiled(&self, shape: &Arc<Shape>) -> &Result<Compiled, String> {
        self.compiled.get_or_init(|| {
            let env = self.env(shape);
            let rule = env.compile(&self.rule).map_err(|refused| refused.0)?;
            // A message that does not compile was refused with its definition.
            let message = match self.message_expression.trim() {
                "" => None,
                _ => env.compile(&self.message_expression).ok(),
            };
            Ok(Compiled { rule, message })
        })
    }

    /// What stands for the rule in messages.
    fn shown(&self) -> &str {
        match self.message.trim() {
            "" => self.rule.trim(),
            message => message,
        }
    }

    fn told(&self) -> String {
        match self.message.trim() {
            "" => format!("failed rule: {}", self.rule.trim()),
            message => message.to_owned(),
        }
    }
}

/// Reads the rules of a node. `field_path` normalises a rule's `fieldPath`.
pub(crate) fn read(schema: &Value, root: bool, field_path: impl Fn(&str) -> Option<String>) -> Option<Laws> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array)?;
    if rules.is_empty() {
        return None;
    }
    let list = rules
        .iter()
        .filter(|rule| {
            rule.get("rule")
                .and_then(Value::as_str)
                .is_some_and(|text| !text.trim().is_empty())
        })
        .map(|rule| {
            let path = rule.get("fieldPath").and_then(Value::as_str).unwrap_or_default();
            let field = if path.is_empty() { None } else { field_path(path) };
            Law::read(rule, field.unwrap_or_default())
        })
        .collect();
    Some(Laws {
        kind: schema
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        shape: shape::of(schema, root, "selfType"),
        list,
    })
}

/// Marks every node that has a rule below it, so that checking walks nowhere else.
pub(crate) fn mark(form: &mut Form, root: u32) {
    if form.laws.is_empty() {
        return;
    }
    let mut marked = AHashMap::new();
    has_below(form, root, &mut marked);
    for (id, has) in marked {
        if has {
            form.laws.entry(id).or_default();
        }
    }
}

fn has_below(form: &Form, id: u32, seen: &mut AHashMap<u32, bool>) -> bool {
    if let Some(has) = seen.get(&id) {
        return *has;
    }
    seen.insert(id, false);
    let mut has = form.laws.contains_key(&id);
    match form.nodes[id as usize] {
        Node::Struct(s) => {
            for at in s.first..s.first + s.count {
                has |= has_below(form, form.fields[at as usize].node, seen);
            }
        }
        Node::Map { value, .. } => has |= has_below(form, value, seen),
        Node::List(list) => has |= has_below(form, list.item, seen),
        Node::Any | Node::Scalar(_) | Node::Union { .. } => {}
    }
    seen.insert(id, has);
    has
}

/// Runs the rules at a place and below it.
pub(crate) struct Court<'c> {
    pub causes: &'c mut Vec<Cause>,
    /// What is left of what all rules may cost; below 0 no more are run.
    pub budget: i64,
}

/// What stood at the place before.
#[derive(Clone, Copy)]
pub(crate) struct Before<'v> {
    /// For transition rules and ratcheting: the value this one came from.
    pub value: Option<&'v Value>,
    /// The nearest place above that can be compared is as it was.
    pub held: bool,
}

impl<'c> Court<'c> {
    pub(crate) fn new(causes: &'c mut Vec<Cause>) -> Self {
        Self {
            causes,
            budget: BUDGET as i64,
        }
    }

    pub(crate) fn check(&mut self, of: Type<'_>, value: &Value, before: Before<'_>, path: &str) {
        let Some(laws) = of.laws().filter(|_| !value.is_null() && self.budget >= 0) else {
            return;
        };
        if let Some(shape) = laws.shape.as_ref().filter(|_| !laws.list.is_empty()) {
            self.apply(laws, shape, value, before, path);
        }
        // What a comparison with the old value says counts for everything below that cannot be compared itself.
        let held = match before.value {
            Some(old) => old == value,
            None => before.held,
        };
        match (of.node(), value) {
            (Node::Struct(_) | Node::Map { .. }, Value::Object(members)) => {
                let keyed = matches!(of.node(), Node::Map { .. });
                for (key, value) in members {
                    let Some(below) = of.under(key) else { continue };
                    let path = if keyed {
                        format!("{path}[{key}]")
                    } else {
                        child(path, key)
                    };
                    let old = before.value.and_then(|old| old.get(key));
                    self.check(below, value, Before { value: old, held }, &path);
                }
            }
            (Node::List(_), Value::Array(list)) => {
                let Some(item) = of.item() else { return };
                for (at, value) in list.iter().enumerate() {
                    let old = before.value.and_then(|old| same_item(of, value, old));
                    self.check(item, value, Before { value: old, held }, &format!("{path}[{at}]"));
                }
            }
            _ => {}
        }
    }

    fn apply(&mut self, laws: &Laws, shape: &Arc<Shape>, value: &Value, before: Before<'_>, path: &str) {
        // Upstream has no path for the root.
        let place = if path.is_empty() { "<nil>" } else { path };
        let kind = format!("{:?}", laws.kind);
        let old = before.value.filter(|old| !old.is_null());
        let same = match before.value {
            Some(old) => old == value,
            None => before.held,
        };
        for law in &laws.list {
            let compiled = match law.compiled(shape) {
                Ok(compiled) => compiled,
                Err(error) => {
                    let says = format!("rule compile error: {error}");
                    self.causes.push(Cause::invalid(place, &kind, &says));
                    continue;
                }
            };
            let uses_old = compiled.rule.reads("oldSelf");
            if uses_old && old.is_none() && !law.optional_old {
                continue;
            }
            let (Ok(own), Ok(old)) = (
                Val::shaped(value, shape),
                old.map(|old| Val::shaped(old, shape)).transpose(),
            ) else {
                // A value of the wrong type was complained of already.
                return;
            };
            let old = match (law.optional_old, old) {
                (true, Some(old)) => Val::some(old),
                (true, None) => Val::Optional(None),
                (false, Some(old)) => old,
                (false, None) => Val::Null,
            };
            let variables = [("self", own), ("oldSelf", old)];
            let (result, cost) = compiled.rule.run(&variables, None, CALL_LIMIT);
            let spent = i64::try_from(cost).unwrap_or(i64::MAX);
            if spent > self.budget {
                let says =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                self.causes.push(Cause::invalid(place, &kind, says));
                self.budget = -1;
                return;
            }
            self.budget -= spent;
            match result {
                Ok(Val::Bool(true)) => continue,
                Ok(_) => {}
                Err(fault) => {
                    self.causes
                        .push(Cause::invalid(place, &kind, &failed(&fault, law.shown())));
                    if fault.over {
                        self.budget = -1;
                        return;
                    }
                    continue;
                }
            }
            let says = match self.message(compiled, &variables) {
                Some(message) => message,
                None => law.told(),
            };
            // What a rule says of the value alone is forgiven while the value stays.
            if same && !uses_old {
                continue;
            }
            let field = match law.field.as_str() {
                "" => place.to_owned(),
                field if path.is_empty() => field.to_owned(),
                field => format!("{path}.{field}"),
            };
            self.causes.push(complaint(field, &law.reason, value, &says));
        }
    }

    /// What the message expression says; `None` where it has nothing fit to say.
    fn message(&mut self, compiled: &Compiled, variables: &[(&str, Val<'_>)]) -> Option<String> {
        const LONGEST: usize = 5 * 1024;
        let (result, cost) = compiled.message.as_ref()?.run(
            &variables
                .iter()
                .map(|(name, val)| (*name, val.clone()))
                .collect::<Vec<_>>(),
            None,
            CALL_LIMIT,
        );
        self.budget -= i64::try_from(cost).unwrap_or(i64::MAX).min(self.budget);
        let Ok(Val::Text(text)) = result else { return None };
        let text = text.trim();
        (!text.is_empty() && text.len() <= LONGEST && !text.contains('\n')).then(|| text.to_owned())
    }
}

fn failed(fault: &Fault, shown: &str) -> String {
    let message = &fault.message;
    if fault.over {
        return format!(
            "'{message}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
        );
    }
    if message.starts_with("no such overload") {
        return format!(
            "'{message}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
        );
    }
    format!("{message} evaluating rule: {shown}")
}

fn complaint(field: String, reason: &str, value: &Value, says: &str) -> Cause {
    match reason {
        "FieldValueForbidden" => Cause::forbidden(field, says),
        "FieldValueRequired" => Cause::required(field, says),
        "FieldValueDuplicate" if value.is_object() || value.is_array() => Cause {
            reason: CauseReason::Duplicate,
            field,
            message: "Duplicate value".into(),
        },
        "FieldValueDuplicate" => Cause::duplicate(field, value),
        // Objects and lists are not repeated.
        _ if value.is_object() || value.is_array() => Cause {
            reason: CauseReason::Invalid,
            field,
            message: format!("Invalid value: {says}"),
        },
        _ => Cause::invalid(field, value, says),
    }
}
