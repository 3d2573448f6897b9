//! What a CustomResourceDefinition must be, beside its schemas (`schema::Definition`): names, versions, columns, subresources,
//! conversion. The words and places are kube-apiserver's, which checks what all versions share under `spec` itself.

use model::{Cause, CauseReason};
use schema::{Definition, field_path};
use serde_json::{Value, json};

use crate::meta;
use crate::resources::common::immutable;
use crate::resources::crd::is_true;
use crate::table::{list_at, plain, text_at};

/// Groups of the project's own, whose APIs are reviewed.
pub(crate) const APPROVAL: &str = "api-approved.kubernetes.io";
pub(crate) const MUST_APPROVE: &str = "protected groups must have approval annotation \"api-approved.kubernetes.io\"";
const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
const MOST_SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];

/// The status door: names only.
pub(crate) fn status(new: &Value, _: Option<&Value>, wrong: &mut Vec<Cause>) {
    names(&new["status"]["acceptedNames"], "status.acceptedNames", wrong);
}

pub(crate) fn all(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let (group, plural) = (text_at(spec, "group"), text_at(spec, "names.plural"));
    let name = meta::text(new, "name");
    if old.is_none() && name != format!("{plural}.{group}") {
        let says = "must be spec.names.plural+\".\"+spec.group";
        wrong.push(Cause::invalid("metadata.name", quoted(name), says));
    }
    let invalid = |field: &str, text: &str, complaints: Vec<String>, wrong: &mut Vec<Cause>| {
        if !complaints.is_empty() {
            wrong.push(Cause::invalid(field, quoted(text), &complaints.join(",")));
        }
    };
    if group.is_empty() {
        wrong.push(Cause::required("spec.group", ""));
    } else {
        let complaints = model::text::dns1123_subdomain(group);
        if complaints.is_empty() && !group.contains('.') {
            wrong.push(Cause::invalid(
                "spec.group",
                quoted(group),
                "should be a domain with at least one dot",
            ));
        }
        invalid("spec.group", group, complaints, wrong);
    }
    one_of(text_at(spec, "scope"), &["Cluster", "Namespaced"], "spec.scope", wrong);
    versions(new, old, wrong);
    for key in ["plural", "singular", "kind", "listKind"] {
        if text_at(spec, &format!("names.{key}")).is_empty() {
            wrong.push(Cause::required(format!("spec.names.{key}"), ""));
        }
    }
    names(&spec["names"], "spec.names", wrong);
    conversion(&spec["conversion"], wrong);
    stored_versions(new, wrong);
    approval(new, old, wrong);
    if spec["preserveUnknownFields"] == true && old.is_none_or(|old| old["spec"]["preserveUnknownFields"] != true) {
        let says =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        wrong.push(Cause::invalid("spec.preserveUnknownFields", true, says));
    }
    if old.is_some_and(|old| is_true(old, "Established")) {
        for path in ["spec.scope", "spec.names.kind"] {
            immutable(new, old, path, wrong);
        }
    }
    for path in ["spec.group", "spec.names.plural"] {
        immutable(new, old, path, wrong);
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn one_of(text: &str, accepted: &[&str], field: &str, wrong: &mut Vec<Cause>) {
    if text.is_empty() {
        wrong.push(Cause::required(field, ""));
    } else if !accepted.contains(&text) {
        wrong.push(Cause::not_supported(field, quoted(text), accepted));
    }
}

fn names(names: &Value, path: &str, wrong: &mut Vec<Cause>) {
    let (kind, list_kind) = (text_at(names, "kind"), text_at(names, "listKind"));
    for key in ["plural", "singular", "kind", "listKind"] {
        let text = text_at(names, key);
        let mixed = matches!(key, "kind" | "listKind");
        let complaints = match mixed {
            true => model::text::dns1035_label(&text.to_lowercase()),
            false => model::text::dns1035_label(text),
        };
        if text.is_empty() || complaints.is_empty() {
            continue;
        }
        let lead = if mixed {
            "may have mixed case, but should otherwise match: "
        } else {
            ""
        };
        let says = format!("{lead}{}", complaints.join(","));
        wrong.push(Cause::invalid(format!("{path}.{key}"), quoted(text), &says));
    }
    if !kind.is_empty() && kind == list_kind {
        let says = "kind and listKind may not be the same";
        wrong.push(Cause::invalid(format!("{path}.listKind"), quoted(list_kind), says));
    }
    for key in ["shortNames", "categories"] {
        for (i, text) in list_at(names, key).iter().map(plain).enumerate() {
            let complaints = model::text::dns1035_label(&text);
            if !complaints.is_empty() {
                wrong.push(Cause::invalid(
                    format!("{path}.{key}[{i}]"),
                    quoted(&text),
                    &complaints.join(","),
                ));
            }
        }
    }
}

/// Where a part of a version is told of: under `spec` when all versions have it alike.
fn shared(versions: &[Value], key: &str) -> bool {
    let empty = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
    match versions.first() {
        Some(first) => !empty(&first[key]) && versions.iter().all(|v| v[key] == first[key]),
        None => false,
    }
}

fn versions(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let versions = list_at(new, "spec.versions");
    let place = |key: &str, top: &str, i: usize| match shared(versions, key) {
        true => format!("spec.{top}"),
        false => format!("spec.versions[{i}].{key}"),
    };
    let mut seen: Vec<&str> = Vec::new();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        let name = text_at(version, "name");
        let complaints = model::text::dns1035_label(name).join(",");
        if !complaints.is_empty() {
            wrong.push(Cause::invalid(
                format!("spec.versions[{i}].name"),
                quoted(name),
                &complaints,
            ));
            if i == 0 {
                wrong.push(Cause::invalid("spec.version", quoted(name), &complaints));
            }
        }
        unique &= !seen.contains(&name);
        seen.push(name);
        deprecation(version, i, wrong);
        let schema = &version["schema"]["openAPIV3Schema"];
        let first = i == 0;
        if schema.is_null() {
            wrong.push(Cause::required(
                format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "",
            ));
        } else if first || !shared(versions, "schema") {
            let before = old.map(|old| list_at(old, "spec.versions")).unwrap_or_default();
            let before = before.iter().find(|v| text_at(v, "name") == name);
            let definition = Definition {
                schema,
                has_status: !version["subresources"]["status"].is_null(),
                unchanged: before.is_some_and(|v| v["schema"]["openAPIV3Schema"] == *schema),
            };
            let path = format!("{}.openAPIV3Schema", place("schema", "validation", i));
            // What was let in once is not gone through again.
            if !(definition.unchanged && before.is_some_and(|v| v["subresources"] == version["subresources"])) {
                wrong.extend(definition.check(&path));
            }
        }
        if first || !shared(versions, "subresources") {
            scale(
                &version["subresources"]["scale"],
                &place("subresources", "subresources", i),
                wrong,
            );
        }
        if first || !shared(versions, "additionalPrinterColumns") {
            let path = place("additionalPrinterColumns", "additionalPrinterColumns", i);
            for (j, column) in list_at(version, "additionalPrinterColumns").iter().enumerate() {
                self::column(column, &format!("{path}[{j}]"), wrong);
            }
        }
        if first || !shared(versions, "selectableFields") {
            let path = place("selectableFields", "selectableFields", i);
            selectable(list_at(version, "selectableFields"), schema, &path, wrong);
        }
    }
    let shown = || {
        let versions: Vec<Value> = versions
            .iter()
            .map(|v| json!({"name": v["name"], "served": v["served"], "storage": v["storage"]}))
            .collect();
        Value::Array(versions)
    };
    if !unique {
        wrong.push(Cause::invalid(
            "spec.versions",
            shown(),
            "must contain unique version names",
        ));
    }
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let says = "must have exactly one version marked as storage version";
        wrong.push(Cause::invalid("spec.versions", shown(), says));
    }
}

