//! In which form an answer goes out and a body comes in: `Accept`, `Content-Type`, and their Kubernetes parameters.

use client::PatchKind;
use http::{HeaderMap, header};
use model::Failure;

use crate::protobuf;

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    #[default]
    Json,
    Yaml,
    /// `k8s\0` and an envelope, for built-in kinds.
    Protobuf,
}

/// What is written of them (`as=` in `Accept`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum View {
    #[default]
    Whole,
    /// `meta.k8s.io/v1 Table`, or the same shape under the version asked for.
    Table(MetaVersion),
    /// `PartialObjectMetadata`, in lists `PartialObjectMetadataList`.
    Metadata(MetaVersion),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Accepted {
    pub(crate) format: Format,
    pub(crate) view: View,
}

/// One entry of an `Accept` header: type, parameters in lower-case keys.
struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().filter(|media| !media.is_empty())?;
            let params: Vec<_> = parts
                .filter_map(|p| p.split_once('='))
                .map(|(k, v)| (k.trim(), v.trim()))
                .collect();
            let quality = params
                .iter()
                .find(|(key, _)| *key == "q")
                .and_then(|(_, q)| q.parse().ok())
                .unwrap_or(1.0);
            Some(Clause { media, params, quality })
        })
        .collect();
    // Stable: equals keep the client's order, which is its preference. Wildcards come after what is named.
    let vague = |clause: &Clause<'_>| (clause.media.starts_with("*/"), clause.media.ends_with("/*"));
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(vague(a).cmp(&vague(b))));
    clauses
}

impl Clause<'_> {
    fn param(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn view(&self) -> Option<View> {
        let version = match (self.param("g"), self.param("v")) {
            (Some("meta.k8s.io"), Some("v1")) => Some(MetaVersion::V1),
            (Some("meta.k8s.io"), Some("v1beta1")) => Some(MetaVersion::V1Beta1),
            _ => None,
        };
        match self.param("as") {
            None if self.param("g").is_none() && self.param("v").is_none() => Some(View::Whole),
            None => None,
            Some("Table") => version.map(View::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => version.map(View::Metadata),
            Some(_) => None,
        }
    }
}

/// What the client takes out of what we can write. `protobuf`: what is asked for has that form too.
///
/// # Errors
/// `NotAcceptable` naming what we can write.
pub(crate) fn accepted(headers: &HeaderMap, protobuf: bool) -> Result<Accepted, Failure> {
    let accept = text(headers, header::ACCEPT);
    if accept.is_empty() {
        return Ok(Accepted::default());
    }
    let fits = |clause: &Clause<'_>| {
        if !matches!(clause.param("stream"), None | Some("" | "watch")) {
            return None;
        }
        let format = match clause.media {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            protobuf::MEDIA => Format::Protobuf,
            _ => return None,
        };
        let view = clause.view()?;
        // Every kind's metadata has a protobuf form, and no kind's table.
        let has_form = match (format, view) {
            (Format::Protobuf, View::Whole) => protobuf,
            (Format::Protobuf, View::Table(_)) => false,
            _ => true,
        };
        has_form.then_some(Accepted { format, view })
    };
    clauses(&accept).iter().find_map(fits).ok_or_else(|| {
        Failure::NotAcceptable(format!(
            "only the following media types are accepted: application/json, application/yaml, {}",
            protobuf::MEDIA
        ))
    })
}

/// In which form a `Status` goes out. Whoever takes none gets JSON: an error is not hidden behind another.
pub(crate) fn of_status(accept: &str) -> Format {
    let clauses = clauses(accept);
    let mut whole = clauses.iter().filter(|clause| clause.view() == Some(View::Whole));
    let format = whole.find_map(|clause| match clause.media {
        "application/json" | "*/*" | "application/*" => Some(Format::Json),
        "application/yaml" => Some(Format::Yaml),
        protobuf::MEDIA => Some(Format::Protobuf),
        _ => None,
    });
    format.unwrap_or_default()
}

/// Does the client want aggregated discovery (KEP-3352), and in which version?
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    let accept = text(headers, header::ACCEPT);
    clauses(&accept).iter().find_map(|clause| {
        if clause.media != "application/json" || clause.param("as") != Some("APIGroupDiscoveryList") {
            return (clause.media == "application/json" && clause.param("as").is_none()).then_some(None);
        }
        match (clause.param("g"), clause.param("v")) {
            (Some("apidiscovery.k8s.io"), Some("v2")) => Some(Some("v2")),
            (Some("apidiscovery.k8s.io"), Some("v2beta1")) => Some(Some("v2beta1")),
            _ => None,
        }
    })?
}

