//! A policy and a binding, read from their objects, with every expression compiled.

use cel::{Env, Program, Type};
use model::Cause;
use serde_json::Value;

use crate::matching::Constraints;
use crate::shapes;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    Validate,
    Mutate,
}

/// An expression with its place in the policy, compiled or refused.
pub(crate) struct Expression {
    pub source: String,
    pub field: String,
    pub program: Result<Program, String>,
}

pub(crate) struct Validation {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    /// `Forbidden`, `Invalid` …; empty: `Invalid`.
    pub reason: String,
}

pub(crate) enum Mutation {
    /// A configuration that is applied.
    Apply(Expression),
    /// Steps of a JSON patch.
    Patch(Expression),
}

pub(crate) struct Policy {
    pub name: String,
    pub effect: Effect,
    /// What goes wrong refuses the request.
    pub fails: bool,
    /// Asked again when others have changed the object since.
    pub reinvoked: bool,
    pub constraints: Constraints,
    pub conditions: Vec<(String, Expression)>,
    pub variables: Vec<(String, Expression)>,
    /// `apiVersion` and kind of the parameters.
    pub param_kind: Option<(String, String)>,
    pub validations: Vec<Validation>,
    pub audits: Vec<(String, Expression)>,
    pub mutations: Vec<Mutation>,
}

pub(crate) struct Binding {
    pub name: String,
    pub policy: String,
    pub constraints: Constraints,
    /// `paramRef`, where there is one.
    pub param: Option<Value>,
    pub denies: bool,
    pub warns: bool,
    pub audits: bool,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

impl Binding {
    pub(crate) fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let has = |action: &str| list(&spec["validationActions"]).iter().any(|a| a == action);
        Self {
            name: text(&object["metadata"]["name"]),
            policy: text(&spec["policyName"]),
            constraints: Constraints::read(&spec["matchResources"]),
            param: spec["paramRef"].is_object().then(|| spec["paramRef"].clone()),
            denies: has("Deny"),
            warns: has("Warn"),
            audits: has("Audit"),
        }
    }
}

impl Expression {
    fn compile(env: &Env, source: &Value, field: String, fits: impl Fn(&Type) -> Option<String>) -> Self {
        let source = text(source);
        let program = match env.compile(&source) {
            Err(refused) => Err(format!("compilation failed: {}", refused.0)),
            Ok(program) => match fits(program.ty()) {
                None => Ok(program),
                Some(wanted) => Err(format!("must evaluate to {wanted} but got {}", program.ty())),
            },
        };
        Self { source, field, program }
    }
}

fn bool_only(of: &Type) -> Option<String> {
    (*of != Type::Bool).then(|| "bool".into())
}

fn text_only(of: &Type) -> Option<String> {
    (*of != Type::String).then(|| "string".into())
}

