//! Watchers and reflectors.

use std::pin::pin;

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use serde_json::json;

use crate::world::{World, config_map, datum, refused, same};

const SELECTED: &str = "part=watched";

async fn create(maps: &Api<ConfigMap>, name: &str) -> Result<()> {
    let mut map = config_map(name, json!({"n": "0"}))?;
    map.labels_mut().insert("part".into(), "watched".into());
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

pub async fn reflectors(world: &World) -> Result<()> {
    let maps: Api<ConfigMap> = world.api();
    for name in ["a", "b", "c"] {
        create(&maps, name).await?;
    }
    let listing = watcher::Config::default().labels(SELECTED).page_size(2);
    let streaming = watcher::Config::default().labels(SELECTED).streaming_lists();
    for (n, how) in [listing, streaming].into_iter().enumerate() {
        let (store, writer) = reflector::store();
        let mut events = pin!(reflector::reflector(writer, watch(maps.clone(), how)).default_backoff());
        reaches(&mut events, &store, |_, store| store.len() == 3).await?;
        let newer = format!("{n} changed");
        let change = Patch::Merge(json!({"data": {"n": newer}}));
        maps.patch("b", &PatchParams::default(), &change).await?;
        let b = ObjectRef::new("b").within(&world.namespace);
        reaches(&mut events, &store, |_, store| {
            store
                .get(&b)
                .is_some_and(|found| datum(&found, "n") == Some(newer.as_str()))
        })
        .await?;
        let extra = format!("extra-{n}");
        create(&maps, &extra).await?;
        reaches(&mut events, &store, |_, store| store.len() == 4).await?;
        // It goes from this watcher's sight, not from the cluster.
        let relabel = Patch::Merge(json!({"metadata": {"labels": {"part": "other"}}}));
        maps.patch(&extra, &PatchParams::default(), &relabel).await?;
        let left = |event: &Event<ConfigMap>| matches!(event, Event::Delete(gone) if gone.name_any() == extra);
        reaches(&mut events, &store, |event, store| left(event) && store.len() == 3).await?;
    }
    Ok(())
}

/// Polls the events until the store is as wanted.
async fn reaches(
    events: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin),
    store: &Store<ConfigMap>,
    wanted: impl Fn(&Event<ConfigMap>, &Store<ConfigMap>) -> bool,
) -> Result<()> {
    loop {
        let event = events.try_next().await?.context("the watcher ended")?;
        if wanted(&event, store) {
            return Ok(());
        }
    }
}

pub async fn metadata(world: &World) -> Result<()> {
    let maps: Api<ConfigMap> = world.api();
    let how = watcher::Config::default().labels(SELECTED).fields("metadata.name=a");
    let only: Api<PartialObjectMeta<ConfigMap>> = world.api();
    let mut found = pin!(watch(only, how).applied_objects());
    let a = found.try_next().await?.context("the watcher ended")?;
    same(a.name_any().as_str(), "a")?;
    let kind = a.types.map(|types| types.kind);
    same(kind.as_deref(), Some("PartialObjectMetadata"))?;
    let mark = Patch::Merge(json!({"metadata": {"annotations": {"mark": "1"}}}));
    maps.patch_metadata("a", &PatchParams::default(), &mark).await?;
    let marked = found.try_next().await?.context("the watcher ended")?;
    same(
        marked
            .metadata
            .annotations
            .and_then(|all| all.get("mark").cloned())
            .as_deref(),
        Some("1"),
    )?;
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels(SELECTED))
        .await?;
    Ok(())
}

pub async fn expired(world: &World) -> Result<()> {
    let maps: Api<ConfigMap> = world.api();
    let mut events = pin!(maps.watch(&WatchParams::default(), "1").await?);
    match events.try_next().await? {
        Some(WatchEvent::Error(status)) => {
            same((status.code, status.reason.as_str()), (410, "Expired"))?;
            ensure!(status.message.starts_with("too old resource version: 1"), "{status:?}");
        }
        other => bail!("410 was expected, not {other:?}"),
    }
    same(events.try_next().await?.is_none(), true)?;
    let list = ListParams::default().limit(1);
    let page = maps.list(&list).await?;
    ensure!(
        page.metadata.continue_.is_some(),
        "one page held all: {:?}",
        page.metadata
    );
    let refusal = maps.list(&list.continue_token("not a token")).await;
    refused(400, "BadRequest", refusal)?;
    Ok(())
}
