//! `Plugin` objects: what an operator applies becomes what is loaded, and what became of it stands in the status.
//!
//! One object is looked at at a time, in the order in which they changed. A revision that does not load changes nothing but
//! the status: whatever served before serves on. Figures are not written here; see [`Objects::figures`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Action, Cluster, Collection, News, PatchKind, Preconditions, Target, Write, WriteOptions};
use futures::StreamExt;
use model::{Caller, Failure, Gvr, Object};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::breaker::BreakerState;
use crate::grants::{Grants, Rule};
use crate::host::{Host, Load, World};
use crate::limits::Limits;
use crate::plugin::Plugin;
use crate::{Digest, PluginName};

/// Components are read whole into memory; nobody's plugin is larger.
const LARGEST: u64 = 256 << 20;

/// Who the plugin host is in `managedFields`.
const MANAGER: &str = "pilotis-plugin-host";

/// A plugin that an object asks for and that has loaded at least once.
#[derive(Clone)]
pub struct Loaded {
    pub plugin: Arc<Plugin>,
    /// A fault lets the request pass (`spec.failurePolicy: Ignore`).
    pub ignore_faults: bool,
    /// Part of this very build.
    pub built_in: bool,
    /// Lower ones are asked first; then by name.
    pub order: i64,
    /// `spec.config.weight`, for policies.
    pub weight: Option<i64>,
}

/// All that are loaded, in the order in which they are asked.
pub type LoadedPlugins = Arc<Vec<Loaded>>;

/// Follows the `Plugin` objects of a cluster.
pub struct Objects {
    host: Arc<Host>,
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    /// Name and component of the plugins built into this binary.
    embedded: &'static [(&'static str, &'static [u8])],
    known: parking_lot::Mutex<BTreeMap<PluginName, Known>>,
    loaded: watch::Sender<LoadedPlugins>,
    listed: watch::Sender<bool>,
}

struct Known {
    plugin: Arc<Plugin>,
    spec: Value,
    loaded: Option<Loaded>,
    /// Revision number and digest of what serves, and of what served before.
    active: Option<(i64, Digest)>,
    previous: Option<(i64, Digest)>,
    /// The status as it was last written.
    told: Value,
    again: Option<Again>,
}

/// What failed for a reason that can go away without a change of the object (its file is not there yet) is tried again.
struct Again {
    at: Instant,
    wait: Duration,
    object: Arc<Object>,
}

