//! Loading: from bytes to a revision that can be called.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use model::Failure;
use wasmtime::component::Component;

use crate::cache::{Cache, Origin};
use crate::engine::{EngineKind, Engines};
use crate::exports::Indices;
use crate::fault::{Fault, FaultKind};
use crate::figures::Figures;
use crate::grants::{Grants, Rule};
use crate::images::Images;
use crate::instance::Mould;
use crate::limits::Limits;
use crate::revision::{About, Revision};
use crate::{Digest, PluginName};

/// The engines, what is linked to them, and the cache of compiled code. One a process.
pub struct Host {
    engines: Engines,
    cache: Cache,
}

/// What a revision is made of.
#[derive(Clone)]
pub struct Load {
    pub name: PluginName,
    /// A component, as `wasm32-wasip2` builds one. Shared, as embedded ones are static.
    pub component: Arc<[u8]>,
    /// `spec.config` of the Plugin object as JSON; `{}` when there is none.
    pub config: Arc<str>,
    pub grants: Grants,
    /// `None`: the defaults of the worlds it exports.
    pub limits: Option<Limits>,
    /// What it is wanted for.
    pub world: World,
    /// Counters that go on over revisions.
    pub figures: Arc<Figures>,
}

/// What a plugin may be wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum World {
    /// Whatever it exports.
    Any,
    Controller,
    Policy,
    Admission,
}

impl World {
    pub fn as_str(self) -> &'static str {
        match self {
            World::Any => "any",
            World::Controller => "controller",
            World::Policy => "scheduling policy",
            World::Admission => "admission",
        }
    }
}

impl Host {
    /// `cache`: a folder for compiled code, made if missing and kept private.
    ///
    /// # Errors
    /// [`Failure::Internal`] with what to do.
    pub fn new(cache: &Path) -> Result<Arc<Self>, Failure> {
        Self::with_images(cache, Images::default())
    }

