//! Built-in kinds: refusals, patches, apply, and the subresources.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions, ValidationDirective,
};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};

use crate::world::{World, causes, config_map, datum, object, refused, same};

pub async fn refusals(world: &World) -> Result<()> {
    let maps: Api<ConfigMap> = world.api();
    let once = &PostParams::default();
    let first = maps.create(once, &config_map("twice", json!({}))?).await?;
    let again = refused(409, "AlreadyExists", maps.create(once, &first_of("twice")?).await)?;
    same(again.message.as_str(), "configmaps \"twice\" already exists")?;
    maps.replace("twice", once, &config_map("twice", json!({"a": "1"}))?)
        .await?;
    let late = refused(409, "Conflict", maps.replace("twice", once, &first).await)?;
    ensure!(
        late.message.contains("the object has been modified"),
        "{}",
        late.message
    );
    let other = DeleteParams::default().preconditions(Preconditions {
        uid: Some("0".into()),
        ..Preconditions::default()
    });
    refused(409, "Conflict", maps.delete("twice", &other).await)?;
    let none = refused(404, "NotFound", maps.get("none").await)?;
    same(none.details.context("no details")?.kind.as_str(), "configmaps")?;
    same(maps.get_opt("none").await?.is_none(), true)?;
    let pods: Api<Pod> = world.api();
    let bad: Pod = object(json!({
        "metadata": {"name": "bad"},
        "spec": {"containers": [{"name": "main", "ports": [{"containerPort": 70000}]}]},
    }))?;
    let invalid = refused(422, "Invalid", pods.create(once, &bad).await)?;
    let causes = causes(&invalid);
    for wanted in [
        "FieldValueRequired spec.containers[0].image",
        "FieldValueInvalid spec.containers[0].ports[0].containerPort",
    ] {
        ensure!(causes.iter().any(|cause| cause == wanted), "{wanted}: {invalid:?}");
    }
    forbidden(world).await
}

fn first_of(name: &str) -> Result<ConfigMap> {
    config_map(name, json!({}))
}

/// What an account's token may not do.
async fn forbidden(world: &World) -> Result<()> {
    let accounts: Api<ServiceAccount> = world.api();
    let wish: TokenRequest = object(json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600}}))?;
    let given = accounts
        .create_token_request("default", &PostParams::default(), &wish)
        .await?;
    let mut config = Config::infer().await?;
    config.auth_info = kube::config::AuthInfo {
        token: given.status.and_then(|status| status.token).map(Into::into),
        ..kube::config::AuthInfo::default()
    };
    let client = Client::try_from(config)?;
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review
        .status
        .and_then(|status| status.user_info)
        .and_then(|user| user.username);
    let name = format!("system:serviceaccount:{}:default", world.namespace);
    same(user.as_deref(), Some(name.as_str()))?;
    let secrets: Api<Secret> = Api::namespaced(client, &world.namespace);
    let refusal = refused(403, "Forbidden", secrets.list(&ListParams::default()).await)?;
    ensure!(
        refusal
            .message
            .contains(&format!("User \"{name}\" cannot list resource \"secrets\"")),
        "{refusal:?}"
    );
    Ok(())
}

pub async fn patches(world: &World) -> Result<()> {
    let deployments: Api<Deployment> = world.api();
    deployments
        .create(&PostParams::default(), &deployment_of(world, "patched", 0)?)
        .await?;
    let containers = |of: &Deployment| -> Vec<String> {
        let pod = of.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        pod.iter()
            .flat_map(|pod| &pod.containers)
            .map(|container| container.name.clone())
            .collect()
    };
    let pod = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let patch = async |patch: Patch<Value>| deployments.patch("patched", &PatchParams::default(), &patch).await;
    let side = pod(json!([{"name": "side", "image": world.image}]));
    let mut both = containers(&patch(Patch::Strategic(side.clone())).await?);
    both.sort();
    same(both, ["main", "side"])?;
    same(containers(&patch(Patch::Merge(side)).await?), ["side"])?;
    let steps = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "last"}]);
    let steps: kube::core::params::Patch<Value> = Patch::Json(object(steps)?);
    same(containers(&patch(steps).await?), ["last"])?;
    let immutable = patch(Patch::Merge(
        json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}}),
    ))
    .await;
    let invalid = refused(422, "Invalid", immutable)?;
    ensure!(
        causes(&invalid).contains(&"FieldValueInvalid spec.selector".to_owned()),
        "{invalid:?}"
    );
    deployments.delete("patched", &DeleteParams::background()).await?;

    let maps: Api<ConfigMap> = world.api();
    for (begin, wanted) in [(json!({"n": "1"}), "1"), (json!({"n": "2"}), "2")] {
        let map = config_map("entry", begin)?;
        let entry = maps
            .entry("entry")
            .await?
            .and_modify(|found| found.data.clone_from(&map.data));
        let mut entry = entry.or_insert(|| map.clone());
        entry.commit(&PostParams::default()).await?;
        same(datum(entry.get(), "n"), Some(wanted))?;
    }
    Ok(())
}