const FIRST_AGAIN: Duration = Duration::from_millis(500);
const LONGEST_AGAIN: Duration = Duration::from_secs(60);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    source: Source,
    digest: String,
    config: Value,
    grants: GrantsSpec,
    limits: LimitsSpec,
    failure_policy: String,
    order: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    embedded: Option<String>,
    file: Option<String>,
    oci: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GrantsSpec {
    rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LimitsSpec {
    memory: Option<Value>,
    cpu_millis: Option<u64>,
    wall_millis: Option<u64>,
    host_calls: Option<u32>,
    host_bytes: Option<u64>,
}

/// Why an object did not become a revision: the condition's reason and message.
struct NotLoaded {
    reason: &'static str,
    message: String,
}

impl NotLoaded {
    /// May pass by itself: the source or the API server was not there.
    fn may_pass(&self) -> bool {
        matches!(self.reason, "SourceNotFound" | "GrantFailed")
    }
}

impl Objects {
    pub fn new(
        host: Arc<Host>,
        cluster: Arc<dyn Cluster>,
        caller: Caller,
        embedded: &'static [(&'static str, &'static [u8])],
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            cluster,
            caller,
            embedded,
            known: parking_lot::Mutex::default(),
            loaded: watch::Sender::new(Arc::default()),
            listed: watch::Sender::new(false),
        })
    }

    /// What is loaded; changes whenever a plugin comes, goes or is asked in another order. A swap of one that is there
    /// changes nothing here: its [`Plugin`] follows by itself.
    pub fn loaded(&self) -> watch::Receiver<LoadedPlugins> {
        self.loaded.subscribe()
    }

    /// Resolves when every object that was there at the start has been looked at.
    pub async fn first_look(&self) {
        // The sender lives in `self`, so this cannot fail while we are borrowed.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Runs until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut news = client::follow(
            self.cluster.clone(),
            self.caller.clone(),
            Collection::all(plugins()),
            "",
        );
        loop {
            let next = match self.next_again() {
                None => news.next().await,
                Some(at) => match tokio::time::timeout_at(at.into(), news.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.look_again().await;
                        continue;
                    }
                },
            };
            match next {
                Some(News::Restarted { objects, .. }) => self.look_at_all(&objects).await,
                Some(News::Changed(object)) => self.look_at(&object).await,
                Some(News::Removed(object)) => self.unload(&PluginName::new(&object.key.name)).await,
                Some(News::UpTo(_) | News::Failed(_)) => {}
                None => return,
            }
        }
    }

    async fn look_at_all(&self, objects: &[Arc<Object>]) {
        let gone: Vec<PluginName> = {
            let there = |name: &PluginName| objects.iter().any(|object| object.key.name == name.as_str());
            self.known.lock().keys().filter(|name| !there(name)).cloned().collect()
        };
        for name in gone {
            self.unload(&name).await;
        }
        for object in objects {
            self.look_at(object).await;
        }
        self.listed.send_replace(true);
    }

    /// When the next of those that failed is due.
    fn next_again(&self) -> Option<Instant> {
        self.known
            .lock()
            .values()
            .filter_map(|known| Some(known.again.as_ref()?.at))
            .min()
    }

    async fn look_again(&self) {
        let now = Instant::now();
        let due: Vec<Arc<Object>> = {
            let mut known = self.known.lock();
            let due = known
                .values_mut()
                .filter(|known| known.again.as_ref().is_some_and(|again| again.at <= now));
            due.filter_map(|known| {
                known.spec = Value::Null;
                known.again.as_ref().map(|again| again.object.clone())
            })
            .collect()
        };
        for object in due {
            self.look_at(&object).await;
        }
    }

    async fn look_at(&self, object: &Arc<Object>) {
        let name = PluginName::new(&object.key.name);
        let value = object.value();
        // Our own status writes, labels and annotations change nothing about what is loaded.
        if self
            .known
            .lock()
            .get(&name)
            .is_some_and(|known| known.spec == value["spec"])
        {
            return;
        }
        let plugin = self
            .known
            .lock()
            .get(&name)
            .map_or_else(|| Plugin::new(name.clone()), |known| known.plugin.clone());
        let outcome = self.load(&plugin, &value).await;
        if let Err(NotLoaded { reason, message }) = &outcome {
            tracing::warn!(plugin = %name, reason, message, "a plugin was not loaded");
        }
        let generation = value["metadata"]["generation"].as_i64().unwrap_or(1);
        let status = {
            let mut known = self.known.lock();
            let known = known.entry(name.clone()).or_insert_with(|| Known {
                plugin: plugin.clone(),
                spec: Value::Null,
                loaded: None,
                active: None,
                previous: None,
                told: Value::Null,
                again: None,
            });
            known.spec = value["spec"].clone();
            if let Ok(loaded) = &outcome {
                let digest = plugin.current().map(|revision| revision.digest());
                known.previous = known.active.take();
                known.active = digest.map(|digest| (generation, digest));
                known.loaded = Some(loaded.clone());
            }
            let waited = known.again.take().map_or(FIRST_AGAIN / 2, |again| again.wait);
            if outcome.as_ref().is_err_and(NotLoaded::may_pass) {
                let wait = (waited * 2).min(LONGEST_AGAIN);
                known.again = Some(Again {
                    at: Instant::now() + wait,
                    wait,
                    object: object.clone(),
                });
            }
            let status = status(known, &value, outcome.as_ref().err());
            (known.told != status).then(|| {
                known.told = status.clone();
                status
            })
        };
        self.publish();
        if let Some(status) = status {
            self.write_status(object, status).await;
        }
    }

    /// Reads, compiles and starts what the object asks for, and puts it in the place of what served before.
    async fn load(&self, plugin: &Arc<Plugin>, value: &Value) -> Result<Loaded, NotLoaded> {
        let spec: Spec = serde_json::from_value(value["spec"].clone()).map_err(|error| NotLoaded {
            reason: "InvalidSpec",
            message: format!("the spec cannot be read: {error}"),
        })?;
        let (component, built_in) = self.component(&spec.source).await?;
        let digest = Digest::of(&component);
        if !spec.digest.is_empty() && spec.digest != digest.to_string() {
            let message = format!(
                "the component is {digest}, and spec.digest asks for {}; correct one of the two",
                spec.digest
            );
            return Err(NotLoaded {
                reason: "DigestMismatch",
                message,
            });
        }
        let grants = match (built_in, spec.grants.rules.is_empty()) {
            (true, true) => Grants::All,
            (false, true) => Grants::None,
            (_, false) => Grants::Rules(spec.grants.rules.clone()),
        };
        let config = if spec.config.is_null() {
            json!({})
        } else {
            spec.config.clone()
        };
        let load = Load {
            name: plugin.name().clone(),
            limits: limits(&spec.limits, &component)?,
            component,
            config: config.to_string().into(),
            grants: grants.clone(),
            world: World::Any,
            figures: plugin.figures().clone(),
        };
        let revision = self.host.load(load).await.map_err(|fault| NotLoaded {
            reason: "LoadFailed",
            message: fault.message.clone(),
        })?;
        let rules = match grants {
            Grants::All => revision.about().asks().to_vec(),
            Grants::Rules(rules) => rules,
            Grants::None => Vec::new(),
        };
        // Before the cut: what it writes in its first call is allowed by then.
        self.allow(plugin.name(), &rules).await.map_err(|failure| NotLoaded {
            reason: "GrantFailed",
            message: format!("its role cannot be written: {failure}"),
        })?;
        plugin.swap(revision);
        Ok(Loaded {
            plugin: plugin.clone(),
            ignore_faults: spec.failure_policy == "Ignore",
            built_in,
            order: spec.order.unwrap_or(0),
            weight: config["weight"].as_i64(),
        })
    }

    async fn component(&self, source: &Source) -> Result<(Arc<[u8]>, bool), NotLoaded> {
        if let Some(name) = &source.embedded {
            let found = self.embedded.iter().find(|(known, _)| known == name);
            return match found {
                Some((_, bytes)) => Ok(((*bytes).into(), true)),
                None => {
                    let names: Vec<&str> = self.embedded.iter().map(|(name, _)| *name).collect();
                    let message = format!(
                        "no plugin {name:?} is built into this binary; there are: {}",
                        names.join(", ")
                    );
                    Err(NotLoaded {
                        reason: "SourceNotFound",
                        message,
                    })
                }
            };
        }
        if let Some(path) = &source.file {
            let not_read = |what: String| NotLoaded {
                reason: "SourceNotFound",
                message: format!("{path}: {what}"),
            };
            let size = tokio::fs::metadata(path)
                .await
                .map_err(|error| not_read(error.to_string()))?
                .len();
            if size > LARGEST {
                return Err(not_read(format!(
                    "{size} bytes; {LARGEST} is the most a component may have"
                )));
            }
            let bytes = tokio::fs::read(path)
                .await
                .map_err(|error| not_read(error.to_string()))?;
            return Ok((bytes.into(), false));
        }
        let what = if source.oci.is_some() {
            "OCI references are"
        } else {
            "an empty source is"
        };
        Err(NotLoaded {
            reason: "SourceNotSupported",
            message: format!("{what} not supported by this version; give spec.source.file or spec.source.embedded"),
        })
    }

    async fn unload(&self, name: &PluginName) {
        let known = self.known.lock().remove(name);
        let Some(known) = known else { return };
        self.publish();
        known.plugin.unload();
        for resource in ["clusterrolebindings", "clusterroles"] {
            let write = Write {
                target: Target::new(rbac(resource), "", &role_name(name)),
                action: Action::Delete(client::DeleteOptions::default()),
                options: WriteOptions::default(),
            };
            match self.cluster.write(&self.caller, write).await {
                Ok(_) | Err(Failure::NotFound(_)) => {}
                Err(failure) => {
                    tracing::warn!(plugin = %name, %failure, "what it was allowed is not taken back yet")
                }
            }
        }
        tracing::info!(plugin = %name, "unloaded");
    }

    fn publish(&self) {
        let mut all: Vec<Loaded> = self
            .known
            .lock()
            .values()
            .filter_map(|known| known.loaded.clone())
            .collect();
        all.sort_by(|a, b| (a.order, a.plugin.name()).cmp(&(b.order, b.plugin.name())));
        self.loaded.send_replace(Arc::new(all));
    }

    /// Makes what is granted a role of the plugin's own user, `system:plugin:NAME`.
    async fn allow(&self, name: &PluginName, rules: &[Rule]) -> Result<(), Failure> {
        let role = role_name(name);
        let labels = json!({"plugins.pilotis.dev/plugin": name.as_str()});
        let objects = [
            (
                "clusterroles",
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRole",
                    "metadata": {"name": role, "labels": labels},
                    "rules": rules,
                }),
            ),
            (
                "clusterrolebindings",
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": role, "labels": labels},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}],
                }),
            ),
        ];
        for (resource, object) in objects {
            self.apply(Target::new(rbac(resource), "", &role), &object).await?;
        }
        Ok(())
    }

    async fn apply(&self, target: Target, object: &Value) -> Result<(), Failure> {
        let action = Action::Patch {
            kind: PatchKind::Apply { force: true },
            body: object.to_string().into(),
            preconditions: Preconditions::default(),
        };
        let options = WriteOptions {
            field_manager: MANAGER.into(),
            ..WriteOptions::default()
        };
        self.cluster
            .write(
                &self.caller,
                Write {
                    target,
                    action,
                    options,
                },
            )
            .await
            .map(|_| ())
    }

    async fn write_status(&self, object: &Object, status: Value) {
        let patch = json!({"metadata": {"uid": object.uid.0}, "status": status});
        let write = Write {
            target: Target::new(plugins(), "", &object.key.name).subresource("status"),
            action: Action::Patch {
                kind: PatchKind::Merge,
                body: patch.to_string().into(),
                preconditions: Preconditions {
                    uid: Some(object.uid.clone()),
                    version: None,
                },
            },
            options: WriteOptions::default(),
        };
        match self.cluster.write(&self.caller, write).await {
            Ok(_) | Err(Failure::NotFound(_)) => {}
            Err(failure) => {
                tracing::warn!(plugin = %object.key.name, %failure, "its status is not written")
            }
        }
    }

    /// What is laid over a Plugin's status when it is read: counted since the start of this process.
    pub fn figures(&self, name: &str) -> Option<Map<String, Value>> {
        let (plugin, active) = {
            let known = self.known.lock();
            let known = known.get(&PluginName::new(name))?;
            (known.plugin.clone(), known.active.map(|(_, digest)| digest))
        };
        let read = plugin.read_figures();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut fields = Map::new();
        fields.insert("calls".into(), read.calls.into());
        fields.insert("faults".into(), read.faults.into());
        fields.insert("memoryBytes".into(), read.memory.into());
        if read.calls > 0 {
            fields.insert("p50Nanos".into(), nanos(read.p50).into());
            fields.insert("p99Nanos".into(), nanos(read.p99).into());
        }
        let breaker = match plugin.breaker() {
            BreakerState::Closed => "Closed",
            BreakerState::Open(_) => {
                fields.insert("state".into(), "Degraded".into());
                "Open"
            }
            BreakerState::HalfOpen => "HalfOpen",
        };
        // A revision that never worked was taken back: the status says what it was to be, this what it is.
        let serves = plugin.current().map(|revision| revision.digest());
        if let Some(serves) = serves.filter(|serves| Some(*serves) != active) {
            fields.insert("state".into(), "Degraded".into());
            fields.insert("digest".into(), serves.to_string().into());
        }
        fields.insert("breaker".into(), breaker.into());
        if let Some(fault) = read.last_fault {
            fields.insert(
                "lastFault".into(),
                json!({"message": fault.to_string(), "backtrace": fault.backtrace.join("\n")}),
            );
        }
        Some(fields)
    }
}