    /// As [`Host::new`], with code that came with the binary: what it holds is neither compiled nor cached.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn with_images(cache: &Path, images: Images) -> Result<Arc<Self>, Failure> {
        let engines = Engines::new()?;
        let cache = Cache::open(cache, images)?;
        cache.sweep(&[
            &engines.get(EngineKind::Pooled).engine,
            &engines.get(EngineKind::OnDemand).engine,
        ]);
        Ok(Arc::new(Self { engines, cache }))
    }

    /// Compiles the component (or finds it compiled), checks what it imports, exports and asks for, and starts it once.
    ///
    /// # Errors
    /// A [`Fault`] that says what is wrong with the component or its configuration. Whatever served before is untouched.
    pub async fn load(self: &Arc<Self>, load: Load) -> Result<Arc<Revision>, Fault> {
        let started = Instant::now();
        let digest = Digest::of(&load.component);
        let fault = |kind, message: String| Fault {
            plugin: load.name.clone(),
            digest: Some(digest),
            kind,
            doing: "load",
            message,
            backtrace: Vec::new(),
        };
        if !load.component.starts_with(b"\0asm") {
            return Err(fault(
                FaultKind::Load,
                "this is not WebAssembly; a plugin is a component built for wasm32-wasip2".into(),
            ));
        }
        if load.component.get(4..8) == Some(&[1, 0, 0, 0]) {
            let what = "this is a core module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`";
            return Err(fault(FaultKind::Load, what.into()));
        }
        let limits = load.limits.clone();
        // Whoever gave no limits gets those of its world, which is known after compiling; the engine is chosen before.
        let kind = limits.as_ref().map_or_else(
            || EngineKind::for_component(&load.component),
            |limits| EngineKind::for_guest(load.component.len(), limits),
        );
        let (component, origin, kind) = self
            .component(digest, &load, kind)
            .await
            .map_err(|error| fault(FaultKind::Load, format!("it does not compile: {error:#}")))?;
        let tenant = self.engines.get(kind);
        let pre = tenant.linker.instantiate_pre(&component);
        let pre = pre.map_err(|error| match denied_import(&component) {
            Some(import) => fault(FaultKind::DeniedImport, denied(&import)),
            None => fault(FaultKind::Load, format!("it does not fit this host: {error:#}")),
        })?;
        let indices = Indices::find(&pre);
        let names = indices.names();
        let has = |world| match world {
            World::Any => has_world(&indices),
            World::Controller => indices.controller_about.is_some() && indices.reconcile.is_some(),
            World::Policy => indices.policy_about.is_some() && indices.mirror.is_some(),
            World::Admission => indices.admission_about.is_some() && indices.review.is_some(),
        };
        if !has(load.world) {
            return Err(fault(
                FaultKind::WrongWorld,
                wrong_world(load.world, &component, &names),
            ));
        }
        let limits = limits.unwrap_or_else(|| {
            if indices.mirror.is_some() {
                Limits::policy()
            } else if indices.reconcile.is_some() {
                Limits::controller()
            } else {
                Limits::admission()
            }
        });
        let mould = Mould {
            plugin: load.name.clone(),
            digest,
            limits,
            pre,
            indices,
            ticker: self.engines.ticker.clone(),
            figures: load.figures.clone(),
        };
        // The first instance is asked what it is before it is told its configuration, and then kept for the first call.
        let mut first = mould.instantiate().await?;
        let about = About::ask(&mould, &mut first).await?;
        let beyond: Vec<Rule> = load.grants.beyond(about.asks());
        if !beyond.is_empty() {
            let asked: Vec<String> = beyond.iter().map(ToString::to_string).collect();
            return Err(fault(
                FaultKind::Grants,
                format!(
                    "it asks for more than spec.grants allows: {}; add these rules, or use a version that asks for less",
                    asked.join("; ")
                ),
            ));
        }
        crate::config::check(about.config_schema(), &load.config)
            .map_err(|wrong| fault(FaultKind::Configure, wrong))?;
        let revision = Revision::new(mould, about, load.config, load.grants, names, kind, origin);
        revision.admit_first(first).await?;
        revision.loaded(started.elapsed());
        Ok(revision)
    }

    /// In a thread of its own: compiling takes seconds. What the pool has no room for goes to the other engine.
    async fn component(
        self: &Arc<Self>,
        digest: Digest,
        load: &Load,
        kind: EngineKind,
    ) -> wasmtime::Result<(Component, Origin, EngineKind)> {
        let (host, bytes) = (self.clone(), load.component.clone());
        let task = tokio::task::spawn_blocking(move || {
            let at = |kind: EngineKind| host.cache.load(&host.engines.get(kind).engine, digest, &bytes);
            match at(kind) {
                Ok((component, origin)) => Ok((component, origin, kind)),
                Err(_) if kind == EngineKind::Pooled => {
                    at(EngineKind::OnDemand).map(|(component, origin)| (component, origin, EngineKind::OnDemand))
                }
                Err(error) => Err(error),
            }
        });
        task.await
            .map_err(|error| wasmtime::format_err!("compiling was cut short: {error}"))?
    }
}

fn has_world(indices: &Indices) -> bool {
    indices.reconcile.is_some() || indices.mirror.is_some() || indices.review.is_some()
}

/// The first import that no plugin is offered.
fn denied_import(component: &Component) -> Option<String> {
    const OFFERED: &[&str] = &[
        "pilotis:",
        "wasi:io/",
        "wasi:cli/",
        "wasi:clocks/",
        "wasi:random/",
        "wasi:filesystem/",
    ];
    let ty = component.component_type();
    let mut names = ty.imports(component.engine()).map(|(name, _)| name.to_owned());
    names.find(|name| !OFFERED.iter().any(|offered| name.starts_with(offered)))
}

fn denied(import: &str) -> String {
    format!(
        "it imports {import}, which no plugin is given: time, chance and the cluster are reached through pilotis: interfaces; build it without that import"
    )
}

fn wrong_world(wanted: World, component: &Component, known: &[&str]) -> String {
    let ty = component.component_type();
    let all: Vec<String> = ty
        .exports(component.engine())
        .map(|(name, _)| name.to_owned())
        .collect();
    let has = match (known.is_empty(), all.is_empty()) {
        (_, true) => "nothing".to_owned(),
        (true, _) => format!("{}, none of which this host knows", all.join(", ")),
        _ => known.join(", "),
    };
    let needs = match wanted {
        World::Any => {
            "pilotis:controller/reconcile, pilotis:scheduler/mirror or pilotis:admission/review (each with its about)"
        }
        World::Controller => "pilotis:controller/about and pilotis:controller/reconcile",
        World::Policy => "pilotis:scheduler/about and pilotis:scheduler/mirror",
        World::Admission => "pilotis:admission/about and pilotis:admission/review",
    };
    format!("it exports {has}; it must export {needs}")
}
