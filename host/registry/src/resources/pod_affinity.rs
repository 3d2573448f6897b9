//! The pod spec: where a pod may go. Affinity, tolerations, spreading, and the terms that select nodes.

use std::collections::BTreeSet;

use model::{Cause, text};
use serde_json::Value;

use crate::resources::check::At;

/// Everything about placing in a pod spec.
pub(crate) fn validate(spec: &mut At<'_, '_>) {
    spec.labels("nodeSelector");
    if spec.has("affinity") {
        affinity(spec.under("affinity"));
    }
    spec.each("topologySpreadConstraints", spread);
    let all = spec.list("topologySpreadConstraints");
    let kind = |c: &Value| (c["topologyKey"].clone(), c["whenUnsatisfiable"].clone());
    let field = spec.path_of("topologySpreadConstraints");
    for (i, one) in all.iter().enumerate() {
        if all[i + 1..].iter().any(|other| kind(other) == kind(one)) {
            let (key, when) = kind(one);
            let shown = format!(
                "\"{{{}, {}}}\"",
                key.as_str().unwrap_or_default(),
                when.as_str().unwrap_or_default()
            );
            spec.push(Cause::duplicate(
                format!("{field}[{i}].{{topologyKey, whenUnsatisfiable}}"),
                shown,
            ));
        }
    }
    spec.each("tolerations", toleration);
}

fn affinity(mut affinity: At<'_, '_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if affinity.has("nodeAffinity") {
        let mut nodes = affinity.under("nodeAffinity");
        if nodes.has(REQUIRED) {
            let mut required = nodes.under(REQUIRED);
            if required.list("nodeSelectorTerms").is_empty() {
                required
                    .under("nodeSelectorTerms")
                    .required("must have at least one node selector term");
            }
            required.each("nodeSelectorTerms", node_term);
        }
        nodes.each(PREFERRED, |mut term| {
            weight(&mut term);
            node_term(term.under("preference"));
        });
    }
    for pods in ["podAffinity", "podAntiAffinity"] {
        if !affinity.has(pods) {
            continue;
        }
        let mut pods = affinity.under(pods);
        pods.each(REQUIRED, pod_term);
        pods.each(PREFERRED, |mut term| {
            weight(&mut term);
            pod_term(term.under("podAffinityTerm"));
        });
    }
}

fn weight(term: &mut At<'_, '_>) {
    let weight = term.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        let cause = Cause::invalid(term.path_of("weight"), weight, "must be in the range 1-100");
        term.push(cause);
    }
}

/// `matchExpressions` by label, `matchFields` by name.
pub(crate) fn node_term(mut term: At<'_, '_>) {
    term.each("matchExpressions", |mut rule| {
        let values = rule.list("values").len();
        match rule.text("operator") {
            "In" | "NotIn" if values == 0 => rule
                .under("values")
                .required("must be specified when `operator` is 'In' or 'NotIn'"),
            "Exists" | "DoesNotExist" if values > 0 => rule
                .under("values")
                .forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
            "Gt" | "Lt" if values != 1 => rule
                .under("values")
                .required("must be specified single value when `operator` is 'Lt' or 'Gt'"),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => rule.under("operator").invalid("not a valid selector operator"),
        }
        rule.under("key").fits(text::qualified_name);
    });
    term.each("matchFields", |mut rule| {
        match rule.text("operator") {
            "In" | "NotIn" if rule.list("values").len() != 1 => rule
                .under("values")
                .required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            "In" | "NotIn" => {}
            _ => rule.under("operator").invalid("not a valid selector operator"),
        }
        if rule.text("key") == "metadata.name" {
            rule.each("values", |mut name| name.fits(text::dns1123_subdomain));
        } else {
            rule.under("key").invalid("not a valid field selector key");
        }
    });
}

fn pod_term(mut term: At<'_, '_>) {
    term.selector("labelSelector");
    term.selector("namespaceSelector");
    term.each("namespaces", |mut name| name.fits(text::dns1123_label));
    match_keys(&mut term, &["matchLabelKeys", "mismatchLabelKeys"]);
    if term.text("topologyKey").is_empty() {
        term.under("topologyKey").required("can not be empty");
    }
    term.may_fit("topologyKey", text::qualified_name);
}