fn deprecation(version: &Value, i: usize, wrong: &mut Vec<Cause>) {
    let Some(text) = version["deprecationWarning"].as_str() else {
        return;
    };
    let mut says = |complaint: &str| {
        let field = format!("spec.versions[{i}].deprecationWarning");
        wrong.push(Cause::invalid(field, quoted(text), complaint));
    };
    if version["deprecated"] != true {
        return says("can only be set for deprecated versions");
    }
    if text.len() > 256 {
        says("must be <= 256 characters long");
    }
    if text.is_empty() {
        says("must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        says(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

fn scale(scale: &Value, path: &str, wrong: &mut Vec<Cause>) {
    if !scale.is_object() {
        return;
    }
    let mut check = |key: &str, under: &[&str], says: &str, required: bool| {
        let (field, text) = (format!("{path}.scale.{key}"), text_at(scale, key));
        if text.is_empty() {
            if required {
                wrong.push(Cause::required(field, ""));
            }
        } else if !text.starts_with('.') {
            let says = "must be a simple json path starting with .";
            wrong.push(Cause::invalid(field, quoted(text), says));
        } else if !under.iter().any(|root| text.starts_with(root)) {
            wrong.push(Cause::invalid(field, quoted(text), says));
        }
    };
    check(
        "specReplicasPath",
        &[".spec."],
        "should be a json path under .spec",
        true,
    );
    check(
        "statusReplicasPath",
        &[".status."],
        "should be a json path under .status",
        true,
    );
    let either = "should be a json path under either .spec or .status";
    check("labelSelectorPath", &[".spec.", ".status."], either, false);
}

fn column(column: &Value, path: &str, wrong: &mut Vec<Cause>) {
    let (kind, format, json_path) = (
        text_at(column, "type"),
        text_at(column, "format"),
        text_at(column, "jsonPath"),
    );
    if text_at(column, "name").is_empty() {
        wrong.push(Cause::required(format!("{path}.name"), ""));
    }
    let says = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.is_empty() {
        wrong.push(Cause::required(format!("{path}.type"), &says));
    } else if !COLUMN_TYPES.contains(&kind) {
        wrong.push(Cause::invalid(format!("{path}.type"), quoted(kind), &says));
    }
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let says = format!("must be one of {}", COLUMN_FORMATS.join(","));
        wrong.push(Cause::invalid(format!("{path}.format"), quoted(format), &says));
    }
    if json_path.is_empty() {
        wrong.push(Cause::required(format!("{path}.JSONPath"), ""));
    } else if !json_path.starts_with('.') {
        let says = "must be a simple json path starting with .";
        wrong.push(Cause::invalid(format!("{path}.JSONPath"), quoted(json_path), says));
    }
}

fn selectable(fields: &[Value], schema: &Value, path: &str, wrong: &mut Vec<Cause>) {
    let mut seen: Vec<String> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let (place, text) = (format!("{path}[{i}].jsonPath"), text_at(field, "jsonPath"));
        if text.is_empty() {
            wrong.push(Cause::required(place, ""));
            continue;
        }
        let (found, of) = match field_path(schema, text, false) {
            Ok(found) => found,
            Err(why) => {
                wrong.push(Cause::invalid(
                    place,
                    quoted(text),
                    &format!("is an invalid path: {why}"),
                ));
                continue;
            }
        };
        if found.split('.').next() == Some("metadata") {
            wrong.push(Cause::invalid(
                &place,
                quoted(text),
                "must not point to fields in metadata",
            ));
        }
        if !matches!(text_at(of, "type"), "string" | "boolean" | "integer") {
            let says = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            wrong.push(Cause::invalid(&place, quoted(text), says));
        }
        if seen.contains(&found) {
            wrong.push(Cause::duplicate(&place, quoted(text)));
        } else {
            seen.push(found);
        }
    }
    if seen.len() > MOST_SELECTABLE {
        wrong.push(Cause {
            reason: CauseReason::TooMany,
            field: path.to_owned(),
            message: format!("Too many: {}: must have at most {MOST_SELECTABLE} items", seen.len()),
        });
    }
}

fn conversion(conversion: &Value, wrong: &mut Vec<Cause>) {
    let strategy = text_at(conversion, "strategy");
    let (config, reviews) = (
        &conversion["webhook"]["clientConfig"],
        list_at(conversion, "webhook.conversionReviewVersions"),
    );
    one_of(strategy, &["None", "Webhook"], "spec.conversion.strategy", wrong);
    let (config_path, reviews_path) = (
        "spec.conversion.webhookClientConfig",
        "spec.conversion.conversionReviewVersions",
    );
    if strategy != "Webhook" {
        let says = "should not be set when strategy is not set to Webhook";
        if config.is_object() {
            wrong.push(Cause::forbidden(config_path, says));
        }
        if !reviews.is_empty() {
            wrong.push(Cause::forbidden(reviews_path, says));
        }
        return;
    }
    match (config["url"].as_str(), config["service"].is_object()) {
        _ if !config.is_object() => {
            wrong.push(Cause::required(config_path, "required when strategy is set to Webhook"));
        }
        (Some(url), false) => webhook_url(url, &format!("{config_path}.url"), wrong),
        (None, true) => webhook_service(&config["service"], &format!("{config_path}.service"), wrong),
        _ => wrong.push(Cause::required(
            config_path,
            "exactly one of url or service is required",
        )),
    }
    if reviews.is_empty() {
        wrong.push(Cause::required(reviews_path, ""));
        return;
    }
    for (i, review) in reviews.iter().enumerate() {
        if reviews[..i].contains(review) {
            wrong.push(Cause::invalid(
                format!("{reviews_path}[{i}]"),
                review,
                "duplicate version",
            ));
            continue;
        }
        for complaint in model::text::dns1035_label(&plain(review)) {
            wrong.push(Cause::invalid(format!("{reviews_path}[{i}]"), review, &complaint));
        }
    }
    if !reviews.iter().any(|review| review == "v1" || review == "v1beta1") {
        let shown = Value::Array(reviews.to_vec());
        wrong.push(Cause::invalid(
            reviews_path,
            shown,
            "must include at least one of v1, v1beta1",
        ));
    }
}

fn webhook_url(url: &str, field: &str, wrong: &mut Vec<Cause>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        let says = format!("'https' is the only allowed URL scheme{FORM}");
        wrong.push(Cause::invalid(field, quoted(scheme), &says));
    }
    if host.is_empty() || scheme.is_empty() {
        wrong.push(Cause::invalid(
            field,
            quoted(""),
            &format!("host must be specified{FORM}"),
        ));
    }
    for (part, says) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            wrong.push(Cause::invalid(field, quoted(part), says));
        }
    }
}