fn plugins() -> Gvr {
    Gvr::new("plugins.pilotis.dev", "v1alpha1", "plugins")
}

fn rbac(resource: &str) -> Gvr {
    Gvr::new("rbac.authorization.k8s.io", "v1", resource)
}

fn role_name(name: &PluginName) -> String {
    format!("system:plugin:{name}")
}

/// The defaults of the world the component is for, with what the object says instead.
fn limits(asked: &LimitsSpec, component: &[u8]) -> Result<Option<Limits>, NotLoaded> {
    let LimitsSpec {
        memory,
        cpu_millis,
        wall_millis,
        host_calls,
        host_bytes,
    } = asked;
    if memory.is_none() && cpu_millis.is_none() && wall_millis.is_none() && host_calls.is_none() && host_bytes.is_none()
    {
        return Ok(None);
    }
    // What it exports is known for certain only after compiling; the names stand in its bytes.
    let names = |text: &str| memchr::memmem::find(component, text.as_bytes()).is_some();
    let mut limits = match () {
        () if names("pilotis:scheduler/mirror") => Limits::policy(),
        () if names("pilotis:admission/review") => Limits::admission(),
        () => Limits::controller(),
    };
    if let Some(memory) = memory {
        let text = memory.as_str().map_or_else(|| memory.to_string(), str::to_owned);
        let bytes = model::Quantity::parse(&text).map_err(|failure| NotLoaded {
            reason: "InvalidSpec",
            message: format!("spec.limits.memory: {failure}"),
        })?;
        limits.memory = usize::try_from(bytes.value()).unwrap_or(usize::MAX);
    }
    let millis = |given: &Option<u64>, default: Duration| given.map_or(default, Duration::from_millis);
    limits.cpu = millis(cpu_millis, limits.cpu);
    limits.deadline = millis(wall_millis, limits.deadline);
    limits.host_calls = host_calls.unwrap_or(limits.host_calls);
    limits.host_bytes = host_bytes.unwrap_or(limits.host_bytes);
    Ok(Some(limits))
}

