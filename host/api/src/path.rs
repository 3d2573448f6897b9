//! A URL's path as Kubernetes reads it: which collection, object or subresource it addresses.

use model::Gvr;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Path {
    /// `/healthz`, `/version`, `/metrics`, `/api`, `/apis/apps`, `/apis/apps/v1`: no objects behind it.
    Plain,
    Resource(Addressed),
}

/// `/api/v1/namespaces/NAMESPACE/pods/NAME/SUBRESOURCE`, with empty strings for what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addressed {
    pub(crate) gvr: Gvr,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// The old way to watch, `/api/v1/watch/pods`.
    pub(crate) watch: bool,
}

impl Path {
    pub(crate) fn parse(path: &str) -> Self {
        Self::resource(path).map_or(Path::Plain, Path::Resource)
    }

    fn resource(path: &str) -> Option<Addressed> {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match &parts[..] {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let at = |resource: &str, namespace: &str, name: &str, subresource: &str| Addressed {
            gvr: Gvr::new(group, version, resource),
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
            watch,
        };
        Some(match rest {
            [] => return None,
            // A namespace's own doors come before `namespaces/NAMESPACE/RESOURCE`.
            ["namespaces", name, door @ ("status" | "finalize")] => at("namespaces", name, name, door),
            ["namespaces", name] => at("namespaces", name, name, ""),
            ["namespaces", namespace, resource] => at(resource, namespace, "", ""),
            ["namespaces", namespace, resource, name] => at(resource, namespace, name, ""),
            ["namespaces", namespace, resource, name, rest @ ..] => at(resource, namespace, name, &rest.join("/")),
            [resource] => at(resource, "", "", ""),
            [resource, name] => at(resource, "", name, ""),
            [resource, name, rest @ ..] => at(resource, "", name, &rest.join("/")),
        })
    }
}

/// Percent-decoding of one segment (RFC 3986); `None` if it is not UTF-8 or not well formed.
pub(crate) fn decoded(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = segment.bytes();
    let mut out = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| (b? as char).to_digit(16);
            out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_kubernetes_reads_them() {
        for (path, expected) in [
            ("/api/v1/pods", "v1 pods"),
            ("/api/v1/nodes/n1", "v1 nodes name=n1"),
            ("/api/v1/nodes/n1/status", "v1 nodes name=n1 sub=status"),
            ("/api/v1/namespaces", "v1 namespaces"),
            ("/api/v1/namespaces/a", "v1 namespaces ns=a name=a"),
            (
                "/api/v1/namespaces/a/finalize",
                "v1 namespaces ns=a name=a sub=finalize",
            ),
            ("/api/v1/namespaces/a/status", "v1 namespaces ns=a name=a sub=status"),
            ("/api/v1/namespaces/a/pods", "v1 pods ns=a"),
            ("/api/v1/namespaces/a/pods/b/", "v1 pods ns=a name=b"),
            ("/api/v1/namespaces/a/pods/b/log", "v1 pods ns=a name=b sub=log"),
            (
                "/api/v1/namespaces/a/pods/b/proxy/x/y",
                "v1 pods ns=a name=b sub=proxy/x/y",
            ),
            ("/api/v1/watch/namespaces/a/pods/b", "v1 pods ns=a name=b watch"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io/v1 clusterroles name=system:node",
            ),
        ] {
            let Path::Resource(found) = Path::parse(path) else {
                panic!("{path} is a resource")
            };
            let mut text = match found.gvr.group.as_str() {
                "" => format!("{} {}", found.gvr.version, found.gvr.resource),
                group => format!("{group}/{} {}", found.gvr.version, found.gvr.resource),
            };
            for (what, value) in [
                ("ns", found.namespace),
                ("name", found.name),
                ("sub", found.subresource),
            ] {
                if !value.is_empty() {
                    text += &format!(" {what}={value}");
                }
            }
            if found.watch {
                text += " watch";
            }
            assert_eq!(text, expected, "{path}");
        }
        for plain in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz/ping",
            "/api/v1/pods/%zz",
        ] {
            assert_eq!(Path::parse(plain), Path::Plain, "{plain}");
        }
    }
}
