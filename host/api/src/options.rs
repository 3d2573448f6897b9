//! Query parameters and `DeleteOptions` bodies as the options that `Cluster` takes.

use std::time::Duration;

use client::{
    DeleteOptions, FieldValidation, ListOptions, Preconditions, Propagation, ReadVersion, WatchOptions, WriteOptions,
};
use model::{Cause, Failure, Gvk, Uid};
use serde::Deserialize;

/// A query string, decoded. Later values of a key are kept: `command=ls&command=-l`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// `BadRequest` if it is not well formed.
    pub(crate) fn parse(uri: &http::Uri) -> Result<Self, Failure> {
        if uri.query().is_none_or(str::is_empty) {
            return Ok(Self::default());
        }
        let query = axum::extract::Query::try_from_uri(uri);
        query
            .map(|q| Self(q.0))
            .map_err(|e| Failure::BadRequest(format!("the query cannot be read: {e}")))
    }

    /// The first value; empty if there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// As Kubernetes reads it: anything but `0` and `false`, which Python's clients write `False`. Go's may send the key alone.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.get(key);
        self.has(key) && value != "0" && !value.eq_ignore_ascii_case("false")
    }

    /// # Errors
    /// `BadRequest` if the value is not a whole number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, Failure> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Failure::BadRequest(format!(
                    "invalid value for query parameter \"{key}\": \"{text}\" is not a whole number"
                ))
            }),
        }
    }
}

fn invalid(kind: &str, cause: Cause) -> Failure {
    Failure::Invalid {
        kind: Gvk::new("meta.k8s.io", "v1", kind),
        name: String::new(),
        causes: vec![cause],
    }
}

/// `resourceVersion` of a get.
///
/// # Errors
/// `BadRequest` if it is not a number.
pub(crate) fn get_version(query: &Query) -> Result<ReadVersion, Failure> {
    Ok(match query.get("resourceVersion") {
        "" => ReadVersion::Latest,
        "0" => ReadVersion::Any,
        version => ReadVersion::AtLeast(version.parse()?),
    })
}