fn webhook_service(service: &Value, path: &str, wrong: &mut Vec<Cause>) {
    for key in ["name", "namespace"] {
        if text_at(service, key).is_empty() {
            wrong.push(Cause::required(format!("{path}.{key}"), ""));
        }
    }
    let port = service["port"].as_i64().unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let says = "port is not valid: must be between 1 and 65535, inclusive";
        wrong.push(Cause::invalid(format!("{path}.port"), port, says));
    }
    let Some(url) = service["path"].as_str().filter(|path| !matches!(*path, "" | "/")) else {
        return;
    };
    let field = format!("{path}.path");
    if url == "//" {
        return wrong.push(Cause::invalid(field, quoted(url), "segment[0] may not be empty"));
    }
    if !url.starts_with('/') {
        wrong.push(Cause::invalid(&field, quoted(url), "must start with a '/'"));
    }
    let steps: Vec<&str> = url[1..].strip_suffix('/').unwrap_or(&url[1..]).split('/').collect();
    for (i, step) in steps.iter().enumerate() {
        if step.is_empty() {
            let says = format!("segment[{i}] may not be empty");
            wrong.push(Cause::invalid(&field, quoted(url), &says));
            continue;
        }
        for complaint in model::text::dns1123_subdomain(step) {
            let says = format!("segment[{i}]: {complaint}");
            wrong.push(Cause::invalid(&field, quoted(url), &says));
        }
    }
}

