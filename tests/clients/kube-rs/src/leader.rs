//! A Lease as a lock between two who would lead.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};

use crate::world::{World, same};

const LOCK: &str = "lock";

pub async fn changes(world: &World) -> Result<()> {
    let leases: Api<Lease> = world.api();
    let (mut first, first_ends) = candidate(world, "first").await?.watch().await;
    first.wait_for(|leads| *leads).await?;
    same(holder(&leases).await?.as_str(), "first")?;
    let (mut second, second_ends) = candidate(world, "second").await?.watch().await;
    ensure!(!*second.borrow(), "two lead");
    // Who looks away steps down.
    drop(first);
    second.wait_for(|leads| *leads).await?;
    same(holder(&leases).await?.as_str(), "second")?;
    drop(first_ends.await??);
    drop(second);
    drop(second_ends.await??);
    let lease = leases.get(LOCK).await?;
    let transitions = lease.spec.and_then(|spec| spec.lease_transitions);
    ensure!(transitions >= Some(2), "{transitions:?}");
    Ok(())
}

async fn candidate(world: &World, name: &str) -> Result<LeaseManager> {
    let builder = LeaseManagerBuilder::new(world.client.clone(), LOCK)
        .with_namespace(&world.namespace)
        .with_identity(name)
        .with_duration(4)
        .with_grace(1);
    Ok(builder.build().await?)
}

async fn holder(leases: &Api<Lease>) -> Result<String> {
    let lease = leases.get(LOCK).await?;
    lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .context("nobody holds the lock")
}