/// # Errors
/// `Invalid` for combinations that Kubernetes forbids, `BadRequest` for values that are not numbers.
pub(crate) fn list(query: &Query) -> Result<ListOptions, Failure> {
    let limit = query.number("limit")?.unwrap_or(0);
    let continue_token = query.get("continue").to_owned();
    let forbid = |detail: &str| Err(invalid("ListOptions", Cause::forbidden("resourceVersionMatch", detail)));
    let (asked, how) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    if !how.is_empty() {
        if asked.is_empty() {
            return forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !continue_token.is_empty() {
            return forbid("resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(how, "Exact" | "NotOlderThan") {
            let cause = Cause::not_supported(
                "resourceVersionMatch",
                format!("\"{how}\""),
                &["Exact", "NotOlderThan", ""],
            );
            return Err(invalid("ListOptions", cause));
        }
        if how == "Exact" && asked == "0" {
            return forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    let version = match (asked, how) {
        ("", _) => ReadVersion::Latest,
        (version, "Exact") => ReadVersion::Exactly(version.parse()?),
        ("0", _) => ReadVersion::Any,
        // With a limit and no match rule, Kubernetes reads exactly this version (API concepts, "Semantics for get and list").
        (version, "") if limit > 0 => ReadVersion::Exactly(version.parse()?),
        (version, _) => ReadVersion::AtLeast(version.parse()?),
    };
    Ok(ListOptions {
        labels: query.get("labelSelector").to_owned(),
        fields: query.get("fieldSelector").to_owned(),
        limit,
        continue_token,
        version,
    })
}

/// `fallback`: how long a watch lasts that sets no limit of its own.
///
/// # Errors
/// As [`list`].
pub(crate) fn watch(query: &Query, fallback: Duration) -> Result<WatchOptions, Failure> {
    let (asked, how) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let initial = query.flag("sendInitialEvents");
    let forbid = |field: &str, detail: &str| Err(invalid("ListOptions", Cause::forbidden(field, detail)));
    if !how.is_empty() && !query.has("sendInitialEvents") {
        let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        return forbid("resourceVersionMatch", detail);
    }
    if query.has("sendInitialEvents") && how != "NotOlderThan" {
        return forbid(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    let from = match asked {
        _ if initial => None,
        "" | "0" => None,
        version => Some(version.parse()?),
    };
    let timeout = query
        .number("timeoutSeconds")?
        .filter(|s| *s > 0)
        .map_or(fallback, Duration::from_secs);
    Ok(WatchOptions {
        labels: query.get("labelSelector").to_owned(),
        fields: query.get("fieldSelector").to_owned(),
        from,
        bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: initial,
        timeout: Some(timeout),
    })
}

/// `dryRun`, `fieldManager` and `fieldValidation`. `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
///
/// # Errors
/// `Invalid` for values Kubernetes does not know.
pub(crate) fn write(query: &Query, kind: &str) -> Result<WriteOptions, Failure> {
    let validation = match query.get("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        other => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            return Err(invalid(
                kind,
                Cause::not_supported("fieldValidation", format!("\"{other}\""), &supported),
            ));
        }
    };
    let field_manager = query.get("fieldManager").to_owned();
    if field_manager.len() > 128 {
        return Err(invalid(kind, Cause::too_long("fieldManager", 128)));
    }
    if let Some(bad) = field_manager.chars().find(|c| c.is_control()) {
        let detail = format!("should not contain the unprintable character {bad:?}");
        return Err(invalid(
            kind,
            Cause::invalid("fieldManager", format!("{field_manager:?}"), &detail),
        ));
    }
    let dry_run = dry_run(query.all("dryRun"), kind)?;
    Ok(WriteOptions {
        field_manager,
        dry_run,
        validation,
    })
}

fn dry_run<'a>(mut values: impl Iterator<Item = &'a str>, kind: &str) -> Result<bool, Failure> {
    match values.next() {
        None | Some("") => Ok(false),
        Some("All") if values.next().is_none() => Ok(true),
        Some(other) => Err(invalid(
            kind,
            Cause::not_supported("dryRun", format!("\"{other}\""), &["All"]),
        )),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteBody {
    kind: String,
    grace_period_seconds: Option<i64>,
    preconditions: Option<PreconditionsBody>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PreconditionsBody {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// From the body where there is one, else from the query. The flag says whether it is a dry run.
///
/// # Errors
/// `BadRequest` for a body that is not `DeleteOptions`, `Invalid` for values that Kubernetes does not know.
pub(crate) fn delete(query: &Query, body: &[u8]) -> Result<(DeleteOptions, bool), Failure> {
    let asked = if body.is_empty() {
        let grace = query.get("gracePeriodSeconds");
        DeleteBody {
            grace_period_seconds: match grace {
                "" => None,
                text => Some(text.parse().map_err(|_| {
                    Failure::BadRequest(format!(
                        "invalid value for query parameter \"gracePeriodSeconds\": \"{text}\" is not a whole number"
                    ))
                })?),
            },
            propagation_policy: query
                .has("propagationPolicy")
                .then(|| query.get("propagationPolicy").to_owned()),
            orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
            dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
            ..DeleteBody::default()
        }
    } else {
        let read: DeleteBody = serde_json::from_slice(body)
            .map_err(|e| Failure::BadRequest(format!("the body is not a DeleteOptions document: {e}")))?;
        if !matches!(read.kind.as_str(), "" | "DeleteOptions") {
            return Err(Failure::BadRequest(format!(
                "decoded object cannot be converted to DeleteOptions: it is a {}",
                read.kind
            )));
        }
        read
    };
    let dry_run = dry_run(asked.dry_run.iter().flatten().map(String::as_str), "DeleteOptions")?;
    let propagation = match (asked.propagation_policy.as_deref(), asked.orphan_dependents) {
        (Some(_), Some(_)) => {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid(
                "DeleteOptions",
                Cause::invalid("propagationPolicy", "object", detail),
            ));
        }
        (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (None, None) => None,
        (Some(other), None) => {
            let cause = Cause::not_supported(
                "propagationPolicy",
                format!("\"{other}\""),
                &["Foreground", "Background", "Orphan"],
            );
            return Err(invalid("DeleteOptions", cause));
        }
    };
    // Kubernetes takes a negative one for "at once, but gently": one second.
    let grace = asked
        .grace_period_seconds
        .map(|seconds| u64::try_from(seconds).unwrap_or(1));
    let preconditions = match asked.preconditions {
        Some(p) => Preconditions {
            uid: p.uid.map(|uid| Uid(uid.into())),
            version: p.resource_version.map(|version| version.parse()).transpose()?,
        },
        None => Preconditions::default(),
    };
    Ok((
        DeleteOptions {
            preconditions,
            grace,
            propagation,
        },
        dry_run,
    ))
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn flags_are_read_as_kubernetes_reads_them() {
        for (query, wanted) in [
            ("", false),
            ("tty=false", false),
            ("tty=False", false),
            ("tty=0", false),
            ("tty", true),
            ("tty=", true),
            ("tty=True", true),
            ("tty=no", true),
        ] {
            let uri = format!("/exec?{query}").parse().unwrap();
            assert_eq!(Query::parse(&uri).unwrap().flag("tty"), wanted, "{query}");
        }
    }
}
