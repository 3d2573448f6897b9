//! What objects of the API ask of requests: ValidatingAdmissionPolicy and MutatingAdmissionPolicy, rules in CEL bound to what
//! they apply to; and the webhooks that convert custom kinds from version to version.
//!
//! Start at [`Policies`], an [`Admit`] around another one. One task follows the four kinds and compiles what changes; a
//! request reads the result and waits for nothing but the namespace and the parameters it needs. [`Webhooks`] is the
//! registry's `Convert`.
//!
//! Does not know: plugins, wasmtime, how requests arrive.

mod conversion;
mod face;
mod judge;
mod matching;
mod policy;
mod run;
mod shapes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use client::{Action, Cluster, Collection, ListOptions, PatchKind, Target, WatchOptions, Write, WriteOptions};
use futures::StreamExt;
use model::{Caller, Failure, Gvr, Kind, Object};
use registry::Registry;
use registry::gates::{Admit, Authorize, Interest, Notes, Request};
use serde_json::{Value, json};

pub use conversion::Webhooks;
pub(crate) use policy::{Binding, Effect, Policy};

const GROUP: &str = "admissionregistration.k8s.io";

/// What policies need of the rest.
pub struct Means {
    pub registry: Registry,
    /// Who answers `authorizer.…check(…)`.
    pub authorize: Arc<dyn Authorize>,
}

/// All policies as they are now, and what is asked before them.
pub struct Policies {
    inner: Arc<dyn Admit>,
    current: ArcSwap<Vec<Bound>>,
    /// Held by the task that follows: the registry owns this, and would otherwise own itself.
    means: OnceLock<Weak<Means>>,
}

/// A policy with those bindings that name it.
#[derive(Clone)]
pub(crate) struct Bound {
    pub policy: Arc<Policy>,
    pub bindings: Vec<Arc<Binding>>,
}

/// Who reads what policies ask for, and writes their status.
pub(crate) fn caller() -> Caller {
    Caller::component("system:admission-policies", &["system:masters"])
}

/// The four kinds, policies first.
const KINDS: [(&str, Effect, bool); 4] = [
    ("validatingadmissionpolicies", Effect::Validate, true),
    ("mutatingadmissionpolicies", Effect::Mutate, true),
    ("validatingadmissionpolicybindings", Effect::Validate, false),
    ("mutatingadmissionpolicybindings", Effect::Mutate, false),
];

impl Policies {
    /// Built empty before the registry, which asks it. Policies see what `inner` has made of an object.
    pub fn around(inner: Arc<dyn Admit>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            current: ArcSwap::default(),
            means: OnceLock::new(),
        })
    }

    /// Starts to follow the policies. They count from the moment this returns on, those that are there already as well;
    /// what it returns is to be run for as long as there are requests, and keeps them current.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn start(self: &Arc<Self>, means: Means) -> Result<impl Future<Output = ()> + Send + use<>, Failure> {
        let means = Arc::new(means);
        // A second cluster in one process has policies of its own.
        let _ = self.means.set(Arc::downgrade(&means));
        let mut follower = Follower::default();
        follower.read(&means.registry).await?;
        self.current.store(Arc::new(follower.bound()));
        let weak = Arc::downgrade(self);
        Ok(async move {
            let cluster = &means.registry;
            loop {
                if let Err(error) = follower.wait(cluster).await {
                    tracing::debug!(%error, "the admission policies are read again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                let Some(policies) = weak.upgrade() else { return };
                if let Err(error) = follower.read(cluster).await {
                    tracing::warn!(%error, "the admission policies cannot be read");
                    continue;
                }
                policies.current.store(Arc::new(follower.bound()));
                drop(policies);
                follower.tell(cluster).await;
            }
        })
    }

    /// Whether a policy may care about the write. Cheap: no document exists yet.
    pub(crate) fn concerns(&self, of: &Interest<'_>) -> bool {
        // Policies are not asked about themselves, so that none can lock its owners out.
        if of.kind.gvk.group == GROUP {
            return false;
        }
        let current = self.current.load();
        current
            .iter()
            .any(|bound| !bound.bindings.is_empty() && bound.policy.constraints.may_match(of))
    }
}

#[async_trait]
impl Admit for Policies {
    fn wants(&self, of: &Interest<'_>) -> bool {
        self.inner.wants(of) || self.concerns(of) || of.subresource.is_empty() && effect_of(of.kind).is_some()
    }

    async fn mutate(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Value>,
        notes: &mut Notes,
    ) -> Result<(), Failure> {
        self.inner.mutate(request, object.as_deref_mut(), notes).await?;
        self.change(request, object).await
    }

    async fn validate(&self, request: &Request<'_>, object: Option<&Value>, notes: &mut Notes) -> Result<(), Failure> {
        self.inner.validate(request, object, notes).await?;
        if let Some(policy) = object {
            compiles(request, policy)?;
        }
        self.review(request, object, notes).await
    }
}

/// What the policies of a kind do; `None` for kinds that are no policies.
fn effect_of(kind: &Kind) -> Option<Effect> {
    let of = KINDS.into_iter().filter(|_| kind.gvk.group == GROUP);
    of.filter_map(|(plural, effect, is_policy)| (is_policy && kind.plural == plural).then_some(effect))
        .next()
}

