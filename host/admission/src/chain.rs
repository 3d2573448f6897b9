//! The chain: mutating rules in order, then, on the finished object, validating ones.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use client::{Cluster, Target};
use model::{Caller, Failure, Gvr, Object, ObjectKey};
use plugin::reads::NoReads;
use plugin::world::Answer;
use plugin::world::admission::{Charge as Asked, Operation as Word, Phase, Request as Call, User, Verdict};
use registry::gates::{Admit, Charge, Interest, Notes, Operation, Request};
use serde_json::Value;
use view::{Grants, View};

use crate::rule::{FailurePolicy, Rule};

/// What a plugin may read.
pub type GrantsOf = Box<dyn Fn(&Arc<plugin::Plugin>) -> Arc<dyn Grants> + Send + Sync>;

/// How often a rule is asked again because it read a kind that nobody had read before.
const FILLS: usize = 16;

struct Connected {
    cluster: Arc<dyn Cluster>,
    view: Arc<View>,
    grants: GrantsOf,
}

/// Built empty before the registry (which asks it), connected after, filled and changed while the cluster runs.
#[derive(Default)]
pub struct Chain {
    rules: ArcSwap<Vec<Arc<Rule>>>,
    connected: OnceLock<Connected>,
}

impl Chain {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Where namespaces are read, and views come from. Writes made before it are refused if a rule wants either.
    pub fn connect(&self, cluster: Arc<dyn Cluster>, view: Arc<View>, grants: GrantsOf) {
        // A second cluster in one process has a chain of its own.
        let _ = self.connected.set(Connected { cluster, view, grants });
    }

    /// The rules from now on: a write under way ends with those it began with. Those that come with the house are asked
    /// first, as kube-apiserver asks its own before any webhook, so that others see what was made complete; else in this order.
    pub fn set(&self, mut rules: Vec<Arc<Rule>>) {
        rules.sort_by_key(|rule| !rule.built_in);
        self.rules.store(Arc::new(rules));
    }

    async fn phase(
        &self,
        phase: Phase,
        request: &Request<'_>,
        mut object: Option<Document<'_>>,
        notes: &mut Notes,
    ) -> Result<(), Failure> {
        let rules = self.rules.load_full();
        let of = Interest {
            operation: request.operation,
            kind: request.kind,
            subresource: &request.target.subresource,
            namespace: &request.target.namespace,
        };
        // Rules pick their fields from text; it is written once, and again after a change.
        let mut texts: Option<Texts> = None;
        for rule in rules.iter().filter(|rule| rule.in_phase(phase) && rule.wants(&of)) {
            let written = match &texts {
                Some(written) => written,
                None => texts.insert(Texts::write(object.as_ref().map(Document::get), request.old)?),
            };
            let asked = self.ask(rule, phase, request, written).await;
            let verdict = match (asked, rule.failure_policy) {
                (Ok(Some(verdict)), _) => verdict,
                (Ok(None), _) => continue,
                (Err(failure), FailurePolicy::Fail) => return Err(failure),
                (Err(failure), FailurePolicy::Ignore) => {
                    notes
                        .warnings
                        .push(format!("{failure}; its failurePolicy lets the request pass"));
                    continue;
                }
            };
            if take(rule, verdict, request, object.as_mut(), notes)? {
                texts = None;
            }
        }
        Ok(())
    }

