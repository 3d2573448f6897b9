//! A kind of ours, derived, and the controller that lights it: children, status, events, and a finalizer.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Event as Told};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::crd::CustomResourceExt;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::finalizer::{Error as FinalizerError, Event as Stage, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Client, CustomResource, KubeSchema, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::world::{World, causes, datum, object, refused, same};

const GROUP: &str = "kube-rs.pilotis.test";
const SWITCH: &str = "kube-rs.pilotis.test/switch";

#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, Serialize)]
#[kube(
    group = "kube-rs.pilotis.test",
    version = "v1",
    kind = "Lamp",
    namespaced,
    shortname = "lp",
    status = "LampStatus",
    selectable = ".spec.room",
    scale(spec_replicas_path = ".spec.bulbs", status_replicas_path = ".status.lit"),
    printcolumn(name = "Bulbs", type_ = "integer", json_path = ".spec.bulbs"),
    validation = kube::core::Rule::new("self.metadata.name != 'sun'").message("there is one already")
)]
struct LampSpec {
    #[schemars(range(max = 12))]
    bulbs: u32,
    #[serde(default = "hall")]
    room: String,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
struct LampStatus {
    lit: u32,
}

fn hall() -> String {
    "hall".into()
}

fn lamp(name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Lamp", "metadata": {"name": name}, "spec": spec})
}

pub async fn definition(world: &World) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    let apply = PatchParams::apply("kube-rs").force();
    let made = definitions
        .patch(Lamp::crd_name(), &apply, &Patch::Apply(Lamp::crd()))
        .await?;
    await_condition(definitions.clone(), Lamp::crd_name(), conditions::is_crd_established()).await?;
    // Applied again as it is, it is not a change.
    let again = definitions
        .patch(Lamp::crd_name(), &apply, &Patch::Apply(Lamp::crd()))
        .await?;
    same(again.metadata.generation, made.metadata.generation)
}

pub async fn objects(world: &World) -> Result<()> {
    let lamps: Api<Lamp> = world.api();
    let once = &PostParams::default();
    let made = lamps.create(once, &object(lamp("plain", json!({"bulbs": 3})))?).await?;
    same((made.spec.room.as_str(), made.metadata.generation), ("hall", Some(1)))?;
    let sun: Lamp = object(lamp("sun", json!({"bulbs": 1})))?;
    let refusal = refused(422, "Invalid", lamps.create(once, &sun).await)?;
    ensure!(refusal.message.contains("there is one already"), "{refusal:?}");
    let bright: Lamp = object(lamp("bright", json!({"bulbs": 13})))?;
    let refusal = refused(422, "Invalid", lamps.create(once, &bright).await)?;
    same(causes(&refusal), ["FieldValueInvalid spec.bulbs"])?;
    let names = async |fields: &str| -> kube::Result<Vec<String>> {
        let found = lamps.list(&ListParams::default().fields(fields)).await?;
        Ok(found.iter().map(ResourceExt::name_any).collect())
    };
    same(names("spec.room=hall").await?, ["plain"])?;
    same(names("spec.room=attic").await?, [""; 0])?;
    refused(400, "BadRequest", names("spec.bulbs=3").await)?;
    let lit = Patch::Merge(json!({"status": {"lit": 3}, "spec": {"bulbs": 0}}));
    let lit = lamps.patch_status("plain", &PatchParams::default(), &lit).await?;
    same(
        (
            lit.status.map(|status| status.lit),
            lit.spec.bulbs,
            lit.metadata.generation,
        ),
        (Some(3), 3, Some(1)),
    )?;
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let scale = lamps.patch_scale("plain", &PatchParams::default(), &scale).await?;
    let replicas = scale.spec.and_then(|spec| spec.replicas);
    same(
        (replicas, scale.status.map(|status| status.replicas)),
        (Some(5), Some(3)),
    )?;
    same(lamps.get("plain").await?.spec.bulbs, 5)?;
    lamps.delete("plain", &DeleteParams::default()).await?;
    Ok(())
}

struct Context {
    client: Client,
    recorder: Recorder,
}

