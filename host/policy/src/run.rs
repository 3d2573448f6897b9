//! Asking the policies about a request.

use std::cell::RefCell;
use std::sync::Arc;

use cel::{BUDGET, CALL_LIMIT, Check, Fault, MATCH_BUDGET, Val};
use client::{Cluster, Collection, ListOptions, ReadVersion, Target};
use model::{Failure, Gvr, Kind, Labels, Object, ObjectKey};
use registry::gates::{Notes, Request};
use serde_json::{Value, json};

use crate::face::{Face, kinds_of};
use crate::judge::Judge;
use crate::matching::labels_of;
use crate::policy::{Expression, Mutation, Policy};
use crate::{Binding, Bound, Effect, Means, Policies, caller, shapes};

/// Longer values of audit annotations are cut.
const LONGEST_ANNOTATION: usize = 10 * 1024;
const LONGEST_MESSAGE: usize = 5 * 1024;

/// A policy, the binding that calls for it, and the parameter it is called with.
struct Invocation {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    param: Option<Arc<Object>>,
    /// Among those of the case.
    face: usize,
}

/// What is the same for every policy of one request.
struct Case<'c> {
    means: Arc<Means>,
    request: &'c Request<'c>,
    /// Those that policies know the request by, each once.
    faces: Vec<Face<'c>>,
    namespace: Option<Value>,
}

/// A refusal: the message, and the reason it is given under.
struct Denial {
    message: String,
    reason: String,
}

impl Policies {
    pub(crate) async fn review(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        notes: &mut Notes,
    ) -> Result<(), Failure> {
        let mut denials = Vec::new();
        let Some((case, invocations)) = self.prepare(Effect::Validate, request, object, &mut denials).await? else {
            return Ok(());
        };
        let mut seen = Vec::new();
        for face in &case.faces {
            seen.push(match object {
                Some(object) => face.seen(&case.means.registry, object).await.map(Some),
                None => Ok(None),
            });
        }
        for invocation in &invocations {
            match &seen[invocation.face] {
                Ok(object) => case.review(invocation, object.as_deref(), notes, &mut denials),
                Err(failure) => denials.extend(unconverted(invocation, failure)),
            }
        }
        match denials.into_iter().next() {
            Some(denial) => Err(refusal(request, denial)),
            None => Ok(()),
        }
    }

    pub(crate) async fn change(&self, request: &Request<'_>, object: Option<&mut Value>) -> Result<(), Failure> {
        let Some(object) = object else { return Ok(()) };
        let mut denials = Vec::new();
        let prepared = self
            .prepare(Effect::Mutate, request, Some(object), &mut denials)
            .await?;
        if let Some((case, invocations)) = prepared {
            // Those that want to be are asked once more when a later one has changed the object.
            let mut again = Vec::new();
            for invocation in &invocations {
                let changed = case.change(invocation, object, &mut denials).await;
                if changed {
                    let earlier = invocations.iter().take_while(|other| !std::ptr::eq(*other, invocation));
                    again = earlier.filter(|other| other.policy.reinvoked).collect();
                }
            }
            for invocation in again {
                case.change(invocation, object, &mut denials).await;
            }
        }
        match denials.into_iter().next() {
            Some(denial) => Err(refusal(request, denial)),
            None => Ok(()),
        }
    }