/// How a body came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// # Errors
/// `UnsupportedMediaType` naming what we can read.
pub(crate) fn body_encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let content = text(headers, header::CONTENT_TYPE);
    match content.split(';').next().unwrap_or_default().trim() {
        // Nothing said is JSON, as kube-apiserver takes it.
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        protobuf::MEDIA => Ok(Encoding::Protobuf),
        _ => Err(Failure::UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf".to_owned(),
        )),
    }
}

/// Which kind of patch a body is. `force` is for apply alone.
///
/// # Errors
/// `UnsupportedMediaType` naming the patches we can read.
pub(crate) fn patch_kind(headers: &HeaderMap, force: bool) -> Result<(PatchKind, Encoding), Failure> {
    let content = text(headers, header::CONTENT_TYPE);
    match content.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok((PatchKind::Json, Encoding::Json)),
        "application/merge-patch+json" => Ok((PatchKind::Merge, Encoding::Json)),
        "application/strategic-merge-patch+json" => Ok((PatchKind::Strategic, Encoding::Json)),
        "application/apply-patch+yaml" => Ok((PatchKind::Apply { force }, Encoding::Yaml)),
        _ => Err(Failure::UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml".to_owned(),
        )),
    }
}

/// All values of a header, joined as if they had been sent in one.
pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    values.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> Result<Accepted, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        accepted(&headers, true)
    }

    #[test]
    fn the_first_that_we_can_write_wins() {
        let json = |view| Accepted {
            format: Format::Json,
            view,
        };
        let protobuf = |view| Accepted {
            format: Format::Protobuf,
            view,
        };
        for (accept, expected) in [
            ("application/json", json(View::Whole)),
            ("*/*", json(View::Whole)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                protobuf(View::Whole),
            ),
            ("*/*, application/vnd.kubernetes.protobuf", protobuf(View::Whole)),
            (
                "application/vnd.kubernetes.protobuf;q=0.5,application/json",
                json(View::Whole),
            ),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                protobuf(View::Whole),
            ),
            (
                "application/vnd.kubernetes.protobuf;stream=exec, */*",
                json(View::Whole),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
                json(View::Table(MetaVersion::V1)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
                protobuf(View::Metadata(MetaVersion::V1)),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                json(View::Table(MetaVersion::V1)),
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io, application/json",
                json(View::Whole),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                json(View::Metadata(MetaVersion::V1)),
            ),
            (
                "application/json;q=0.5, application/yaml",
                Accepted {
                    format: Format::Yaml,
                    view: View::Whole,
                },
            ),
        ] {
            assert_eq!(of(accept).unwrap(), expected, "{accept}");
        }
        for refused in [
            "text/html",
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=Chair;v=v1;g=meta.k8s.io",
        ] {
            assert!(matches!(of(refused), Err(Failure::NotAcceptable(_))), "{refused}");
        }
    }

    #[test]
    fn of_custom_kinds_only_the_metadata_is_protobuf() {
        let mut headers = HeaderMap::new();
        let mut of = |accept: &str| {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            accepted(&headers, false).map(|accepted| accepted.format)
        };
        assert_eq!(
            of("application/vnd.kubernetes.protobuf,application/json").unwrap(),
            Format::Json
        );
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        assert_eq!(of(metadata).unwrap(), Format::Protobuf);
        assert!(matches!(
            of("application/vnd.kubernetes.protobuf"),
            Err(Failure::NotAcceptable(_))
        ));
    }

    #[test]
    fn errors_are_never_hidden_behind_the_wish_for_another_form() {
        for (accept, expected) in [
            ("", Format::Json),
            ("text/html", Format::Json),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", Format::Json),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                Format::Protobuf,
            ),
            ("application/yaml", Format::Yaml),
        ] {
            assert_eq!(of_status(accept), expected, "{accept}");
        }
    }

    #[test]
    fn discovery_is_aggregated_for_those_who_ask_first() {
        let mut headers = HeaderMap::new();
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        for (accept, expected) in [
            (format!("{v2},application/json"), Some("v2")),
            (format!("{},{v2}", v2.replace("v2", "v2beta1")), Some("v2beta1")),
            (format!("application/json,{v2}"), None),
            ("*/*".to_owned(), None),
        ] {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(aggregated_discovery(&headers), expected, "{accept}");
        }
    }
}
