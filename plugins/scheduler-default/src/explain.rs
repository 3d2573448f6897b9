//! Why nodes were rejected, in kube-scheduler's words and in the order of its filters.

use sdk::scheduler::{NodeSet, Verdict};

use crate::classes::Known;
use crate::mirror::Mirror;
use crate::spread::Rejection;
use crate::{affinity, fit, ports, taints};

/// A reason, and whether removing pods could not mend it.
type Why = (String, bool);

pub(crate) fn explain(
    mirror: &Mirror,
    class: u32,
    known: &Known,
    among: &NodeSet,
    passed: NodeSet,
) -> Result<Verdict, String> {
    let class = mirror.class(class)?;
    let why = |slot: u32| -> Why {
        let Some(node) = mirror.node(slot) else {
            return ("node(s) are gone".into(), true);
        };
        if taints::cordoned(mirror, class, node) {
            return ("node(s) were unschedulable".into(), true);
        }
        if let Some(taint) = taints::untolerated(mirror, class, node) {
            let (key, value) = (mirror.text(taint.key), mirror.text(taint.value));
            return (format!("node(s) had untolerated taint {{{key}: {value}}}"), true);
        }
        if !affinity::matches(mirror, class, node) {
            return ("node(s) didn't match Pod's node affinity/selector".into(), true);
        }
        if !ports::free(mirror, class, slot) {
            return (
                "node(s) didn't have free ports for the requested pod ports".into(),
                false,
            );
        }
        let short = fit::short_of(mirror, class, slot);
        if !short.is_empty() {
            return (short.join("\n"), fit::never(mirror, class, slot));
        }
        let rejection = known.spread.iter().find_map(|c| c.rejects(slot));
        match rejection {
            Some(Rejection::MissingLabel) => (
                "node(s) didn't match pod topology spread constraints (missing required label)".into(),
                true,
            ),
            _ => ("node(s) didn't match pod topology spread constraints".into(), false),
        }
    };
    let mut verdict = Verdict {
        passed,
        ..Verdict::default()
    };
    for slot in among
        .iter()
        .filter(|&slot| !verdict.passed.contains(slot))
        .collect::<Vec<_>>()
    {
        let (text, unresolvable) = why(slot);
        let at = verdict.texts.iter().position(|t| *t == text).unwrap_or_else(|| {
            verdict.texts.push(text);
            verdict.texts.len() - 1
        });
        verdict.reasons.push(at as u16);
        if unresolvable {
            verdict.unresolvable.insert(slot);
        }
    }
    Ok(verdict)
}
