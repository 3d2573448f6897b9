//! Where plugins meet the house: built-in `Plugin` objects, and what is loaded handed to controllers, scheduler and admission.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use admission::{Chain, FailurePolicy, Rule};
use anyhow::{Context, Result, ensure};
use auth::users;
use controllers::{Asked, Controller, Guest, Options};
use model::{Caller, GroupResource, Object};
use plugin::objects::{LoadedPlugins, Objects};
use plugin::{Host, Images, PluginName};
use registry::Registry;
use registry::gates::{Admit, Figures};
use scheduler::policy::Policy;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use view::View;

use crate::dir::Dir;

/// Keys of one controller that are run at a time.
const AT_ONCE: usize = 4;

pub struct Plugins {
    host: Arc<Host>,
    chain: Arc<Chain>,
    /// Known once the registry is, which asks it.
    objects: Arc<OnceLock<Arc<Objects>>>,
    root_ca: String,
}

impl Plugins {
    pub fn new(dir: &Dir, root_ca: &str) -> Result<Self> {
        ensure!(
            !EMBEDDED.is_empty(),
            "this binary was built without its plugins; build it with `cargo xtask build`"
        );
        // SAFETY: they are part of this binary.
        #[allow(unsafe_code, reason = "the images lie in the binary that runs them")]
        let images = unsafe { Images::new(IMAGES) };
        let host = Host::with_images(&dir.compiled(), images).context("the plugin host cannot start")?;
        Ok(Self {
            host,
            chain: Chain::new(),
            objects: Arc::default(),
            root_ca: root_ca.into(),
        })
    }

    pub fn admission(&self) -> Arc<dyn Admit> {
        self.chain.clone()
    }

    pub fn figures(&self) -> ahash::AHashMap<GroupResource, Arc<dyn Figures>> {
        let figures: Arc<dyn Figures> = Arc::new(PluginFigures(self.objects.clone()));
        [(GroupResource::new("plugins.pilotis.dev", "plugins"), figures)]
            .into_iter()
            .collect()
    }

    /// Loads what is asked for, and starts the controllers and the scheduler. Returns when every plugin was looked at.
    pub async fn start(&self, registry: &Registry, stop: &CancellationToken, tasks: &TaskTracker) -> Result<()> {
        let cluster: Arc<dyn client::Cluster> = Arc::new(registry.clone());
        let caller = Caller::component("system:plugin-host", &[users::MASTERS]);
        self.ensure_built_in(registry, &caller).await?;
        let view = View::new(cluster.clone(), caller.clone(), view::system_time());
        let grants: admission::GrantsOf = Box::new(|plugin| Arc::new(Asked(plugin.clone())));
        self.chain.connect(cluster.clone(), view.clone(), grants);
        let objects = Objects::new(self.host.clone(), cluster.clone(), caller, EMBEDDED);
        // Set once: there is one `start` in a process.
        let _ = self.objects.set(objects.clone());
        tasks.spawn(objects.clone().run(stop.clone()));
        let (to_scheduler, policies) = mpsc::channel(1);
        let config = scheduler::Config {
            seed: seed(),
            ..scheduler::Config::default()
        };
        tasks.spawn(scheduler::run(
            config,
            cluster.clone(),
            policies,
            stop.clone().cancelled_owned(),
        ));
        objects.first_look().await;
        EMBEDDED
            .iter()
            .map(|(_, component)| *component)
            .chain(IMAGES.iter().copied())
            .for_each(put_down);
        let mut desk = Desk {
            cluster,
            view,
            chain: self.chain.clone(),
            controllers: BTreeMap::new(),
            policies: Vec::new(),
            to_scheduler,
        };
        let mut loaded = objects.loaded();
        let first = loaded.borrow_and_update().clone();
        desk.arrange(&first).await;
        let stop = stop.clone();
        tasks.spawn(async move {
            while let Some(Ok(())) = stop.run_until_cancelled(loaded.changed()).await {
                let now = loaded.borrow_and_update().clone();
                desk.arrange(&now).await;
            }
        });
        Ok(())
    }

