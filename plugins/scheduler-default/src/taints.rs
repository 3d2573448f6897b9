//! TaintToleration and NodeUnschedulable.

use sdk::scheduler::records::{
    ANY_EFFECT, Class, NO_SCHEDULE, Node, PREFER_NO_SCHEDULE, Taint, Toleration, TolerationOperator,
};

use crate::mirror::Mirror;

/// The key that stands for `spec.unschedulable`.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The first taint that keeps the class out.
pub fn untolerated<'a>(mirror: &Mirror, class: &Class, node: &'a Node) -> Option<&'a Taint> {
    node.taints
        .iter()
        .find(|t| t.effect != PREFER_NO_SCHEDULE && !class.tolerations.iter().any(|l| tolerates(mirror, l, t)))
}

/// Cordoned, and the class does not tolerate that.
pub fn cordoned(mirror: &Mirror, class: &Class, node: &Node) -> bool {
    node.unschedulable
        && !class.tolerations.iter().any(|t| {
            let key = t.key == 0 && t.op == TolerationOperator::Exists || mirror.text(t.key) == UNSCHEDULABLE;
            key && (t.effect == ANY_EFFECT || t.effect == NO_SCHEDULE)
                && (t.op == TolerationOperator::Exists || t.value == 0)
        })
}

/// How many PreferNoSchedule taints it does not tolerate; fewer is better.
pub fn unwelcome(mirror: &Mirror, class: &Class, node: &Node) -> i32 {
    let prefer = node.taints.iter().filter(|t| t.effect == PREFER_NO_SCHEDULE);
    prefer
        .filter(|t| !class.tolerations.iter().any(|l| tolerates(mirror, l, t)))
        .count() as i32
}

fn tolerates(mirror: &Mirror, t: &Toleration, taint: &Taint) -> bool {
    if t.effect != ANY_EFFECT && t.effect != taint.effect {
        return false;
    }
    if t.key != taint.key && !(t.key == 0 && t.op == TolerationOperator::Exists) {
        return false;
    }
    let numbers = || {
        Some((
            mirror.text(taint.value).parse::<i64>().ok()?,
            mirror.text(t.value).parse::<i64>().ok()?,
        ))
    };
    match t.op {
        TolerationOperator::Exists => true,
        TolerationOperator::Equal => t.value == taint.value,
        TolerationOperator::Lt => numbers().is_some_and(|(taint, bound)| taint < bound),
        TolerationOperator::Gt => numbers().is_some_and(|(taint, bound)| taint > bound),
    }
}
