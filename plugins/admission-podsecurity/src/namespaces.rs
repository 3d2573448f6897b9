//! What a Namespace is told: that its labels are wrong, and which of its pods would not pass what they now enforce.

use std::collections::{BTreeMap, BTreeSet};

use sdk::admission::{Answer, Denial};
use sdk::{Fields, View, within};

use crate::checks::violations;
use crate::levels::{Labels, Level, Policy, Standard};
use crate::pod::{Metadata, Pod, Text};

/// Of so many pods, by name, the first of each controller is looked at before its siblings.
const LISTED: u32 = 3000;
/// How many are looked at. A label must not cost more than a call of a rule may.
const LOOKED_AT: usize = 500;
/// Bytes of their specs and annotations after which no other is.
const BYTES: usize = 1 << 20;

/// `old`: its labels before an update. One that was wrong before is no reason to refuse another change.
///
/// `look`: at the pods that are there, which may violate what is newly enforced.
pub(crate) fn review(
    name: &str,
    new: &Labels,
    old: Option<&Labels>,
    look: impl FnOnce(Standard) -> sdk::Result<Found>,
) -> Answer {
    let (policy, wrong) = Policy::of(new);
    let before = old.map(Policy::of);
    if !wrong.is_empty() && before.as_ref().is_none_or(|(_, before)| wrong != *before) {
        return invalid(&wrong);
    }
    let enforce = policy.enforce;
    match before {
        Some((before, _)) if may_be_stricter(enforce, before.enforce) => match look(enforce) {
            Ok(found) => found.told(name, enforce),
            Err(_) => Answer::allow().warn("failed to list pods while checking new PodSecurity enforce level"),
        },
        _ => Answer::allow(),
    }
}

/// A line for each label that is wrong.
fn invalid(wrong: &[String]) -> Answer {
    let message = wrong.join("\n");
    Answer {
        denied: Some(Denial { code: 422, message }),
        ..Answer::default()
    }
}

fn may_be_stricter(new: Standard, old: Standard) -> bool {
    new.level > Level::Privileged && (new.version != old.version || new.level > old.level)
}

/// What the pods of a namespace violate.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What is wrong with some of them, and their names.
    by_reasons: BTreeMap<String, BTreeSet<String>>,
    looked_at: usize,
    total: usize,
}

#[derive(Fields, Debug)]
struct Known {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.ownerReferences[controller=true].uid")]
    controller: String,
}

#[derive(Fields, Debug)]
struct Running {
    #[at(".metadata.annotations")]
    annotations: Labels,
    #[at(".spec")]
    spec: Text,
}

/// # Errors
/// When the pods cannot be read.
pub(crate) fn look(view: &View, namespace: &str, enforce: Standard) -> sdk::Result<Found> {
    let all = within(namespace);
    let total = view.tally("v1/Pod", &all, "", "")?.total()?;
    let mut found = Found::of(usize::try_from(total).unwrap_or_default());
    let known: Vec<Known> = view.find("v1/Pod", &all, "", LISTED)?;
    let mut bytes = 0;
    for name in most_telling(known).into_iter().take(LOOKED_AT) {
        if bytes > BYTES {
            break;
        }
        let pod: Option<Running> = view.get("v1/Pod", namespace, &name)?;
        if let Some(Running { annotations, spec }) = pod {
            bytes += spec.0.len() + annotations.values().map(String::len).sum::<usize>();
            let pod = Pod {
                metadata: Metadata { annotations },
                spec: spec.read()?,
            };
            found.add(name, &pod, enforce);
        }
    }
    Ok(found)
}

/// One pod of each controller first: the others are most likely as it is.
fn most_telling(known: Vec<Known>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let (first, siblings): (Vec<Known>, Vec<Known>) = known
        .into_iter()
        .partition(|pod| pod.controller.is_empty() || seen.insert(pod.controller.clone()));
    first.into_iter().chain(siblings).map(|pod| pod.name).collect()
}

impl Found {
    /// Nothing yet, of `total` pods.
    pub(crate) fn of(total: usize) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, name: String, pod: &Pod, enforce: Standard) {
        self.looked_at += 1;
        let reasons: Vec<&str> = violations(enforce, pod)
            .iter()
            .map(|violation| violation.reason)
            .collect();
        if !reasons.is_empty() {
            self.by_reasons.entry(reasons.join(", ")).or_default().insert(name);
        }
    }

    /// As warnings: a namespace may be labelled whatever runs in it.
    pub(crate) fn told(&self, namespace: &str, enforce: Standard) -> Answer {
        let mut answer = Answer::allow();
        let Self {
            by_reasons,
            looked_at,
            total,
        } = self;
        if looked_at < total {
            answer = answer.warn(format!(
                "new PodSecurity enforce level only checked against the first {looked_at} of {total} existing pods"
            ));
        }
        if !by_reasons.is_empty() {
            answer = answer.warn(format!(
                "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let each = by_reasons.iter().map(|(reasons, names)| {
            let first = names.first().map(String::as_str).unwrap_or_default();
            match names.len() {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                more => format!("{first} (and {} other pods): {reasons}", more - 1),
            }
        });
        // In the order of the pods they name.
        let each: BTreeSet<String> = each.collect();
        each.into_iter().fold(answer, Answer::warn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controllers_first_pod_goes_before_the_siblings_of_others() {
        let known = |name: &str, controller: &str| Known {
            name: name.to_owned(),
            controller: controller.to_owned(),
        };
        let all = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("c", ""), ("a3", "a"), ("d", "")];
        let order = most_telling(all.map(|(name, controller)| known(name, controller)).into());
        assert_eq!(order, ["a1", "b1", "c", "d", "a2", "a3"]);
    }
}
