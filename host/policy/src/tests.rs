//! Policies on a registry in memory: what Kubernetes' conformance tests ask of them, and what they say.

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Cluster, Outcome, Target, Write, WriteOptions};
use model::{Caller, Failure, Gvr};
use registry::gates::{Admit, Notes, Operation, Request};
use registry::{AdmitAll, AllowAll, NoAudit, Options, Registry};
use serde_json::{Value, json};

use crate::{Binding, Bound, Effect, Means, Policies, Policy};

const POLICY: &str = "admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDING: &str = "admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

async fn open() -> Registry {
    let store = Arc::new(store::memory::open(store::History::default()).unwrap());
    let policies = Policies::around(Arc::new(AdmitAll));
    let options = Options::new(Arc::new(AllowAll), policies.clone(), Arc::new(NoAudit));
    let registry = Registry::open(store, options).await.unwrap();
    let means = Means {
        registry: registry.clone(),
        authorize: Arc::new(AllowAll),
    };
    tokio::spawn(policies.start(means).await.unwrap());
    registry
}

fn gvr(path: &str) -> Gvr {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [group, version, plural] => Gvr::new(group, version, plural),
        [plural] => Gvr::new("", "v1", plural),
        _ => panic!("{path}"),
    }
}

async fn create(registry: &Registry, of: &str, namespace: &str, body: Value) -> Result<(Value, Vec<String>), Failure> {
    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let write = Write {
        target: Target::new(gvr(of), namespace, &name),
        action: Action::Create(body.to_string().into()),
        options: WriteOptions::default(),
    };
    let caller = Caller::component("tester", &["system:masters"]);
    let written = registry.write(&caller, write).await?;
    let warnings = written.warnings;
    match written.outcome {
        Outcome::Created(object) => Ok((object.value(), warnings)),
        other => panic!("{other:?}"),
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn policy(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["matchConstraints"] = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]});
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec})
}

fn binding(policy: &str, actions: &[&str]) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": format!("{policy}-b")},
        "spec": {"policyName": policy, "validationActions": actions}})
}

/// Creates config maps until one gets the answer looked for: policies count a moment after they are written.
async fn until<T>(
    registry: &Registry,
    data: Value,
    found: impl Fn(Result<(Value, Vec<String>), Failure>) -> Option<T>,
) -> T {
    for at in 0..2000 {
        if let Some(found) =
            found(create(registry, "configmaps", "default", map(&format!("m{at}"), data.clone())).await)
        {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no such answer in 20 s");
}

#[tokio::test]
async fn a_policy_with_variables_denies_and_says_why() {
    let registry = open().await;
    let spec = json!({
        "variables": [{"name": "size", "expression": "object.data.?size.orValue('0')"}, {"name": "number", "expression": "int(variables.size)"}],
        "validations": [
            {"expression": "variables.number <= 3", "messageExpression": "'size ' + variables.size + ' is too large for ' + request.userInfo.username"},
            {"expression": "namespaceObject.metadata.name == 'default'", "reason": "Forbidden"},
        ],
        "auditAnnotations": [{"key": "size", "valueExpression": "'size ' + string(variables.size)"}],
    });
    create(&registry, POLICY, "", policy("small", spec)).await.unwrap();
    create(&registry, BINDING, "", binding("small", &["Deny"]))
        .await
        .unwrap();
    let failure = until(&registry, json!({"size": "7"}), Result::err).await;
    assert_eq!(
        failure.to_string(),
        "configmaps \"m0\" is forbidden: ValidatingAdmissionPolicy 'small' with binding 'small-b' denied request: size 7 is too large for tester"
            .replace("m0", failure.to_string().split('"').nth(1).unwrap())
    );
    assert!(matches!(failure, Failure::Denied { code: 422, .. }));
    create(&registry, "configmaps", "default", map("fits", json!({"size": "2"})))
        .await
        .unwrap();
    let failure = create(&registry, "configmaps", "default", map("odd", json!({"size": "x"})))
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("composited variable"), "{failure}");
}

#[tokio::test]
async fn conditions_parameters_and_warnings() {
    let registry = open().await;
    create(&registry, "configmaps", "default", map("limit", json!({"max": "3"})))
        .await
        .unwrap();
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "sized", "expression": "has(object.data) && has(object.data.size)"}],
        "validations": [{"expression": "int(object.data.size) <= int(params.data.max)", "message": "too large"}],
    });
    create(&registry, POLICY, "", policy("limited", spec)).await.unwrap();
    let mut bound = binding("limited", &["Warn", "Audit"]);
    bound["spec"]["paramRef"] = json!({"name": "limit", "namespace": "default", "parameterNotFoundAction": "Deny"});
    create(&registry, BINDING, "", bound).await.unwrap();
    let warnings = until(&registry, json!({"size": "7"}), |answer| {
        let (_, warnings) = answer.unwrap();
        (!warnings.is_empty()).then_some(warnings)
    })
    .await;
    assert_eq!(
        warnings,
        ["Validation failed for ValidatingAdmissionPolicy 'limited' with binding 'limited-b': too large"]
    );
    let (_, warnings) = create(&registry, "configmaps", "default", map("plain", json!({"a": "b"})))
        .await
        .unwrap();
    assert!(warnings.is_empty(), "the match condition does not hold");
}