fn stored_versions(new: &Value, wrong: &mut Vec<Cause>) {
    let versions = list_at(new, "spec.versions");
    for (i, stored) in list_at(new, "status.storedVersions").iter().enumerate() {
        if versions.iter().any(|v| v["name"] == *stored) {
            continue;
        }
        let v = plain(stored);
        let says = format!(
            "missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {v} and removes {v} from status.storedVersions"
        );
        wrong.push(Cause::invalid(format!("status.storedVersions[{i}]"), stored, &says));
    }
}

/// What the approval annotation of a protected group says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Approval {
    /// The group is nobody's but its owner's.
    NotNeeded,
    Missing,
    /// By the URL.
    Approved(String),
    Bypassed(String),
    Invalid(String),
}

pub(crate) fn approval_of(definition: &Value) -> Approval {
    let group = text_at(definition, "spec.group");
    let ours = |root: &str| group == root || group.strip_suffix(root).is_some_and(|rest| rest.ends_with('.'));
    if !ours("k8s.io") && !ours("kubernetes.io") {
        return Approval::NotNeeded;
    }
    let text = definition["metadata"]["annotations"][APPROVAL]
        .as_str()
        .unwrap_or_default();
    let is_url = text
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.split('/').next().unwrap_or_default().is_empty());
    match text {
        "" => Approval::Missing,
        text if text.starts_with("unapproved") => Approval::Bypassed(text.to_owned()),
        text if is_url => Approval::Approved(text.to_owned()),
        text => Approval::Invalid(text.to_owned()),
    }
}