/// Keys whose values are taken from the pod: not those that the selector names, and each once.
fn match_keys(of: &mut At<'_, '_>, lists: &[&str]) {
    let selected: BTreeSet<&str> = of
        .list("labelSelector.matchExpressions")
        .iter()
        .filter_map(|r| r["key"].as_str())
        .chain(
            of.value["labelSelector"]["matchLabels"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, _)| k.as_str()),
        )
        .collect();
    let mut seen: Vec<&Value> = Vec::new();
    for list in lists {
        if !of.list(list).is_empty() && !of.has("labelSelector") {
            of.under(list)
                .forbidden("must not be specified when labelSelector is not set");
        }
        of.each(list, |mut key| {
            key.fits(text::qualified_name);
            if selected.contains(key.value.as_str().unwrap_or_default()) {
                key.invalid("exists in both matchLabelKeys and labelSelector");
            }
            if seen.contains(&key.value) {
                key.invalid("exists in both matchLabelKeys and mismatchLabelKeys");
            }
            seen.push(key.value);
        });
    }
}

fn spread(mut spread: At<'_, '_>) {
    if spread.int("maxSkew").unwrap_or(0) <= 0 {
        let skew = spread.int("maxSkew").unwrap_or(0);
        let cause = Cause::invalid(spread.path_of("maxSkew"), skew, "must be greater than zero");
        spread.push(cause);
    }
    if spread.text("topologyKey").is_empty() {
        spread.under("topologyKey").required("can not be empty");
    } else {
        spread.under("topologyKey").fits(text::qualified_name);
    }
    if !matches!(spread.text("whenUnsatisfiable"), "DoNotSchedule" | "ScheduleAnyway") {
        spread
            .under("whenUnsatisfiable")
            .not_supported(&["DoNotSchedule", "ScheduleAnyway"]);
    }
    if let Some(domains) = spread.int("minDomains") {
        if domains <= 0 {
            spread.under("minDomains").invalid("must be greater than 0");
        }
        if spread.text("whenUnsatisfiable") != "DoNotSchedule" {
            let shown = spread.text("whenUnsatisfiable");
            let says = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {shown}");
            spread.under("minDomains").invalid(&says);
        }
    }
    for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        spread.may_be_one_of(policy, &["Honor", "Ignore"]);
    }
    match_keys(&mut spread, &["matchLabelKeys"]);
    spread.selector("labelSelector");
}

/// What of a node's taints a pod does not mind.
pub(crate) fn toleration(mut toleration: At<'_, '_>) {
    toleration.may_fit("key", text::qualified_name);
    let (key, operator, value) = (
        toleration.text("key"),
        toleration.text("operator"),
        toleration.text("value"),
    );
    let mut of_operator = |shown: &str, says: &str| {
        let cause = Cause::invalid(toleration.path_of("operator"), format!("{shown:?}"), says);
        toleration.push(cause);
    };
    if key.is_empty() && operator != "Exists" {
        let says = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        of_operator(operator, says);
    }
    match operator {
        "" | "Equal" => {
            let complaints = text::label_value(value);
            if !complaints.is_empty() {
                of_operator(value, &complaints.join(";"));
            }
        }
        "Exists" if !value.is_empty() => of_operator(value, "value must be empty when `operator` is 'Exists'"),
        "Exists" => {}
        // Comparing numbers is behind a feature gate that is off.
        "Lt" | "Gt" => toleration
            .under("operator")
            .not_supported(&["Equal", "Exists", "Gt", "Lt"]),
        _ => toleration.under("operator").not_supported(&["Equal", "Exists"]),
    }
    let effect = toleration.text("effect");
    if toleration.has("tolerationSeconds") && effect != "NoExecute" {
        let says = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        let cause = Cause::invalid(toleration.path_of("effect"), format!("{effect:?}"), says);
        toleration.push(cause);
    }
    if !effect.is_empty() {
        toleration.one_of("effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}