impl Policy {
    pub(crate) fn read(effect: Effect, object: &Value) -> Self {
        let spec = &object["spec"];
        let kind = &spec["paramKind"];
        let mut env = Env::default()
            .dynamic("object")
            .dynamic("oldObject")
            .shaped("namespaceObject", &shapes::namespace())
            .shaped("request", &shapes::request());
        if kind.is_object() {
            env = env.dynamic("params");
        }
        // Messages and annotations do not ask for permissions.
        let plain = env.clone();
        env = env
            .variable_of("authorizer", Type::object("kubernetes.authorization.Authorizer"))
            .variable_of(
                "authorizer.requestResource",
                Type::object("kubernetes.authorization.ResourceCheck"),
            );
        let conditions = list(&spec["matchConditions"]).iter().enumerate().map(|(i, condition)| {
            let field = format!("spec.matchConditions[{i}].expression");
            let expression = Expression::compile(&env, &condition["expression"], field, bool_only);
            (text(&condition["name"]), expression)
        });
        let conditions = conditions.collect();
        let (mut env, mut plain) = (env, plain);
        if effect == Effect::Mutate {
            env = env.patches();
        }
        let mut variables = Vec::new();
        for (i, variable) in list(&spec["variables"]).iter().enumerate() {
            let name = format!("variables.{}", text(&variable["name"]));
            let field = format!("spec.variables[{i}].expression");
            let expression = Expression::compile(&env, &variable["expression"], field, |_| None);
            let of = expression
                .program
                .as_ref()
                .map_or(Type::Dyn, |program| program.ty().clone());
            // A variable sees those before it, and all that follows sees it.
            env.set(&name, of.clone());
            plain.set(&name, of);
            variables.push((name, expression));
        }
        let validations = list(&spec["validations"]).iter().enumerate().map(|(i, validation)| {
            let at = |key: &str| format!("spec.validations[{i}].{key}");
            let message = &validation["messageExpression"];
            let has_message = message.as_str().is_some_and(|text| !text.trim().is_empty());
            Validation {
                expression: Expression::compile(&env, &validation["expression"], at("expression"), bool_only),
                message: text(&validation["message"]),
                message_expression: has_message
                    .then(|| Expression::compile(&plain, message, at("messageExpression"), text_only)),
                reason: text(&validation["reason"]),
            }
        });
        let validations = validations.collect();
        let audits = list(&spec["auditAnnotations"]).iter().enumerate().map(|(i, audit)| {
            let field = format!("spec.auditAnnotations[{i}].valueExpression");
            let fits =
                |of: &Type| (!matches!(of, Type::String | Type::Null)).then(|| "one of [string null_type]".into());
            let expression = Expression::compile(&plain, &audit["valueExpression"], field, fits);
            (text(&audit["key"]), expression)
        });
        let audits = audits.collect();
        let mutations = list(&spec["mutations"]).iter().enumerate().map(|(i, mutation)| {
            let field = |key: &str| format!("spec.mutations[{i}].{key}.expression");
            if mutation["patchType"] == "JSONPatch" {
                let source = &mutation["jsonPatch"]["expression"];
                let steps = Type::list(Type::object("JSONPatch"));
                let fits = |of: &Type| (*of != steps && *of != Type::list(Type::Dyn)).then(|| steps.to_string());
                return Mutation::Patch(Expression::compile(&env, source, field("jsonPatch"), fits));
            }
            let source = &mutation["applyConfiguration"]["expression"];
            let fits = |of: &Type| (*of != Type::object("Object")).then(|| "Object".to_owned());
            Mutation::Apply(Expression::compile(&env, source, field("applyConfiguration"), fits))
        });
        let mutations = mutations.collect();
        Self {
            name: text(&object["metadata"]["name"]),
            effect,
            fails: spec["failurePolicy"] != "Ignore",
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            constraints: Constraints::read(&spec["matchConstraints"]),
            conditions,
            variables,
            param_kind: kind
                .is_object()
                .then(|| (text(&kind["apiVersion"]), text(&kind["kind"]))),
            validations,
            audits,
            mutations,
        }
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let conditions = self.conditions.iter().map(|(_, e)| e);
        let variables = self.variables.iter().map(|(_, e)| e);
        let validations = self
            .validations
            .iter()
            .flat_map(|v| std::iter::once(&v.expression).chain(&v.message_expression));
        let audits = self.audits.iter().map(|(_, e)| e);
        let mutations = self.mutations.iter().map(|mutation| match mutation {
            Mutation::Apply(e) | Mutation::Patch(e) => e,
        });
        conditions
            .chain(variables)
            .chain(validations)
            .chain(audits)
            .chain(mutations)
    }

    /// What does not compile, and why.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = (&Expression, &String)> {
        self.expressions().filter_map(|e| Some((e, e.program.as_ref().err()?)))
    }

    /// What keeps the policy from being written. Expressions that `before` had as well are let be: what compiled once
    /// may be refused by a later compiler, and must not hold up other changes.
    pub(crate) fn faults(&self, before: Option<&Self>) -> Vec<Cause> {
        let had =
            |expression: &Expression| before.is_some_and(|b| b.expressions().any(|e| e.source == expression.source));
        self.complaints()
            .filter(|(expression, _)| !had(expression))
            .map(|(expression, why)| Cause::invalid(&expression.field, Value::from(expression.source.as_str()), why))
            .collect()
    }
}