async fn reconcile(lamp: Arc<Lamp>, context: Arc<Context>) -> Result<Action, FinalizerError<kube::Error>> {
    let namespace = lamp.namespace().unwrap_or_default();
    let lamps: Api<Lamp> = Api::namespaced(context.client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    finalizer(&lamps, SWITCH, lamp, |stage| async {
        match stage {
            Stage::Apply(lamp) => light(&lamp, &lamps, &maps, &context.recorder).await,
            Stage::Cleanup(lamp) => put_out(&lamp, &maps).await,
        }
    })
    .await
}

async fn light(lamp: &Lamp, lamps: &Api<Lamp>, maps: &Api<ConfigMap>, recorder: &Recorder) -> kube::Result<Action> {
    let name = lamp.name_any();
    let apply = PatchParams::apply("lamps").force();
    let child = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": format!("light-{name}"), "ownerReferences": [lamp.controller_owner_ref(&())]},
        "data": {"bulbs": lamp.spec.bulbs.to_string()},
    });
    maps.patch(&format!("light-{name}"), &apply, &Patch::Apply(child))
        .await?;
    if lamp.status.as_ref().is_none_or(|status| status.lit != lamp.spec.bulbs) {
        let lit = json!({"apiVersion": Lamp::api_version(&()), "kind": "Lamp", "status": {"lit": lamp.spec.bulbs}});
        lamps.patch_status(&name, &apply, &Patch::Apply(lit)).await?;
        let event = Event {
            type_: EventType::Normal,
            reason: "Lit".into(),
            note: Some(format!("{} bulbs", lamp.spec.bulbs)),
            action: "Light".into(),
            secondary: None,
        };
        recorder.publish(&event, &lamp.object_ref(&())).await?;
    }
    Ok(Action::await_change())
}

async fn put_out(lamp: &Lamp, maps: &Api<ConfigMap>) -> kube::Result<Action> {
    let mut farewell = ConfigMap::default();
    farewell.metadata.name = Some(format!("dark-{}", lamp.name_any()));
    match maps.create(&PostParams::default(), &farewell).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        done => drop(done?),
    }
    Ok(Action::await_change())
}

pub async fn runs(world: &World) -> Result<()> {
    let lamps: Api<Lamp> = world.api();
    let maps: Api<ConfigMap> = world.api();
    let context = Context {
        client: world.client.clone(),
        recorder: Recorder::new(world.client.clone(), "lamps".into()),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controller = Controller::new(lamps.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .graceful_shutdown_on(async { drop(stopped.await) })
        // What was refused is told, and tried again soon: this test's limit is the back-off.
        .run(
            reconcile,
            |_, refusal, _| {
                eprintln!("lamps: {refusal:?}");
                Action::requeue(std::time::Duration::from_millis(200))
            },
            Arc::new(context),
        )
        .for_each(|_| future::ready(()));
    let running = tokio::spawn(controller);

    let made = lamps
        .create(&PostParams::default(), &object(lamp("desk", json!({"bulbs": 2})))?)
        .await?;
    await_condition(lamps.clone(), "desk", is_lit(2)).await?;
    same(lamps.get("desk").await?.finalizers(), [SWITCH])?;
    let child = maps.get("light-desk").await?;
    same(
        child.owner_references().first().map(|owner| owner.uid.clone()),
        made.uid(),
    )?;
    let more = Patch::Merge(json!({"spec": {"bulbs": 4}}));
    lamps.patch("desk", &PatchParams::default(), &more).await?;
    await_condition(lamps.clone(), "desk", is_lit(4)).await?;
    // What it owns is made again, and is put right.
    maps.delete("light-desk", &DeleteParams::default()).await?;
    await_condition(maps.clone(), "light-desk", has("bulbs", "4")).await?;
    let wrong = Patch::Merge(json!({"data": {"bulbs": "0"}}));
    maps.patch("light-desk", &PatchParams::default(), &wrong).await?;
    await_condition(maps.clone(), "light-desk", has("bulbs", "4")).await?;
    told(world, &made.uid().context("no uid")?).await?;

    lamps.delete("desk", &DeleteParams::default()).await?;
    await_condition(
        lamps.clone(),
        "desk",
        conditions::is_deleted(&made.uid().unwrap_or_default()),
    )
    .await?;
    maps.get("dark-desk").await?;
    let child = maps.get_metadata_opt("light-desk").await?.and_then(|child| child.uid());
    await_condition(maps, "light-desk", conditions::is_deleted(&child.unwrap_or_default())).await?;
    drop(stop);
    running.await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    definitions.delete(Lamp::crd_name(), &DeleteParams::default()).await?;
    Ok(())
}

fn is_lit(bulbs: u32) -> impl Fn(Option<&Lamp>) -> bool {
    move |found| {
        found
            .and_then(|lamp| lamp.status.as_ref())
            .is_some_and(|status| status.lit == bulbs)
    }
}

fn has(key: &'static str, value: &'static str) -> impl Fn(Option<&ConfigMap>) -> bool {
    move |found| found.is_some_and(|map| datum(map, key) == Some(value))
}

/// One event tells of the lamp: kube-rs counts what has its reason, and keeps the first note.
async fn told(world: &World, uid: &str) -> Result<()> {
    let events: Api<Told> = world.api();
    let of = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let events = events.list(&of).await?.items;
    let [event] = &events[..] else {
        bail!("one event was expected, not {events:?}")
    };
    same(event.message.as_deref(), Some("2 bulbs"))?;
    same(event.reporting_component.as_deref(), Some("lamps"))?;
    let times = event.series.as_ref().and_then(|series| series.count);
    ensure!(times >= Some(2), "told {times:?} times");
    Ok(())
}