    /// The policies that apply, with their parameters. What cannot be set up goes to `denials`.
    async fn prepare<'c>(
        &'c self,
        effect: Effect,
        request: &'c Request<'c>,
        object: Option<&Value>,
        denials: &mut Vec<Denial>,
    ) -> Result<Option<(Case<'c>, Vec<Invocation>)>, Failure> {
        let current = self.current.load_full();
        let of = registry::gates::Interest {
            operation: request.operation,
            kind: request.kind,
            subresource: &request.target.subresource,
            namespace: &request.target.namespace,
        };
        let Some(means) = self.means.get().filter(|_| self.concerns(&of)) else {
            return Ok(None);
        };
        // Nothing passes unasked while the process goes down.
        let means = means
            .upgrade()
            .ok_or_else(|| Failure::Timeout("the server is stopping".into()))?;
        let bound: Vec<&Bound> = current
            .iter()
            .filter(|b| b.policy.effect == effect && !b.bindings.is_empty() && b.policy.constraints.may_match(&of))
            .collect();
        if bound.is_empty() {
            return Ok(None);
        }
        let is_namespace = request.kind.gvk.group.is_empty() && request.kind.plural == "namespaces";
        let namespace = match request.target.namespace.as_str() {
            "" => None,
            _ if is_namespace => None,
            name => namespace_of(&means, name).await?,
        };
        let own = [object.map(labels_of), request.old.map(labels_of)];
        // A namespace is chosen by its own labels.
        let around: Option<Labels> = match &namespace {
            Some(namespace) => Some(labels_of(namespace)),
            None if is_namespace => own[0].clone().or_else(|| own[1].clone()),
            None => None,
        };
        let served = means.registry.kinds();
        let kinds = kinds_of(request, &served);
        let mut case = Case {
            means,
            request,
            faces: Vec::new(),
            namespace,
        };
        let mut invocations = Vec::new();
        for Bound { policy, bindings } in bound {
            let complain = |denials: &mut Vec<Denial>, binding: Option<&Binding>, failure: &Failure| {
                if policy.fails {
                    let what = if binding.is_some() { "binding" } else { "policy" };
                    denials.push(denied(
                        policy,
                        binding,
                        &format!("failed to configure {what}: {failure}"),
                        "",
                    ));
                }
            };
            let matches = |constraints: &crate::matching::Constraints| {
                constraints.matches(request.operation, &kinds, request.target, around.as_ref(), &own)
            };
            let face = match matches(&policy.constraints) {
                Ok(Some(kind)) => case.face(kind).await,
                Ok(None) => continue,
                Err(failure) => Err(failure),
            };
            let face = match face {
                Ok(face) => face,
                Err(failure) => {
                    complain(denials, None, &failure);
                    continue;
                }
            };
            for binding in bindings {
                match matches(&binding.constraints) {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(failure) => {
                        complain(denials, Some(binding), &failure);
                        continue;
                    }
                }
                match params(&case.means, policy, binding, &request.target.namespace).await {
                    Ok(params) => invocations.extend(params.into_iter().map(|param| Invocation {
                        policy: policy.clone(),
                        binding: binding.clone(),
                        param,
                        face,
                    })),
                    Err(failure) => complain(denials, Some(binding), &failure),
                }
            }
        }
        Ok(Some((case, invocations)))
    }
}

async fn namespace_of(means: &Means, name: &str) -> Result<Option<Value>, Failure> {
    let target = Target::new(Gvr::new("", "v1", "namespaces"), "", name);
    let found = client::find(&means.registry, &caller(), &target).await?;
    Ok(found.map(|namespace| namespace.value()))
}

/// The parameters of a binding: one without where it has none, none where that lets the request pass.
async fn params(
    means: &Means,
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Option<Arc<Object>>>, Failure> {
    let Some((api_version, kind_name)) = &policy.param_kind else {
        return Ok(vec![None]);
    };
    let Some(param) = &binding.param else {
        // A policy with parameters whose binding names none is asked with null.
        return Ok(vec![None]);
    };
    let kinds = means.registry.kinds();
    let kind = kinds
        .iter()
        .find(|kind| kind.gvk.kind == *kind_name && kind.gvk.api_version() == *api_version);
    let kind =
        kind.ok_or_else(|| Failure::BadRequest(format!("paramKind kind `{api_version}, Kind={kind_name}` not known")))?;
    let named = param["namespace"].as_str().unwrap_or_default();
    let within = match (kind.namespaced(), named) {
        (false, _) => "",
        (true, "") if namespace.is_empty() => {
            let says = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(Failure::BadRequest(says.into()));
        }
        (true, "") => namespace,
        (true, named) => named,
    };
    let allowed = param["parameterNotFoundAction"] == "Allow";
    let found = match param["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            let target = Target::new(kind.gvr(), within, name);
            match means.registry.get(&caller(), &target, ReadVersion::Any).await {
                Ok(object) => vec![Some(object)],
                Err(Failure::NotFound(_)) => Vec::new(),
                Err(failure) => return Err(failure),
            }
        }
        None => {
            let selector = model::Selector::from_json(&param["selector"])?;
            let of = Collection {
                gvr: kind.gvr(),
                namespace: kind.namespaced().then(|| within.to_owned()),
            };
            let options = ListOptions {
                version: ReadVersion::Any,
                ..ListOptions::default()
            };
            let list = means.registry.list(&caller(), &of, &options).await?;
            let chosen = list.items.into_iter().filter(|object| selector.matches(&object.labels));
            chosen.map(Some).collect()
        }
    };
    if found.is_empty() && !allowed {
        let says = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(Failure::BadRequest(says.into()));
    }
    Ok(found)
}