    /// A `Plugin` object for each component of this build, where there is none of its name. An operator's change of one stays.
    async fn ensure_built_in(&self, registry: &Registry, caller: &Caller) -> Result<()> {
        for (name, _) in EMBEDDED {
            // A second policy by default would be somebody's taste.
            if *name == "scheduler-binpack" {
                continue;
            }
            let mut object = json!({
                "apiVersion": "plugins.pilotis.dev/v1alpha1",
                "kind": "Plugin",
                "metadata": {"name": name, "labels": {"plugins.pilotis.dev/built-in": "true"}},
                "spec": {"source": {"embedded": name}},
            });
            if *name == "controller-serviceaccount" {
                object["spec"]["config"] = json!({"rootCa": self.root_ca});
            }
            registry.ensure(caller, "", &object).await?;
        }
        Ok(())
    }
}

/// Lets the kernel have the pages of what was read once, at the start, and is seldom wanted again.
fn put_down(part: &'static [u8]) {
    let page = match nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
        Ok(Some(size)) => size as usize,
        _ => return,
    };
    let skipped = part.as_ptr().align_offset(page);
    let Some(whole) = part
        .len()
        .checked_sub(skipped)
        .map(|rest| rest / page * page)
        .filter(|length| *length > 0)
    else {
        return;
    };
    // SAFETY: whole pages of the program's own file that nobody can write to: who reads them again gets the same bytes from
    // the file.
    #[allow(unsafe_code, reason = "megabytes of an idle cluster's memory would be these pages")]
    let advised = unsafe {
        let start = std::ptr::NonNull::from(&part[skipped]).cast();
        nix::sys::mman::madvise(start, whole, nix::sys::mman::MmapAdvise::MADV_DONTNEED)
    };
    if let Err(error) = advised {
        tracing::debug!(%error, "pages of the built-in plugins stay in memory");
    }
}

/// Gives each loaded plugin its place.
struct Desk {
    cluster: Arc<dyn client::Cluster>,
    view: Arc<View>,
    chain: Arc<Chain>,
    controllers: BTreeMap<PluginName, Controller>,
    policies: Vec<(PluginName, Option<i64>)>,
    to_scheduler: mpsc::Sender<Vec<Box<dyn Policy>>>,
}

impl Desk {
    async fn arrange(&mut self, loaded: &LoadedPlugins) {
        let is = |world: &'static str| {
            loaded.iter().filter(move |one| {
                one.plugin
                    .current()
                    .is_some_and(|revision| revision.worlds().contains(&world))
            })
        };
        let mut rules = Vec::new();
        for one in is("admission") {
            let policy = if one.ignore_faults {
                FailurePolicy::Ignore
            } else {
                FailurePolicy::Fail
            };
            match Rule::new(one.plugin.clone(), policy, one.built_in) {
                Ok(rule) => rules.push(Arc::new(rule)),
                Err(failure) => tracing::error!(plugin = %one.plugin.name(), %failure, "not in the admission chain"),
            }
        }
        self.chain.set(rules);

        self.controllers
            .retain(|name, _| is("controller").any(|one| one.plugin.name() == name));
        for one in is("controller") {
            let name = one.plugin.name();
            if !self.controllers.contains_key(name) {
                let options = Options {
                    name: name.as_str().to_owned(),
                    cluster: self.cluster.clone(),
                    view: self.view.clone(),
                    grants: Arc::new(Asked(one.plugin.clone())),
                    at_once: AT_ONCE,
                    term: None,
                    observer: None,
                };
                self.controllers
                    .insert(name.clone(), Controller::start(Guest::new(one.plugin.clone()), options));
            }
        }

        let policies: Vec<_> = is("policy")
            .map(|one| (one.plugin.name().clone(), one.weight))
            .collect();
        if policies != self.policies {
            let mut chain: Vec<Box<dyn Policy>> = Vec::new();
            for one in is("policy") {
                match scheduler::Guest::start(one.plugin.clone(), one.weight).await {
                    Ok(policy) => chain.push(Box::new(policy)),
                    Err(failure) => {
                        tracing::error!(plugin = %one.plugin.name(), %failure, "not in the chain of policies")
                    }
                }
            }
            self.policies = policies;
            // The scheduler is gone only at a stop.
            let _ = self.to_scheduler.send(chain).await;
        }
    }
}

/// What is counted, laid over a Plugin's status when it is read.
struct PluginFigures(Arc<OnceLock<Arc<Objects>>>);

impl Figures for PluginFigures {
    fn of(&self, object: &Object) -> Option<Map<String, Value>> {
        self.0.get()?.figures(&object.key.name)
    }
}

/// A seed nobody chose, printed by the scheduler.
fn seed() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(std::process::id())
}