#[tokio::test]
async fn what_does_not_compile_is_refused() {
    let registry = open().await;
    let spec = json!({
        "matchConditions": [{"name": "a", "expression": "1"}],
        "variables": [{"name": "v", "expression": "nothing"}],
        "validations": [{"expression": "params.x == 1", "messageExpression": "authorizer.path('/').check('get').reason()"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "1 +"}],
    });
    let Err(Failure::Invalid { causes, .. }) = create(&registry, POLICY, "", policy("broken", spec)).await else {
        panic!("it was not refused")
    };
    let told: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    for (at, (field, says)) in [
        (
            "spec.matchConditions[0].expression",
            "Invalid value: \"1\": must evaluate to bool but got int",
        ),
        (
            "spec.variables[0].expression",
            "undeclared reference to 'nothing' (in container '')\n | nothing\n | ^",
        ),
        ("spec.validations[0].expression", "undeclared reference to 'params'"),
        (
            "spec.validations[0].messageExpression",
            "undeclared reference to 'authorizer'",
        ),
        (
            "spec.auditAnnotations[0].valueExpression",
            "compilation failed: ERROR: <input>:1:4: Syntax error",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(told[at].starts_with(field) && told[at].contains(says), "{told:#?}");
    }
    assert_eq!(told.len(), 5);
}

/// Such a policy may have been stored by a release that understood it.
#[tokio::test]
async fn what_does_not_compile_fails_as_the_policy_says() {
    let broken = json!({"validations": [{"expression": "object.data.size >"}]});
    let policy = |spec: &Value| Policy::read(Effect::Validate, &json!({"metadata": {"name": "p"}, "spec": spec}));
    assert!(
        policy(&broken).faults(Some(&policy(&broken))).is_empty(),
        "it may be changed elsewhere"
    );
    let mut lenient = broken.clone();
    lenient["failurePolicy"] = "Ignore".into();
    asked(Effect::Validate, lenient, "configmaps", map("web", json!({})))
        .await
        .unwrap();
    let failure = asked(Effect::Validate, broken, "configmaps", map("web", json!({}))).await;
    let failure = failure.unwrap_err().to_string();
    assert!(failure.contains("olicy 'p'"), "{failure}");
    assert!(failure.contains("Syntax error"), "{failure}");
}

/// Asks one policy, bound to everything, about an object.
async fn asked(effect: Effect, spec: Value, kind: &str, object: Value) -> Result<Value, Failure> {
    let mut spec = spec;
    spec["matchConstraints"] =
        json!({"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]});
    asked_through(effect, spec, kind, "", object).await
}

/// Asks one policy about an object that is changed through a door of it; what the object was is what it is.
async fn asked_through(effect: Effect, spec: Value, kind: &str, door: &str, object: Value) -> Result<Value, Failure> {
    let registry = open().await;
    let policies = Policies::around(Arc::new(AdmitAll));
    let means = Means {
        registry: registry.clone(),
        authorize: Arc::new(AllowAll),
    };
    let means = Arc::new(means);
    assert!(policies.means.set(Arc::downgrade(&means)).is_ok());
    let policy = Policy::read(effect, &json!({"metadata": {"name": "p"}, "spec": spec}));
    let binding =
        Binding::read(&json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}));
    policies.current.store(Arc::new(vec![Bound {
        policy: Arc::new(policy),
        bindings: vec![Arc::new(binding)],
    }]));
    let resource = registry.resource(&gvr(kind)).unwrap();
    let target = Target::new(gvr(kind), "default", "web").subresource(door);
    let old = (!door.is_empty()).then(|| object.clone());
    let caller = Caller::component("tester", &["system:masters"]);
    let request = Request {
        caller: &caller,
        operation: match old {
            Some(_) => Operation::Update,
            None => Operation::Create,
        },
        target: &target,
        kind: &resource.kind,
        gvk: &resource.kind.gvk,
        old: old.as_ref(),
        dry_run: false,
        options: &Value::Null,
    };
    let mut object = object;
    policies
        .mutate(&request, Some(&mut object), &mut Notes::default())
        .await?;
    policies
        .validate(&request, Some(&object), &mut Notes::default())
        .await?;
    Ok(object)
}

async fn mutated(spec: Value, kind: &str, object: Value) -> Result<Value, Failure> {
    asked(Effect::Mutate, spec, kind, object).await
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "x"}]}}}})
}

