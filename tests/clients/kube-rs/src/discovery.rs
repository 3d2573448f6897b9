//! Discovery, in both of its forms, and the objects of any kind.

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{GroupVersionKind, discovery::Scope, discovery::verbs};
use kube::discovery::{self, Discovery};

use crate::world::{World, same};

pub async fn everything(world: &World) -> Result<()> {
    let one_by_one = Discovery::new(world.client.clone()).run().await?;
    let at_once = Discovery::new(world.client.clone()).run_aggregated().await?;
    let mut kinds = names(&one_by_one);
    kinds.sort();
    let mut also = names(&at_once);
    also.sort();
    same(&kinds, &also)?;
    ensure!(kinds.len() > 60, "{kinds:?}");
    for group in at_once.groups() {
        for (kind, may) in group.recommended_resources() {
            // What is made up for each request has no version.
            let made_up = kind.kind == "ComponentStatus" || kind.group == "metrics.k8s.io";
            if made_up || !may.supports_operation(verbs::LIST) {
                continue;
            }
            let objects: Api<DynamicObject> = Api::all_with(world.client.clone(), &kind);
            let listed = objects.list(&ListParams::default().limit(2)).await;
            let listed = listed.with_context(|| format!("a list of {}", kind.plural))?;
            ensure!(
                listed.metadata.resource_version.is_some(),
                "a list of {} has no version",
                kind.plural
            );
        }
    }
    let pods = GroupVersionKind::gvk("", "v1", "Pod");
    let (kind, may) = discovery::pinned_kind(&world.client, &pods).await?;
    same((kind.plural.as_str(), may.scope), ("pods", Scope::Namespaced))?;
    let subresources: Vec<&str> = may.subresources.iter().map(|(of, _)| of.plural.as_str()).collect();
    for wanted in [
        "attach",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "status",
    ] {
        ensure!(
            subresources
                .iter()
                .any(|found| found.trim_start_matches("pods/") == wanted),
            "{wanted}: {subresources:?}"
        );
    }
    let version = world.client.apiserver_version().await?;
    same((version.major.as_str(), version.minor.as_str()), ("1", "36"))
}

/// Each kind there is, as `GROUP/VERSION/KIND`.
fn names(of: &Discovery) -> Vec<String> {
    let all = of.groups().flat_map(|group| group.resources_by_stability());
    all.map(|(kind, _)| format!("{}/{}", kind.api_version, kind.kind))
        .collect()
}