/// The whole status but for the figures. Conditions keep their times where nothing changed.
fn status(known: &Known, object: &Value, wrong: Option<&NotLoaded>) -> Value {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
    let (truth, reason, message) = match wrong {
        None => ("True", "Loaded", "the component is loaded and serves".to_owned()),
        Some(wrong) if known.active.is_some() => (
            "False",
            wrong.reason,
            format!("{}; the previous revision serves on", wrong.message),
        ),
        Some(wrong) => ("False", wrong.reason, wrong.message.clone()),
    };
    let state = match (wrong, &known.active) {
        (None, _) => "Ready",
        (Some(_), Some(_)) => "Degraded",
        (Some(_), None) => "Failed",
    };
    let before = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Loaded");
    let since = before
        .filter(|c| c["status"] == truth)
        .map(|c| c["lastTransitionTime"].clone());
    let since = since.unwrap_or_else(|| model::time::seconds(jiff::Timestamp::now()).into());
    let current = known.plugin.current();
    let numbered = |at: &Option<(i64, Digest)>| at.as_ref().map(|(n, digest)| (n.to_string(), digest.to_string()));
    let (active, previous) = (numbered(&known.active), numbered(&known.previous));
    json!({
        "state": state,
        "revision": active.as_ref().map(|(n, _)| n),
        "digest": active.as_ref().map(|(_, digest)| digest),
        "previous": previous.map(|(n, digest)| json!({"revision": n, "digest": digest})),
        "source": source_text(&object["spec"]["source"]),
        "worlds": current.map(|revision| revision.worlds()).unwrap_or_default(),
        "observedGeneration": generation,
        "conditions": [{
            "type": "Loaded",
            "status": truth,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        }],
    })
}

fn source_text(source: &Value) -> Option<String> {
    let one = source.as_object()?.iter().next()?;
    Some(format!("{}:{}", one.0, one.1.as_str()?))
}
