//! The nftables engine: one atomic transaction for each new plan.
//!
//! The rules are handed to `nft -f -` as text, as an operator would read them: the JSON schema of the `nftables` crate has
//! no verdict maps, which are what keeps the cost of a packet flat.

mod conntrack;
mod ruleset;
mod transaction;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::Failure;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

pub use ruleset::{Settings, TABLE};

use crate::engine::Engine;
use crate::plan::{Family, Plan};
use crate::run::with_source;
use ruleset::{Ruleset, ruleset};

type Tables = BTreeMap<Family, Ruleset>;

/// How long a tool may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the tables `ip pilotis-proxy` and `ip6 pilotis-proxy`. Needs CAP_NET_ADMIN.
pub struct Nftables {
    settings: Settings,
    /// What runs before `nft` and `conntrack`: `ip netns exec NAME` in tests.
    within: Vec<String>,
    /// What the kernel holds; `None` until the first transaction, and after one that failed.
    held: Option<Arc<Tables>>,
    plan: Arc<Plan>,
}

impl Nftables {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            within: Vec::new(),
            held: None,
            plan: Arc::default(),
        }
    }

    /// Works in a network namespace made by `ip netns add`.
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.within = ["ip", "netns", "exec", name].map(String::from).to_vec();
        self
    }

    /// Whether this machine lets us: `nft` is there, and the kernel knows all that our chains ask of it. Changes nothing.
    /// The error says what to do.
    ///
    /// # Errors
    /// [`Failure::Unavailable`].
    pub async fn check(&self) -> Result<(), Failure> {
        let frame = ruleset(&Plan::default(), Family::V4, &self.settings);
        self.run_nft(&["-c", "-f", "-"], transaction::rewrite("ip", &frame))
            .await
    }

    async fn nft(&self, script: String) -> Result<(), Failure> {
        self.run_nft(&["-f", "-"], script).await
    }

    async fn run_nft(&self, arguments: &[&str], script: String) -> Result<(), Failure> {
        let output = run(&self.within, "nft", arguments, script).await?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: Vec<&str> = said.lines().take(6).collect();
                Err(unavailable(format!(
                    "nft refused the rules (needs root or CAP_NET_ADMIN, and Linux 5.9 or later): {}",
                    said.join(" | ")
                )))
            }
        }
    }
}

#[async_trait]
impl Engine for Nftables {
    async fn sync(&mut self, plan: &Arc<Plan>) -> Result<(), Failure> {
        let held = self.held.take();
        let (next, update) = self.render(plan, held.clone()).await?;
        let done = match update {
            Some(script) if script.is_empty() => true,
            Some(script) => match self.nft(script).await {
                Ok(()) => true,
                Err(error) => {
                    // Somebody else changed our table. The kernel took nothing of the script: write all of it.
                    tracing::warn!(error = %with_source(&error), "the rules are not as we left them");
                    false
                }
            },
            None => {
                if !next.contains_key(&Family::V6) {
                    self.remove_v6().await;
                }
                false
            }
        };
        if !done {
            self.nft(script(&Tables::new(), &next)).await?;
        }
        self.held = Some(next);
        let stale = conntrack::stale(&self.plan, plan);
        self.plan = plan.clone();
        conntrack::forget(&self.within, &stale).await;
        Ok(())
    }

    async fn cleanup(&mut self) -> Result<(), Failure> {
        self.held = None;
        self.plan = Arc::default();
        self.nft(transaction::remove("ip")).await?;
        self.remove_v6().await;
        Ok(())
    }
}

impl Nftables {
    /// The tables for `plan`, and the script that leads there from `held`. On a thread of its own: with thousands of
    /// Services this takes some tens of milliseconds.
    async fn render(
        &self,
        plan: &Arc<Plan>,
        held: Option<Arc<Tables>>,
    ) -> Result<(Arc<Tables>, Option<String>), Failure> {
        let (plan, settings) = (plan.clone(), self.settings.clone());
        let render = move || {
            let next = tables(&plan, &settings, held.as_deref());
            let update = held.as_deref().map(|held| script(held, &next));
            (Arc::new(next), update)
        };
        tokio::task::spawn_blocking(render).await.map_err(Failure::internal)
    }

    /// Takes away what an earlier proxy may have left. A kernel without IPv6 has nothing to take away.
    async fn remove_v6(&self) {
        if let Err(error) = self.nft(transaction::remove("ip6")).await {
            tracing::debug!(error = %with_source(&error), "no IPv6 table to remove");
        }
    }
}

/// The tables for a plan. A machine without IPv6 Services gets no IPv6 table, unless it has one already.
fn tables(plan: &Plan, settings: &Settings, held: Option<&Tables>) -> Tables {
    let wants_v6 = plan.ports.keys().any(|name| name.family == Family::V6)
        || held.is_some_and(|held| held.contains_key(&Family::V6));
    let families = [Family::V4].into_iter().chain(wants_v6.then_some(Family::V6));
    families
        .map(|family| (family, ruleset(plan, family, settings)))
        .collect()
}

/// From `held` to `next`. A table that is not held is written whole.
fn script(held: &Tables, next: &Tables) -> String {
    let of = |(family, ruleset): (&Family, &Ruleset)| match held.get(family) {
        Some(held) => transaction::update(word(*family), held, ruleset),
        None => transaction::rewrite(word(*family), ruleset),
    };
    next.iter().map(of).collect()
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Runs a tool with `input`, inside `within`, and waits for its end.
async fn run(
    within: &[String],
    tool: &str,
    arguments: &[&str],
    input: String,
) -> Result<std::process::Output, Failure> {
    let words: Vec<&str> = within
        .iter()
        .map(String::as_str)
        .chain([tool])
        .chain(arguments.iter().copied())
        .collect();
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            unavailable(format!(
                "cannot run {tool} (install the package it comes in, or use the userspace proxy): {error}"
            ))
        })?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // Both at once: a tool that answers before it has read all would otherwise wait for us, and we for it.
    let both = async {
        tokio::join!(
            async move { stdin.write_all(input.as_bytes()).await },
            child.wait_with_output()
        )
    };
    let both = tokio::time::timeout(PATIENCE, both).await;
    let (written, output) = both.map_err(|_| unavailable(format!("{tool} did not end within {PATIENCE:?}")))?;
    let output = output.map_err(|error| unavailable(format!("{tool} was lost: {error}")))?;
    if let (Err(error), true) = (written, output.status.success()) {
        return Err(unavailable(format!("{tool} did not read its input: {error}")));
    }
    Ok(output)
}

fn unavailable(reason: String) -> Failure {
    Failure::Unavailable {
        what: "the packet filter (nftables)",
        source: reason.into(),
    }
}

/// For golden tests: the scripts that a series of plans leads to.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Shown {
    held: Tables,
    plan: Plan,
}

#[cfg(test)]
impl Shown {
    /// The first time the rules of Services without the frame, which is the same for all; then what changes.
    pub(crate) fn next(&mut self, plan: &Plan, settings: &Settings) -> String {
        let next = tables(plan, settings, Some(&self.held));
        if self.held.is_empty() {
            let frame = |family: &Family| (*family, ruleset(&Plan::default(), *family, settings));
            self.held = next.keys().map(frame).collect();
        }
        let mut text = script(&self.held, &next);
        for flow in conntrack::stale(&self.plan, plan) {
            text.push_str(&format!("forget {flow:?}\n"));
        }
        self.held = next;
        self.plan = plan.clone();
        text
    }
}