/// A policy whose expressions are none would fail every request it is bound to: it is refused when it is written.
fn compiles(request: &Request<'_>, policy: &Value) -> Result<(), Failure> {
    let Some(effect) = effect_of(request.kind).filter(|_| request.target.subresource.is_empty()) else {
        return Ok(());
    };
    let before = request.old.map(|old| Policy::read(effect, old));
    let causes = Policy::read(effect, policy).faults(before.as_ref());
    if causes.is_empty() {
        return Ok(());
    }
    Err(Failure::Invalid {
        kind: request.kind.gvk.clone(),
        name: request.target.name.clone(),
        causes,
    })
}

#[derive(Default)]
struct Follower {
    policies: BTreeMap<(Effect, String), (Arc<Object>, Arc<Policy>)>,
    bindings: BTreeMap<(Effect, String), (Arc<Object>, Arc<Binding>)>,
}

impl Follower {
    async fn read(&mut self, cluster: &dyn Cluster) -> Result<(), Failure> {
        let (mut policies, mut bindings) = (BTreeMap::new(), BTreeMap::new());
        for (plural, effect, is_policy) in KINDS {
            let list = match cluster
                .list(&caller(), &collection(plural), &ListOptions::default())
                .await
            {
                Ok(list) => list,
                // Not served here: then there are none.
                Err(Failure::NoSuchResource { .. }) => continue,
                Err(failure) => return Err(failure),
            };
            for object in list.items {
                let key = (effect, object.key.name.to_string());
                if is_policy {
                    let had = self.policies.get(&key).filter(|(had, _)| had.version == object.version);
                    let policy = match had {
                        Some((_, policy)) => policy.clone(),
                        None => Arc::new(Policy::read(effect, &object.value())),
                    };
                    policies.insert(key, (object, policy));
                } else {
                    let had = self.bindings.get(&key).filter(|(had, _)| had.version == object.version);
                    let binding = match had {
                        Some((_, binding)) => binding.clone(),
                        None => Arc::new(Binding::read(&object.value())),
                    };
                    bindings.insert(key, (object, binding));
                }
            }
        }
        (self.policies, self.bindings) = (policies, bindings);
        Ok(())
    }

    fn bound(&self) -> Vec<Bound> {
        let bindings_of = |effect: Effect, name: &str| {
            let of = self
                .bindings
                .iter()
                .filter(|((e, _), (_, b))| *e == effect && b.policy == name);
            of.map(|(_, (_, binding))| binding.clone()).collect()
        };
        self.policies
            .iter()
            .map(|((effect, name), (_, policy))| Bound {
                policy: policy.clone(),
                bindings: bindings_of(*effect, name),
            })
            .collect()
    }

    /// Until one of the kinds changes.
    async fn wait(&self, cluster: &dyn Cluster) -> Result<(), Failure> {
        let mut changes = Vec::new();
        for (plural, effect, is_policy) in KINDS {
            let known: BTreeMap<&str, _> = if is_policy {
                let of = self.policies.iter().filter(|((e, _), _)| *e == effect);
                of.map(|((_, name), (object, _))| (name.as_str(), object.version))
                    .collect()
            } else {
                let of = self.bindings.iter().filter(|((e, _), _)| *e == effect);
                of.map(|((_, name), (object, _))| (name.as_str(), object.version))
                    .collect()
            };
            let list = match cluster
                .list(&caller(), &collection(plural), &ListOptions::default())
                .await
            {
                Ok(list) => list,
                Err(Failure::NoSuchResource { .. }) => continue,
                Err(failure) => return Err(failure),
            };
            // Something came between reading and watching.
            let same = |object: &Arc<Object>| known.get(object.key.name.as_str()) == Some(&object.version);
            if list.items.len() != known.len() || !list.items.iter().all(same) {
                return Ok(());
            }
            let options = WatchOptions {
                from: Some(list.version),
                ..WatchOptions::default()
            };
            changes.push(cluster.watch(&caller(), &collection(plural), &options).await?);
        }
        let mut all = futures::stream::select_all(changes);
        match all.next().await {
            Some(Ok(_)) => Ok(()),
            Some(Err(failure)) => Err(failure),
            // Nobody serves them: look again after a while.
            None => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok(())
            }
        }
    }

    /// Says in each validating policy's status that it was looked at, and what of it does not compile.
    async fn tell(&self, cluster: &dyn Cluster) {
        for ((effect, name), (object, policy)) in &self.policies {
            if *effect != Effect::Validate {
                continue;
            }
            let value = object.value();
            let generation = &value["metadata"]["generation"];
            if value["status"]["observedGeneration"] == *generation && value["status"]["typeChecking"].is_object() {
                continue;
            }
            let warnings: Vec<Value> = policy
                .complaints()
                .map(|(expression, why)| json!({"fieldRef": expression.field, "warning": why}))
                .collect();
            let mut checking = json!({});
            if !warnings.is_empty() {
                checking["expressionWarnings"] = warnings.into();
            }
            let status = json!({"status": {"observedGeneration": generation, "typeChecking": checking}});
            let write = Write {
                target: Target::new(gvr("validatingadmissionpolicies"), "", name).subresource("status"),
                action: Action::Patch {
                    kind: PatchKind::Merge,
                    body: status.to_string().into(),
                    preconditions: Default::default(),
                },
                options: WriteOptions::default(),
            };
            if let Err(error) = cluster.write(&caller(), write).await {
                tracing::debug!(%name, %error, "the status of a policy was not written");
            }
        }
    }
}

fn gvr(plural: &str) -> Gvr {
    Gvr::new(GROUP, "v1", plural)
}

fn collection(plural: &str) -> Collection {
    Collection::all(gvr(plural))
}