fn denied(policy: &Policy, binding: Option<&Binding>, message: &str, reason: &str) -> Denial {
    let (kind, verb) = match policy.effect {
        Effect::Validate => ("ValidatingAdmissionPolicy", "denied request"),
        Effect::Mutate => ("MutatingAdmissionPolicy", "denied request"),
    };
    let by = match binding {
        Some(binding) => format!("{kind} '{}' with binding '{}' {verb}", policy.name, binding.name),
        None => format!("{kind} '{}' {verb}", policy.name),
    };
    Denial {
        message: format!("{by}: {message}"),
        reason: reason.to_owned(),
    }
}

/// A policy is not asked about an object that cannot be had in the version it speaks of.
fn unconverted(invocation: &Invocation, failure: &Failure) -> Option<Denial> {
    let Invocation { policy, binding, .. } = invocation;
    let says = format!("failed to convert object version: {failure}");
    policy.fails.then(|| denied(policy, Some(binding), &says, ""))
}

fn refusal(request: &Request<'_>, denial: Denial) -> Failure {
    let code = match denial.reason.as_str() {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let resource = request.kind.group_resource();
    let name = &request.target.name;
    let reason = match name.as_str() {
        "" => format!("{resource} is forbidden: {}", denial.message),
        name => format!("{resource} \"{name}\" is forbidden: {}", denial.message),
    };
    Failure::Denied {
        by: "admission policy".into(),
        object: ObjectKey::new(resource, &request.target.namespace, name),
        reason,
        code,
    }
}

/// One call of a policy: its variables are worked out when first needed, and everything draws on one budget.
struct Call<'a> {
    policy: &'a Policy,
    base: Vec<(&'a str, Val<'a>)>,
    known: RefCell<Vec<(&'a str, Val<'a>)>>,
    judge: &'a Judge<'a>,
}

