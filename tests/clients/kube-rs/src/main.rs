//! What users of kube-rs rely on, asked of the cluster that KUBECONFIG names.
//!
//! Prints `ok WHAT` for each step, and ends with an error at the first that went wrong.

mod controller;
mod discovery;
mod leader;
mod objects;
mod streams;
mod watches;
mod world;

use anyhow::{Context, Result};

use crate::world::{LIMIT, World};

#[tokio::main]
async fn main() -> Result<()> {
    let world = &World::open().await?;
    step(
        "AlreadyExists, Conflict, NotFound, Invalid with its causes, Forbidden",
        objects::refusals(world),
    )
    .await?;
    step(
        "JSON, merge and strategic merge patches, and an entry",
        objects::patches(world),
    )
    .await?;
    step(
        "server-side apply: two owners, their conflict, force",
        objects::applies(world),
    )
    .await?;
    step("a dry run and strict fields", objects::tried(world)).await?;
    step(
        "status and scale of a Deployment, restart, foreground deletion",
        objects::deployment(world),
    )
    .await?;
    step("a budget holds an eviction back", objects::eviction(world)).await?;
    step(
        "every kind that discovery lists is listed",
        discovery::everything(world),
    )
    .await?;
    step(
        "a reflector's store follows, by list and by stream",
        watches::reflectors(world),
    )
    .await?;
    step("metadata is watched without the rest", watches::metadata(world)).await?;
    step("a forgotten version is 410 in the stream", watches::expired(world)).await?;
    step(
        "a derived definition is applied and established",
        controller::definition(world),
    )
    .await?;
    step(
        "a custom object has defaults, rules, selectable fields, status and scale",
        controller::objects(world),
    )
    .await?;
    step(
        "a controller keeps children, status, events and its finalizer",
        controller::runs(world),
    )
    .await?;
    step("one leads, and the next when it leaves", leader::changes(world)).await?;
    step("logs are read and followed", streams::logs(world)).await?;
    step(
        "commands run, with their output, input, exit code and terminal",
        streams::exec(world),
    )
    .await?;
    step("attach speaks with the container itself", streams::attach(world)).await?;
    step(
        "ports are forwarded, and one that nobody listens on says so",
        streams::forward(world),
    )
    .await
}

async fn step(what: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    let done = tokio::time::timeout(LIMIT, work).await;
    done.with_context(|| format!("not within {LIMIT:?}"))
        .flatten()
        .with_context(|| format!("failed: {what}"))?;
    println!("ok {what}");
    Ok(())
}
