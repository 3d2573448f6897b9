//! NodeAffinity: nodeSelector, required and preferred node terms, and spec.nodeName's field match.

use sdk::scheduler::records::{Class, Expression, Node, NodeTerm, Operator, Text};

use crate::mirror::Mirror;

pub fn matches(mirror: &Mirror, class: &Class, node: &Node) -> bool {
    class.node_name.is_none_or(|name| node.name == name)
        && class
            .node_selector
            .iter()
            .all(|&(key, value)| node.label(key) == Some(value))
        && class
            .required
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term_matches(mirror, term, node)))
}

/// Whether [`matches`] holds for any node there is.
pub fn takes_any(class: &Class) -> bool {
    class.node_name.is_none() && class.node_selector.is_empty() && class.required.is_none()
}

/// The weights of the preferred terms that match; normalised over the feasible nodes later.
pub fn preference(mirror: &Mirror, class: &Class, node: &Node) -> i32 {
    let matching = class
        .preferred
        .iter()
        .filter(|(_, term)| term_matches(mirror, term, node));
    matching.map(|(weight, _)| weight).sum()
}

fn term_matches(mirror: &Mirror, term: &NodeTerm, node: &Node) -> bool {
    // A term that says nothing matches nothing (core/v1 NodeSelectorTerm).
    (!term.labels.is_empty() || !term.fields.is_empty())
        && term.labels.iter().all(|e| holds(mirror, e, node.label(e.key)))
        && term
            .fields
            .iter()
            .all(|e| mirror.text(e.key) == "metadata.name" && holds(mirror, e, Some(node.name)))
}

fn holds(mirror: &Mirror, e: &Expression, value: Option<Text>) -> bool {
    match e.op {
        Operator::In => value.is_some_and(|v| e.values.contains(&v)),
        Operator::NotIn => value.is_none_or(|v| !e.values.contains(&v)),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::Gt | Operator::Lt => {
            let number = |text: Text| mirror.text(text).parse::<i64>().ok();
            match (value.and_then(number), e.values.first().copied().and_then(number)) {
                (Some(have), Some(bound)) => {
                    (e.op == Operator::Gt && have > bound) || (e.op == Operator::Lt && have < bound)
                }
                _ => false,
            }
        }
    }
}