impl<'a> Call<'a> {
    fn run(&self, expression: &'a Expression, budget: &mut u64) -> Result<Val<'a>, Fault> {
        let program = expression.program.as_ref().map_err(|error| Fault::new(error.clone()))?;
        for (name, variable) in &self.policy.variables {
            let wanted = program.reads(name) && !self.known.borrow().iter().any(|(known, _)| known == name);
            if wanted {
                let val = self.run(variable, budget).unwrap_or_else(|fault| {
                    let bare = name.strip_prefix("variables.").unwrap_or(name);
                    let says = format!("composited variable {bare:?} fails to evaluate: {}", fault.message);
                    Val::Failed(Arc::new(Fault::new(says)))
                });
                self.known.borrow_mut().push((name, val));
            }
        }
        let mut variables = self.base.clone();
        variables.extend(self.known.borrow().iter().cloned());
        let (result, cost) = program.run(&variables, Some(self.judge), CALL_LIMIT.min(*budget));
        *budget = budget.saturating_sub(cost);
        result.map_err(|fault| match fault.over {
            true if *budget == 0 => Fault::new(
                "validation failed due to running out of cost budget, no further validation rules will be run",
            ),
            _ => Fault::new(format!(
                "expression '{}' resulted in error: {}",
                expression.source, fault.message
            )),
        })
    }
}

impl Case<'_> {
    /// The place of the face with this kind, which is made where it is the first.
    async fn face(&mut self, kind: &Kind) -> Result<usize, Failure> {
        let gvr = kind.gvr();
        if let Some(at) = self.faces.iter().position(|face| face.gvr == gvr) {
            return Ok(at);
        }
        let face = Face::of(&self.means.registry, self.request, kind).await?;
        self.faces.push(face);
        Ok(self.faces.len() - 1)
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            means: &self.means,
            caller: self.request.caller,
        }
    }

    fn call<'a>(
        &'a self,
        Invocation { policy, face, .. }: &'a Invocation,
        object: Option<&'a Value>,
        param: Option<&'a Value>,
        judge: &'a Judge<'a>,
        shapes: &'a [Arc<cel::Shape>; 2],
    ) -> Result<Call<'a>, Fault> {
        let face = &self.faces[*face];
        let json = |value: Option<&'a Value>| value.map_or(Val::Null, Val::json);
        let target = self.request.target;
        let check = Check {
            group: target.gvr.group.to_string(),
            resource: target.gvr.resource.to_string(),
            subresource: target.subresource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            ..Check::default()
        };
        let namespace = match &self.namespace {
            Some(namespace) => Val::shaped(namespace, &shapes[1])?,
            None => Val::Null,
        };
        let base = vec![
            ("object", json(object)),
            ("oldObject", json(face.old.as_deref())),
            ("request", Val::shaped(&face.document, &shapes[0])?),
            ("namespaceObject", namespace),
            ("params", json(param)),
            ("authorizer", Val::authorizer()),
            ("authorizer.requestResource", Val::resource_check(check)),
        ];
        Ok(Call {
            policy,
            base,
            known: RefCell::default(),
            judge,
        })
    }

    /// Whether all match conditions hold. One that does not holds it even where others fail.
    fn applies<'a>(&self, call: &Call<'a>, policy: &'a Policy) -> Result<bool, String> {
        let mut budget = MATCH_BUDGET;
        let mut failed: Option<String> = None;
        for (name, condition) in &policy.conditions {
            match call.run(condition, &mut budget) {
                Ok(Val::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(fault) => {
                    failed.get_or_insert_with(|| format!("matchCondition {name:?}: {}", fault.message));
                }
            }
        }
        failed.map_or(Ok(true), Err)
    }

    fn review(&self, invocation: &Invocation, object: Option<&Value>, notes: &mut Notes, denials: &mut Vec<Denial>) {
        let Invocation {
            policy, binding, param, ..
        } = invocation;
        let shapes = [shapes::request(), shapes::namespace()];
        let param = param.as_ref().map(|param| param.value());
        let judge = self.judge();
        let call = self.call(invocation, object, param.as_ref(), &judge, &shapes);
        let applies = match &call {
            Ok(call) => self.applies(call, policy),
            Err(fault) => Err(fault.message.clone()),
        };
        let call = match (applies, call) {
            (Ok(true), Ok(call)) => call,
            (Ok(_), _) => return,
            (Err(message), _) => {
                if policy.fails {
                    self.decide(invocation, 0, &message, "", notes, denials);
                }
                return;
            }
        };
        let mut budget = BUDGET;
        for (i, validation) in policy.validations.iter().enumerate() {
            match call.run(&validation.expression, &mut budget) {
                Ok(Val::Bool(true)) => {}
                Ok(_) => {
                    let said = validation.message_expression.as_ref();
                    let said = said.and_then(|expression| match call.run(expression, &mut budget) {
                        Ok(Val::Text(text)) => Some(text.trim().to_owned()),
                        _ => None,
                    });
                    let fit = |text: &String| !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
                    let message = match (said.filter(fit), validation.message.trim()) {
                        (Some(said), _) => said,
                        (None, "") => format!("failed expression: {}", validation.expression.source.trim()),
                        (None, message) => message.to_owned(),
                    };
                    self.decide(invocation, i, &message, &validation.reason, notes, denials);
                }
                Err(fault) if policy.fails => {
                    self.decide(invocation, i, &fault.message, "", notes, denials);
                }
                Err(_) => {}
            }
        }
        let mut budget = BUDGET;
        for (key, expression) in &policy.audits {
            match call.run(expression, &mut budget) {
                Ok(Val::Text(text)) if !text.trim().is_empty() => {
                    let mut value = text.trim().to_owned();
                    let mut end = LONGEST_ANNOTATION.min(value.len());
                    while !value.is_char_boundary(end) {
                        end -= 1;
                    }
                    value.truncate(end);
                    let had = notes.annotations.entry(format!("{}/{key}", policy.name)).or_default();
                    if had.is_empty() {
                        *had = value;
                    } else if *had != value {
                        had.push_str(&format!(", {value}"));
                    }
                }
                Ok(_) => {}
                Err(fault) if policy.fails => {
                    denials.push(denied(policy, Some(binding), &fault.message, ""));
                }
                Err(_) => {}
            }
        }
    }

    /// Does what the binding wants done about a validation that did not hold.
    fn decide(
        &self,
        invocation: &Invocation,
        index: usize,
        message: &str,
        reason: &str,
        notes: &mut Notes,
        denials: &mut Vec<Denial>,
    ) {
        let Invocation { policy, binding, .. } = invocation;
        if binding.denies {
            denials.push(denied(policy, Some(binding), message, reason));
        }
        if binding.audits {
            let actions: Vec<&str> = [
                (binding.denies, "Deny"),
                (binding.warns, "Warn"),
                (binding.audits, "Audit"),
            ]
            .into_iter()
            .filter_map(|(set, action)| set.then_some(action))
            .collect();
            let value = json!([{"message": message, "policy": policy.name, "binding": binding.name,
                "expressionIndex": index, "validationActions": actions}]);
            let key = "validation.policy.admission.k8s.io/validation_failure";
            notes.annotations.insert(key.into(), value.to_string());
        }
        if binding.warns {
            notes.warnings.push(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                policy.name, binding.name
            ));
        }
    }

    /// Whether the object is another one now.
    async fn change(&self, invocation: &Invocation, object: &mut Value, denials: &mut Vec<Denial>) -> bool {
        let (registry, face) = (&self.means.registry, &self.faces[invocation.face]);
        let changed = match face.seen(registry, object).await {
            Ok(seen) => match self.changed(invocation, &seen, denials) {
                Some(changed) => face.given_back(registry, changed).await,
                None => return false,
            },
            Err(failure) => Err(failure),
        };
        match changed {
            Ok(changed) => {
                *object = changed;
                true
            }
            Err(failure) => {
                denials.extend(unconverted(invocation, &failure));
                false
            }
        }
    }

    /// What the mutations make of the object, if it is another one.
    fn changed(&self, invocation: &Invocation, before: &Value, denials: &mut Vec<Denial>) -> Option<Value> {
        let Invocation {
            policy, binding, param, ..
        } = invocation;
        let param = param.as_ref().map(|param| param.value());
        let mut object = before.clone();
        // Each mutation sees what the one before it made.
        for at in 0..policy.mutations.len() {
            match self.mutation(invocation, at, &object, param.as_ref()) {
                Ok(Some(changed)) => object = changed,
                Ok(None) => {}
                Err(message) => {
                    if policy.fails {
                        denials.push(denied(policy, Some(binding), &message, ""));
                    }
                    break;
                }
            }
        }
        (object != *before).then_some(object)
    }

    /// What one mutation makes of the object; `None`: the policy does not apply.
    fn mutation(
        &self,
        invocation: &Invocation,
        at: usize,
        object: &Value,
        param: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let (policy, face) = (&*invocation.policy, &self.faces[invocation.face]);
        let shapes = [shapes::request(), shapes::namespace()];
        let judge = self.judge();
        let call = self
            .call(invocation, Some(object), param, &judge, &shapes)
            .map_err(|fault| fault.message)?;
        // Asked once, of the object as it came to the policy.
        if at == 0 && !self.applies(&call, policy)? {
            return Ok(None);
        }
        let mut budget = BUDGET;
        let mut run = |expression| call.run(expression, &mut budget).map_err(|fault| fault.message);
        match &policy.mutations[at] {
            Mutation::Apply(expression) => {
                let made = run(expression)?;
                named_by_path(&made, "Object")?;
                let mut config = made.to_json().map_err(|fault| fault.message)?;
                let gvk = &face.gvk;
                config["apiVersion"] = gvk.api_version().into();
                config["kind"] = gvk.kind.as_str().into();
                let resource = self.means.registry.resource(&face.gvr).ok_or_else(|| {
                    format!("Resource kind {gvk} not found. There can be a delay between when CustomResourceDefinitions are created and when they are available.")
                })?;
                let merged = schema::apply::merge_into(&resource.schema, object, &config);
                merged.map(Some).map_err(|why| format!("error applying patch: {why}"))
            }
            Mutation::Patch(expression) => {
                let Val::List(steps) = run(expression)? else {
                    return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
                };
                let mut patch = Vec::new();
                for step in steps.entries() {
                    let Val::Struct(_, fields) = &step else {
                        return Err(
                            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into(),
                        );
                    };
                    if let Some(value @ Val::Struct(name, _)) = fields.get("value") {
                        named_by_path(value, name)?;
                    }
                    patch.push(step.to_json().map_err(|fault| fault.message)?);
                }
                let mut changed = object.clone();
                for step in patch {
                    // A test that does not hold leaves the object as it is.
                    let test = step["op"] == "test";
                    match schema::json_patch(&mut changed, &json!([step]), &face.gvk, "") {
                        Ok(()) => {}
                        Err(_) if test => return Ok(Some(object.clone())),
                        Err(failure) => return Err(format!("JSON Patch: {failure}")),
                    }
                }
                Ok(Some(changed))
            }
        }
    }
}

/// `Object.spec{…}` stands under `spec`, and nowhere else.
fn named_by_path(val: &Val<'_>, path: &str) -> Result<(), String> {
    match val {
        Val::Struct(name, fields) => {
            if **name != *path {
                return Err(format!(
                    "type mismatch: unexpected type name {name:?}, expected {path:?}, which matches field name path from root Object type"
                ));
            }
            fields
                .iter()
                .try_for_each(|(field, val)| named_by_path(val, &format!("{path}.{field}")))
        }
        Val::List(list) => {
            // Elements are named like the field that holds them.
            list.entries().try_for_each(|item| named_by_path(&item, path))
        }
        Val::Map(map) => map.entries().try_for_each(|(_, val)| match val {
            Val::Struct(..) => named_by_path(&val, path),
            _ => Ok(()),
        }),
        Val::Optional(Some(inner)) => named_by_path(inner, path),
        _ => Ok(()),
    }
}