    /// `None` if the rule has nothing to say to such a request.
    async fn ask(
        &self,
        rule: &Rule,
        phase: Phase,
        request: &Request<'_>,
        texts: &Texts,
    ) -> Result<Option<Verdict>, Failure> {
        let namespace = self.namespace(rule, request).await?;
        let view = self.connected.get().map(|connected| &*connected.view);
        if !rule.has_occasion(texts, namespace.as_deref(), view, &request.target.namespace) {
            return Ok(None);
        }
        let user = request.caller.user();
        let call = Call {
            phase,
            operation: match request.operation {
                Operation::Create => Word::Create,
                Operation::Update => Word::Update,
                Operation::Delete => Word::Delete,
                Operation::Connect => Word::Connect,
            },
            kind: request.gvk.to_string(),
            resource: request.kind.plural.to_string(),
            subresource: request.target.subresource.clone(),
            namespace: request.target.namespace.clone(),
            name: request.target.name.clone(),
            user: User {
                name: user.name.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
            },
            object: rule.pack(texts.object.as_deref()),
            old: rule.pack(texts.old.as_deref()),
            namespace_object: rule.pack_namespace(namespace.as_deref()),
            dry_run: request.dry_run,
        };
        let answer = match self.connected.get() {
            Some(connected) if rule.reads => read_and_review(rule, &call, connected).await?,
            _ => rule.admission.review(&call, Box::new(NoReads)).await,
        };
        match answer {
            Ok(Ok(verdict)) => Ok(Some(verdict)),
            Ok(Err(refusal)) => Err(plugin::refusal(rule.name(), "reviewing a request", refusal)),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The namespace that matters to a rule, if there is one.
    async fn namespace(&self, rule: &Rule, request: &Request<'_>) -> Result<Option<Arc<Object>>, Failure> {
        let name = &request.target.namespace;
        if name.is_empty() || !rule.reads_namespace() {
            return Ok(None);
        }
        let Some(Connected { cluster, .. }) = self.connected.get() else {
            return Ok(None);
        };
        let target = Target::new(Gvr::new("", "v1", "namespaces"), "", name);
        let caller = Caller::component("system:admission", &["system:masters"]);
        client::find(&**cluster, &caller, &target).await
    }
}

/// Asks on a view that stands still. A kind that is read for the first time is filled, and the rule asked once more.
async fn read_and_review(rule: &Rule, call: &Call, connected: &Connected) -> Result<Answer<Verdict>, Failure> {
    for _ in 0..FILLS {
        let view = Arc::new(connected.view.open((connected.grants)(rule.admission.plugin())));
        let answer = rule.admission.review(call, Box::new(view.clone())).await;
        let unfilled = view.unfilled();
        if unfilled.is_empty() {
            return Ok(answer);
        }
        connected.view.fill(&unfilled).await?;
    }
    Err(Failure::Timeout(format!(
        "plugin {} reads ever more kinds that are not there yet",
        rule.name()
    )))
}

#[async_trait]
impl Admit for Chain {
    fn wants(&self, of: &Interest<'_>) -> bool {
        self.rules.load().iter().any(|rule| rule.wants(of))
    }

    async fn mutate(
        &self,
        request: &Request<'_>,
        object: Option<&mut Value>,
        notes: &mut Notes,
    ) -> Result<(), Failure> {
        self.phase(Phase::Mutating, request, object.map(Document::Open), notes)
            .await
    }

    async fn validate(&self, request: &Request<'_>, object: Option<&Value>, notes: &mut Notes) -> Result<(), Failure> {
        self.phase(Phase::Validating, request, object.map(Document::Final), notes)
            .await
    }
}

/// The object, which a rule may or may not change.
enum Document<'a> {
    Open(&'a mut Value),
    Final(&'a Value),
}

impl Document<'_> {
    fn get(&self) -> &Value {
        match self {
            Document::Open(value) => value,
            Document::Final(value) => value,
        }
    }
}

/// The object and its old state as JSON.
pub(crate) struct Texts {
    pub(crate) object: Option<Vec<u8>>,
    pub(crate) old: Option<Vec<u8>>,
}

impl Texts {
    fn write(object: Option<&Value>, old: Option<&Value>) -> Result<Self, Failure> {
        let write = |value: Option<&Value>| value.map(serde_json::to_vec).transpose().map_err(Failure::internal);
        Ok(Self {
            object: write(object)?,
            old: write(old)?,
        })
    }
}

/// Does what a verdict says. Whether that changed the object.
fn take(
    rule: &Rule,
    verdict: Verdict,
    request: &Request<'_>,
    object: Option<&mut Document<'_>>,
    notes: &mut Notes,
) -> Result<bool, Failure> {
    notes.warnings.extend(verdict.warnings);
    notes.annotations.extend(
        verdict
            .audit
            .into_iter()
            .map(|(key, value)| (format!("{}/{key}", rule.name()), value)),
    );
    if let Some(denial) = verdict.denied {
        let resource = request.kind.group_resource();
        let reason = if rule.built_in {
            denial.message
        } else {
            format!("plugin \"{}\" denied the request: {}", rule.name(), denial.message)
        };
        if denial.code == 403 {
            return Err(Failure::Forbidden {
                resource,
                name: request.target.name.clone(),
                reason,
            });
        }
        let object = ObjectKey::new(resource, &request.target.namespace, &request.target.name);
        return Err(Failure::Denied {
            by: rule.name().to_owned(),
            object,
            reason,
            code: denial.code,
        });
    }
    let mut changed = false;
    if let (Some(patch), Some(Document::Open(value))) = (verdict.patch, object) {
        changed = true;
        let bad = |reason: String| Failure::Plugin {
            name: rule.name().to_owned(),
            doing: "changing an object",
            reason,
        };
        let steps: Value =
            serde_json::from_slice(&patch).map_err(|error| bad(format!("its patch is not JSON: {error}")))?;
        schema::json_patch(value, &steps, request.gvk, &request.target.name)
            .map_err(|failure| bad(format!("its patch does not apply: {failure}")))?;
    }
    for charge in verdict.charges {
        let charge = charge_of(rule, charge)?;
        // One write a quota, and a refusal that names everything there is too little of.
        let same = |known: &&mut Charge| (&known.namespace, &known.quota) == (&charge.namespace, &charge.quota);
        match notes.charges.iter_mut().find(same) {
            Some(known) => known.add.extend(charge.add),
            None => notes.charges.push(charge),
        }
    }
    Ok(changed)
}

/// The registry keeps count in ResourceQuotas: `.status.used["pods"]` of one, by its name.
fn charge_of(rule: &Rule, asked: Asked) -> Result<Charge, Failure> {
    let (kind, namespace, quota) = asked.counter;
    let resource = asked
        .field
        .strip_prefix(".status.used[\"")
        .and_then(|rest| rest.strip_suffix("\"]"));
    match resource {
        Some(resource) if kind == "v1/ResourceQuota" => Ok(Charge {
            namespace,
            quota,
            add: [(resource.to_owned(), asked.amount)].into(),
        }),
        _ => Err(Failure::Plugin {
            name: rule.name().to_owned(),
            doing: "charging a quota",
            reason: format!(
                "only v1/ResourceQuota counts, under .status.used[\"…\"]; it asked for {kind} {}",
                asked.field
            ),
        }),
    }
}