fn approval(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let now = approval_of(new);
    if old.is_some_and(|old| std::mem::discriminant(&approval_of(old)) == std::mem::discriminant(&now)) {
        return;
    }
    let field = format!("metadata.annotations[{APPROVAL}]");
    match now {
        Approval::Missing => wrong.push(Cause::required(field, &format!("{MUST_APPROVE}, {SEE}"))),
        Approval::Invalid(text) => {
            let says = format!("{MUST_APPROVE} with either a URL or a reason starting with \"unapproved\", {SEE}");
            wrong.push(Cause::invalid(field, quoted(&text), &says));
        }
        Approval::NotNeeded | Approval::Approved(_) | Approval::Bypassed(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kubernetes says of each definition in `host/schema/tests/cases/definitions.json`, schemas apart.
    #[test]
    fn definitions_are_refused_as_in_kubernetes() {
        let text = include_str!("../../../schema/tests/cases/definitions.json");
        let cases: Vec<Value> = serde_json::from_str(text).unwrap();
        let mut differing = Vec::new();
        for case in &cases {
            let ready = |definition: &Value, old: Option<&Value>| {
                let mut definition = definition.clone();
                let status = definition.get("status").cloned();
                (super::super::crd::resource().rules.prepare)(&mut definition, old);
                if let Some(status) = status {
                    definition["status"] = status;
                }
                definition
            };
            let old = case.get("old").map(|old| ready(old, None));
            let new = ready(&case["crd"], old.as_ref());
            let mut wrong = Vec::new();
            all(&new, old.as_ref(), &mut wrong);
            // Metadata is checked for every kind alike; lists of versions and schemas are printed as Go prints them; a
            // schema that did not change is not gone through again.
            let ours = |text: &str| {
                !text.contains("a lowercase RFC 1123 subdomain must")
                    && !text.contains("openAPIV3Schema")
                    && !text.contains("must have the storage version")
                    && !text.starts_with("metadata.name: Invalid value: \"widgets.other")
            };
            let blur = |text: &str| match text.split_once("Invalid value: [{") {
                Some((before, after)) => format!("{before}{}", after.rsplit_once("}]: ").map_or("", |(_, says)| says)),
                None => text.to_owned(),
            };
            let mut found: Vec<String> = wrong.iter().map(|c| blur(&c.to_string())).filter(|c| ours(c)).collect();
            let theirs = case["causes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            // A cause begins with its kind there.
            let kinds = [
                "Invalid value ",
                "Required value ",
                "Unsupported value ",
                "Forbidden ",
                "Duplicate value ",
                "Too many ",
            ];
            let bare = |text: &str| {
                kinds
                    .iter()
                    .find_map(|kind| text.strip_prefix(kind))
                    .unwrap_or(text)
                    .to_owned()
            };
            let mut wanted: Vec<String> = theirs.map(|c| blur(&bare(c))).filter(|c| ours(c)).collect();
            found.sort();
            wanted.sort();
            if found != wanted {
                differing.push(format!("{}\n  ours   {found:#?}\n  theirs {wanted:#?}", case["name"]));
            }
        }
        assert!(
            differing.is_empty(),
            "{} of {} differ:\n{}",
            differing.len(),
            cases.len(),
            differing.join("\n")
        );
    }
}