#[tokio::test]
async fn mutations_apply_and_patch() {
    let spec = json!({
    "variables": [{"name": "who", "expression": "request.userInfo.username"}],
    "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'by': variables.who}}, spec: Object.spec{replicas: object.spec.replicas + 2, template: Object.spec.template{spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{name: 'web', workingDir: '/w'}, Object.spec.template.spec.containers{name: 'side', image: 'y'}]}}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/spec/replicas', value: 3}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y'), value: 'z'}]"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/spec/replicas', value: 9}, JSONPatch{op: 'remove', path: '/spec'}]"}},
    ]});
    let made = mutated(spec, "apps/v1/deployments", deployment()).await.unwrap();
    assert_eq!(
        made["metadata"]["labels"],
        json!({"a": "b", "by": "tester", "x/y": "z"})
    );
    assert_eq!(made["spec"]["replicas"], 3);
    let containers = &made["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["workingDir"], "/w", "lists are merged by their keys");
    assert_eq!(
        (&containers[0]["image"], &containers[1]["name"]),
        (&json!("x"), &json!("side"))
    );
}

#[tokio::test]
async fn mutations_that_cannot_be_made_refuse() {
    let apply = |expression: &str| json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    for (expression, says) in [
        (
            "Object{spec: Object.spec{selector: Object.spec.wrong{}}}",
            "unexpected type name",
        ),
        ("Object{spec: Object.spec{nope: 1}}", "field not declared in schema"),
        (
            "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}",
            "may not mutate atomic",
        ),
        ("1", "must evaluate to Object but got int"),
        (
            "Object{metadata: Object.metadata{name: object.nope}}",
            "no such key: nope",
        ),
    ] {
        let failure = mutated(apply(expression), "apps/v1/deployments", deployment())
            .await
            .unwrap_err()
            .to_string();
        assert!(failure.contains(says), "{expression}: {failure}");
    }
    let mut lenient = apply("Object{spec: Object.spec{nope: 1}}");
    lenient["failurePolicy"] = "Ignore".into();
    assert_eq!(
        mutated(lenient, "apps/v1/deployments", deployment()).await.unwrap(),
        deployment()
    );
}

/// `matchConstraints` that name one version of a resource.
fn only(group: &str, version: &str, resources: &str, policy: &str) -> Value {
    json!({"matchPolicy": policy, "resourceRules": [{"apiGroups": [group], "apiVersions": [version], "operations": ["*"], "resources": [resources]}]})
}

fn autoscaler() -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 80, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

