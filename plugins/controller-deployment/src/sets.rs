//! The Deployment's ReplicaSets: whose they are, which one is of today's template, and how a new one is made.

use std::collections::BTreeMap;

use sdk::owner::Claimable;
use sdk::{Fields, ObjectKey, Outcome, Value, View, json, within};

use crate::{DESIRED, Deployment, HASH, HISTORY, MAX, REPLICA_SET, REVISION};

#[derive(Fields, Clone)]
pub(crate) struct Set {
    #[at(".metadata.name")]
    pub(crate) name: String,
    #[at(".metadata.uid")]
    pub(crate) uid: String,
    #[at(".metadata.creationTimestamp")]
    pub(crate) created: String,
    #[at(".metadata.deletionTimestamp?")]
    pub(crate) deleting: bool,
    #[at(".metadata.annotations")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[at(".metadata.generation")]
    pub(crate) generation: i64,
    #[at(".spec.replicas")]
    pub(crate) replicas: Option<i64>,
    #[at(".spec.minReadySeconds")]
    pub(crate) min_ready_seconds: i64,
    #[at(".spec.template")]
    pub(crate) template: Value,
    #[at(".status.replicas")]
    pub(crate) existing: i64,
    #[at(".status.readyReplicas")]
    pub(crate) ready: i64,
    #[at(".status.availableReplicas")]
    pub(crate) available: i64,
    #[at(".status.terminatingReplicas")]
    pub(crate) terminating: i64,
    #[at(".status.observedGeneration")]
    pub(crate) observed: i64,
    #[at(".status.conditions[type=ReplicaFailure]")]
    pub(crate) failure: Value,
}

impl Set {
    pub(crate) fn wanted(&self) -> i64 {
        self.replicas.unwrap_or(1).max(0)
    }

    /// How many surely are available: a status that trails its set may count pods that are going already.
    pub(crate) fn surely_available(&self) -> i64 {
        self.available.min(self.wanted())
    }

    pub(crate) fn revision(&self) -> i64 {
        self.annotations
            .get(REVISION)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    pub(crate) fn key(&self, deployment: &Deployment) -> ObjectKey {
        ObjectKey::new(REPLICA_SET, &deployment.namespace, &self.name)
    }
}

pub(crate) struct Sets {
    /// Of today's template.
    pub(crate) new: Option<Set>,
    /// The others, oldest first.
    pub(crate) old: Vec<Set>,
}

impl Sets {
    pub(crate) fn find(deployment: &Deployment, view: &View) -> sdk::Result<Self> {
        let ours = within(&deployment.namespace).controlled_by(&deployment.uid);
        let mut old: Vec<Set> = view.find(REPLICA_SET, &ours, ".metadata.creationTimestamp", 0)?;
        // Should there be two of one template, the oldest is it, so that all runs mean the same one.
        let at = old
            .iter()
            .position(|set| !set.deleting && same_template(&set.template, &deployment.template));
        let new = at.map(|at| old.remove(at));
        Ok(Self { new, old })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    pub(crate) fn active_old(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().filter(|set| set.wanted() > 0)
    }

    pub(crate) fn sum(&self, of: impl Fn(&Set) -> i64) -> i64 {
        self.all().map(of).sum()
    }

    /// One more than any revision of an old set.
    pub(crate) fn next_revision(&self) -> i64 {
        self.old.iter().map(Set::revision).max().unwrap_or(0) + 1
    }
}

/// Equal but for the label that the set's own name is made of.
fn same_template(a: &Value, b: &Value) -> bool {
    let bare = |template: &Value| {
        let mut template = template.clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove(HASH);
        }
        template
    };
    bare(a) == bare(b)
}

/// A set that may come to another Deployment.
#[derive(Fields)]
pub(crate) struct Claimed {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
}

impl Claimable for Claimed {
    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn stays(&self) -> bool {
        self.deleting
    }
}

/// Annotations that a set takes over from its Deployment: all but those that speak of the one or the other alone.
pub(crate) fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    const OWN: [&str; 6] = [
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAX,
        "deprecated.deployment.rollback.to",
    ];
    let inherited = deployment
        .annotations
        .iter()
        .filter(|(key, _)| !OWN.contains(&key.as_str()));
    inherited.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A new set of today's template with `replicas` pods.
pub(crate) fn create(deployment: &Deployment, sets: &Sets, replicas: i64, most: i64, outcome: &mut Outcome) {
    let collisions = deployment.status["collisionCount"].as_i64().unwrap_or(0);
    let hash = template_hash(&deployment.template, collisions);
    let mut template = deployment.template.clone();
    template["metadata"]["labels"][HASH] = hash.as_str().into();
    let mut selector = deployment.selector.clone();
    selector["matchLabels"][HASH] = hash.as_str().into();
    let mut annotations = inherited(deployment);
    annotations.insert(REVISION.into(), sets.next_revision().to_string());
    annotations.insert(DESIRED.into(), deployment.wanted().to_string());
    annotations.insert(MAX.into(), most.to_string());
    let name = format!("{}-{hash}", deployment.name);
    outcome.create(&json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": deployment.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [deployment.owner().reference()],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": deployment.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    }));
    let sentence = format!("Scaled up replica set {name} from 0 to {replicas}");
    outcome.event(&deployment.key(), &deployment.uid, false, "ScalingReplicaSet", sentence);
}

/// FNV-1a of the template, in letters that spell no words.
fn template_hash(template: &Value, collisions: i64) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = if collisions > 0 {
        format!("{template}{collisions}")
    } else {
        template.to_string()
    };
    let mut hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let mut letters = String::new();
    while hash > 0 || letters.is_empty() {
        letters.push(LETTERS[hash as usize % LETTERS.len()].into());
        hash /= LETTERS.len() as u32;
    }
    letters
}