pub async fn applies(world: &World) -> Result<()> {
    let maps: Api<ConfigMap> = world.api();
    let apply = async |params: PatchParams, data: Value| {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data});
        maps.patch("applied", &params, &Patch::Apply(map)).await
    };
    apply(PatchParams::apply("one"), json!({"a": "1", "b": "1"})).await?;
    apply(PatchParams::apply("two"), json!({"c": "2"})).await?;
    let conflict = refused(
        409,
        "Conflict",
        apply(PatchParams::apply("two"), json!({"a": "2"})).await,
    )?;
    same(causes(&conflict), ["FieldManagerConflict .data.a"])?;
    let forced = apply(PatchParams::apply("two").force(), json!({"a": "2"})).await?;
    same(
        [datum(&forced, "a"), datum(&forced, "b"), datum(&forced, "c")],
        [Some("2"), Some("1"), None],
    )?;
    let owners = forced.managed_fields().iter().map(|entry| entry.manager.as_deref());
    same(owners.collect::<Vec<_>>(), [Some("one"), Some("two")])
}

pub async fn tried(world: &World) -> Result<()> {
    let maps: Api<ConfigMap> = world.api();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    ensure!(
        maps.create(&dry, &config_map("dry", json!({}))?).await?.uid().is_some(),
        "no uid"
    );
    refused(404, "NotFound", maps.get("dry").await)?;
    maps.create(&PostParams::default(), &config_map("strict", json!({}))?)
        .await?;
    let odd = Patch::Merge(json!({"dta": {}}));
    let how = |validation| PatchParams {
        field_validation: Some(validation),
        ..PatchParams::default()
    };
    let refusal = maps.patch("strict", &how(ValidationDirective::Strict), &odd).await;
    let said = refusal.err().map(|refusal| refusal.to_string()).unwrap_or_default();
    ensure!(said.contains("strict decoding error: unknown field \"dta\""), "{said}");
    maps.patch("strict", &how(ValidationDirective::Ignore), &odd).await?;
    Ok(())
}

fn deployment_of(world: &World, name: &str, replicas: u32) -> Result<Deployment> {
    let labels = json!({"app": name});
    object(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": world.image}],
                },
            },
        },
    }))
}

pub async fn deployment(world: &World) -> Result<()> {
    let deployments: Api<Deployment> = world.api();
    let made = deployments
        .create(&PostParams::default(), &deployment_of(world, "web", 1)?)
        .await?;
    await_condition(deployments.clone(), "web", conditions::is_deployment_completed()).await?;
    let mut scale = deployments.get_scale("web").await?;
    same(scale.status.as_ref().map(|status| status.replicas), Some(1))?;
    scale.spec.get_or_insert_default().replicas = Some(2);
    deployments.replace_scale("web", &PostParams::default(), &scale).await?;
    let replicas = |wanted| {
        move |found: Option<&Deployment>| {
            let status = found.and_then(|found| found.status.as_ref());
            status.and_then(|status| status.available_replicas) == Some(wanted)
        }
    };
    await_condition(deployments.clone(), "web", replicas(2)).await?;
    let down = Patch::Merge(json!({"spec": {"replicas": 1}}));
    deployments.patch_scale("web", &PatchParams::default(), &down).await?;
    let restarted = deployments.restart("web").await?;
    let rolled = |found: Option<&Deployment>| {
        found.and_then(|found| found.status.as_ref()).is_some_and(|status| {
            status.observed_generation >= restarted.metadata.generation
                && (status.updated_replicas, status.replicas, status.available_replicas) == (Some(1), Some(1), Some(1))
        })
    };
    await_condition(deployments.clone(), "web", rolled).await?;
    let condition = json!({"status": {"conditions": [{"type": "Seen", "status": "True"}]}, "spec": {"replicas": 9}});
    let seen = deployments
        .patch_status("web", &PatchParams::default(), &Patch::Strategic(condition))
        .await?;
    same(seen.spec.and_then(|spec| spec.replicas), Some(1))?;
    let conditions_of = seen.status.and_then(|status| status.conditions).unwrap_or_default();
    ensure!(
        conditions_of.iter().any(|found| found.type_ == "Seen"),
        "{conditions_of:?}"
    );
    deployments.delete("web", &DeleteParams::foreground()).await?;
    let uid = made.uid().context("no uid")?;
    await_condition(deployments, "web", conditions::is_deleted(&uid)).await?;
    let sets: Api<ReplicaSet> = world.api();
    same(
        sets.list(&ListParams::default().labels("app=web")).await?.items.len(),
        0,
    )
}

pub async fn eviction(world: &World) -> Result<()> {
    // kube-rs would ask again and again by itself where it is told "later".
    let mut config = Config::infer().await?;
    config.default_retry = false;
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, &world.namespace);
    let pod: Pod = object(json!({
        "metadata": {"name": "held", "labels": {"app": "held"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": world.image}]},
    }))?;
    let pod = pods.create(&PostParams::default(), &pod).await?;
    await_condition(pods.clone(), "held", conditions::is_pod_running()).await?;
    let budgets: Api<PodDisruptionBudget> = world.api();
    let budget: PodDisruptionBudget = object(json!({
        "metadata": {"name": "held"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
    }))?;
    budgets.create(&PostParams::default(), &budget).await?;
    let counted = |found: Option<&PodDisruptionBudget>| {
        found
            .and_then(|found| found.status.as_ref())
            .is_some_and(|status| status.current_healthy == Some(1))
    };
    await_condition(budgets.clone(), "held", counted).await?;
    let refusal = refused(
        429,
        "TooManyRequests",
        pods.evict("held", &EvictParams::default()).await,
    )?;
    same(causes(&refusal), ["DisruptionBudget "])?;
    budgets.delete("held", &DeleteParams::default()).await?;
    pods.evict("held", &EvictParams::default()).await?;
    await_condition(pods, "held", conditions::is_deleted(&pod.uid().context("no uid")?)).await?;
    Ok(())
}