#[tokio::test]
async fn a_rule_of_another_version_sees_the_object_in_that_version() {
    let (of, resource) = ("autoscaling/v1/horizontalpodautoscalers", "horizontalpodautoscalers");
    let spec = |constraints: Value, expression: &str| json!({"matchConstraints": constraints, "validations": [{"expression": expression, "message": "seen"}]});
    let asked = async |constraints: Value, expression: &str| {
        let asked = asked_through(Effect::Validate, spec(constraints, expression), of, "", autoscaler());
        asked.await.err().map(|failure| failure.to_string())
    };
    let equivalent = |group: &str, version: &str| only(group, version, resource, "Equivalent");
    // Known by version 2, and told what it was asked as.
    let holds = "object.apiVersion == 'autoscaling/v2' && object.spec.metrics[0].resource.target.averageUtilization == 80 \
        && request.kind.version == 'v2' && request.resource.version == 'v2' \
        && request.requestKind.version == 'v1' && request.requestResource.version == 'v1'";
    assert_eq!(asked(equivalent("autoscaling", "v2"), holds).await, None);
    let refused = asked(equivalent("autoscaling", "v2"), "false").await;
    assert!(refused.is_some_and(|says| says.ends_with(": seen")));
    // As it was asked, where the rules name that as well.
    let as_asked = "object.apiVersion == 'autoscaling/v1' && request.kind.version == 'v1'";
    assert_eq!(asked(equivalent("autoscaling", "*"), as_asked).await, None);
    // What does not serve these objects is no equivalent, and Exact takes none.
    for constraints in [
        only("autoscaling", "v2", resource, "Exact"),
        equivalent("autoscaling", "v3"),
        equivalent("apps", "v1"),
    ] {
        assert_eq!(asked(constraints.clone(), "false").await, None, "{constraints}");
    }
    // Nor does one hide from what is excluded by another version.
    let mut excluded = equivalent("autoscaling", "*");
    excluded["excludeResourceRules"] = equivalent("autoscaling", "v2")["resourceRules"].clone();
    assert_eq!(asked(excluded, "false").await, None);
    // Groups may differ too.
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "web", "namespace": "default"}, "message": "m",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let constraints = only("events.k8s.io", "v1", "events", "Equivalent");
    let spec = spec(constraints, "object.regarding.name == 'p' && object.note == 'm'");
    asked_through(Effect::Validate, spec, "events", "", event)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_mutation_of_another_version_is_given_back_in_the_one_asked_for() {
    let spec = json!({
    "matchConstraints": only("autoscaling", "v2", "horizontalpodautoscalers", "Equivalent"),
    "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{maxReplicas: object.spec.maxReplicas + 1}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'replace', path: '/spec/metrics/0/resource/target/averageUtilization', value: 70}]"}},
    ]});
    let of = "autoscaling/v1/horizontalpodautoscalers";
    let made = asked_through(Effect::Mutate, spec, of, "", autoscaler()).await.unwrap();
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(made["spec"]["maxReplicas"], 6);
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 70);
}

#[tokio::test]
async fn ephemeral_containers_are_seen_where_they_come_in() {
    let spec = json!({
        "matchConstraints": only("", "v1", "pods/ephemeralcontainers", "Equivalent"),
        "validations": [{"expression": "object.spec.ephemeralContainers.all(c, c.image.startsWith('ours/'))", "message": "not ours"}]});
    let pod = |image: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "web", "image": "x"}], "ephemeralContainers": [{"name": "look", "image": image}]}})
    };
    let asked = |door: &'static str, image: &str| {
        let (spec, pod) = (spec.clone(), pod(image));
        async move { asked_through(Effect::Validate, spec, "pods", door, pod).await }
    };
    let refused = asked("ephemeralcontainers", "theirs/sh").await.unwrap_err().to_string();
    assert!(refused.contains("not ours"), "{refused}");
    asked("ephemeralcontainers", "ours/sh").await.unwrap();
    asked("", "theirs/sh").await.unwrap();
}

#[tokio::test]
async fn the_status_tells_that_a_policy_was_looked_at() {
    let registry = open().await;
    let spec = json!({"validations": [{"expression": "object.data.size() < 5"}]});
    create(&registry, POLICY, "", policy("seen", spec)).await.unwrap();
    let caller = Caller::component("tester", &["system:masters"]);
    let target = Target::new(gvr(POLICY), "", "seen");
    for _ in 0..2000 {
        let object = registry
            .get(&caller, &target, client::ReadVersion::Latest)
            .await
            .unwrap()
            .value();
        if object["status"]["typeChecking"].is_object() {
            assert_eq!(object["status"]["observedGeneration"], 1);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the status was not written in 20 s");
}
