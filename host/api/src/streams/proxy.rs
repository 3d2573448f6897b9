//! `pods/proxy`, `services/proxy` and `nodes/proxy`: an HTTP request passed on to a port of a pod or a node, upgrades
//! included.
//!
//! A pod is reached through its node, as port-forward reaches it, so that the API server needs no route into the pods' network.

use axum::body::Body;
use axum::response::Response;
use client::node::{ContainerRef, Duplex};
use client::{Collection, ListOptions, ReadVersion, Target, tls};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::{Failure, Gvr};
use serde::Deserialize;
use serde_json::json;

use super::Pod;
use super::node::{self, Place};
use crate::verbs::Doing;

/// Meant for the next hop only (RFC 9110, section 7.6.1); an upgrade's two are put back.
const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// `[SCHEME:]NAME[:PORT]`, as the URL names what is proxied to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    tls: bool,
    pub(super) name: &'a str,
    /// A number, a port's name, or empty.
    pub(super) port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Result<Self, Failure> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => ("?", text, ""),
        };
        if !matches!(scheme, "" | "http" | "https") || name.is_empty() {
            return Err(Failure::BadRequest(format!(
                "invalid proxy request {text:?}: write NAME, NAME:PORT, http:NAME:PORT or https:NAME:PORT"
            )));
        }
        Ok(Self {
            tls: scheme == "https",
            name,
            port,
        })
    }
}

/// An open connection, and what it leads to, for the `Host` header.
pub(super) struct Reached {
    pub(super) io: Box<dyn Duplex>,
    pub(super) host: String,
}

/// `verb` is that of the method.
pub(super) async fn answer(
    doing: &Doing<'_>,
    verb: &str,
    parts: request::Parts,
    body: Body,
) -> Result<Response, Failure> {
    let at = doing.at;
    let uri = parts.uri.clone();
    let (before, after) = split(uri.path(), !at.namespace.is_empty());
    if after.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        // Relative links of the page must lead below the proxy's path.
        return redirect(&format!("{before}/"), parts.uri.query());
    }
    let named = Named::parse(&at.name)?;
    let target = Target::new(at.gvr.clone(), &at.namespace, named.name).subresource("proxy");
    let resource = at.gvr.resource.as_str();
    let kind = match resource {
        "pods" => "PodProxyOptions",
        "nodes" => "NodeProxyOptions",
        _ => "ServiceProxyOptions",
    };
    let options = json!({"apiVersion": "v1", "kind": kind, "path": after});
    doing
        .app
        .connections
        .admit(&doing.asked.caller, verb, &target, &options)
        .await?;
    let reached = match resource {
        "pods" => pod(doing, named.name, named.port).await?,
        "nodes" => match node::find(doing, &named).await? {
            Place::Kubelet(kubelet) => return node::page(doing, kubelet, &parts.method, after).await,
            Place::Port(reached) => reached,
        },
        _ => service(doing, &named).await?,
    };
    let io = match named.tls {
        true => Box::new(tls::connect("localhost", reached.io).await.map_err(unreachable)?),
        false => reached.io,
    };
    pass(io, &reached.host, &before, after, parts, body).await
}

/// The path up to and with `/proxy`, and what follows it, both as sent: what is encoded stays so.
fn split(path: &str, namespaced: bool) -> (String, &str) {
    // /api/v1/namespaces/NAMESPACE/pods/NAME/proxy
    let slashes = if namespaced { 8 } else { 6 };
    let end = path
        .match_indices('/')
        .nth(slashes - 1)
        .map_or(path.len(), |(at, _)| at);
    (path[..end].to_owned(), &path[end..])
}

fn redirect(to: &str, query: Option<&str>) -> Result<Response, Failure> {
    let to = query.map_or_else(|| to.to_owned(), |query| format!("{to}?{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let to = HeaderValue::try_from(to).map_err(Failure::internal)?;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

/// By number, by the name of a container's port, or the first port that a container declares.
async fn pod(doing: &Doing<'_>, name: &str, port: &str) -> Result<Reached, Failure> {
    let pod = Pod::get(doing, name).await?;
    let declared = || pod.document.spec.containers.iter().flat_map(|c| &c.ports);
    let number = match port.parse::<u16>() {
        Ok(number) => Some(number),
        Err(_) if port.is_empty() => declared().next().map(|p| p.container_port),
        Err(_) => declared().find(|p| p.name == port).map(|p| p.container_port),
    };
    let number = number.ok_or_else(|| {
        Failure::BadRequest(format!(
            "pod {name} declares no port {port:?}: name the port as {name}:PORT"
        ))
    })?;
    through_node(doing, &pod, number).await
}

async fn through_node(doing: &Doing<'_>, pod: &Pod, port: u16) -> Result<Reached, Failure> {
    let of: ContainerRef = pod.reference(String::new());
    let io = pod
        .running_on(doing)?
        .port_forward(&of, port)
        .await
        .map_err(unreachable)?;
    let host = format!("{}:{port}", pod.document.status.pod_ip);
    Ok(Reached { io, host })
}

pub(super) fn unreachable(why: impl std::fmt::Display) -> Failure {
    Failure::Unreached(why.to_string())
}

#[derive(Deserialize)]
struct Service {
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
struct ServiceSpec {
    #[serde(default)]
    ports: Vec<ServicePort>,
}

#[derive(Deserialize)]
struct ServicePort {
    #[serde(default)]
    name: String,
    port: u16,
}

#[derive(Deserialize)]
struct Slice {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    ports: Vec<SlicePort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    target_ref: Option<TargetRef>,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct TargetRef {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct SlicePort {
    #[serde(default)]
    name: Option<String>,
    port: Option<u16>,
}

/// One of the Service's ready endpoints, whichever comes.
async fn service(doing: &Doing<'_>, named: &Named<'_>) -> Result<Reached, Failure> {
    let (app, namespace) = (doing.app, &doing.at.namespace);
    let as_server = auth::users::api_server();
    let target = Target::new(doing.at.gvr.clone(), namespace, named.name);
    let object = app.cluster.get(&as_server, &target, ReadVersion::Latest).await?;
    let service: Service = object.parse()?;
    let ports = &service.spec.ports;
    let unknown = || {
        Failure::BadRequest(format!(
            "service {:?} has no port {:?}: name one of them as {}:PORT",
            named.name, named.port, named.name
        ))
    };
    let port = match named.port.parse::<u16>() {
        Ok(number) => ports.iter().find(|p| p.port == number),
        Err(_) if named.port.is_empty() => ports.first(),
        Err(_) => ports.iter().find(|p| p.name == named.port),
    };
    let port = port.ok_or_else(unknown)?;
    let slices = Collection {
        gvr: Gvr::new("discovery.k8s.io", "v1", "endpointslices"),
        namespace: Some(namespace.clone()),
    };
    let options = ListOptions {
        labels: format!("kubernetes.io/service-name={}", named.name),
        version: ReadVersion::Any,
        ..ListOptions::default()
    };
    let list = app.cluster.list(&as_server, &slices, &options).await?;
    let mut ready = Vec::new();
    for object in &list.items {
        let slice: Slice = object.parse()?;
        let named = |p: &&SlicePort| p.name.as_deref().unwrap_or_default() == port.name;
        let Some(number) = slice.ports.iter().find(named).and_then(|p| p.port) else {
            continue;
        };
        let endpoints = slice.endpoints.into_iter();
        let usable = endpoints.filter(|e| e.conditions.ready.unwrap_or(true) && !e.addresses.is_empty());
        ready.extend(usable.map(|e| (e, number)));
    }
    if ready.is_empty() {
        return Err(unreachable(format_args!(
            "no endpoints available for service {:?}",
            named.name
        )));
    }
    let (endpoint, number) = ready.swap_remove(app.spread(ready.len() as u64) as usize);
    if let Some(of) = endpoint.target_ref.filter(|of| of.kind == "Pod") {
        return through_node(doing, &Pod::get(doing, &of.name).await?, number).await;
    }
    let address = &endpoint.addresses[0];
    let io = tokio::net::TcpStream::connect((address.as_str(), number)).await;
    Ok(Reached {
        io: Box::new(io.map_err(unreachable)?),
        host: format!("{address}:{number}"),
    })
}

async fn pass(
    io: Box<dyn Duplex>,
    host: &str,
    before: &str,
    after: &str,
    mut parts: request::Parts,
    body: Body,
) -> Result<Response, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(unreachable)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended early");
        }
    });
    let upgrade = parts.headers.get(header::UPGRADE).cloned();
    let client_side = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrade.is_some());
    let query = parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let path = if after.is_empty() { "/" } else { after };
    let asked = PathAndQuery::try_from(format!("{path}{query}")).map_err(Failure::internal)?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = asked.into();
    *request.headers_mut() = headers(parts.headers, host, before);
    if let Some(protocol) = upgrade.filter(|_| client_side.is_some()) {
        switch(request.headers_mut(), protocol);
    }
    let mut response = sender.send_request(request).await.map_err(unreachable)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let pod_side = hyper::upgrade::on(&mut response);
        let protocol = response.headers().get(header::UPGRADE).cloned();
        if let Some(client_side) = client_side {
            tokio::spawn(async move {
                if let (Ok(pod), Ok(client)) = tokio::join!(pod_side, client_side) {
                    let (mut pod, mut client) = (TokioIo::new(pod), TokioIo::new(client));
                    let _ = tokio::io::copy_bidirectional(&mut pod, &mut client).await;
                }
            });
        }
        let mut answer = response.map(|_| Body::empty());
        strip(answer.headers_mut());
        if let Some(protocol) = protocol {
            switch(answer.headers_mut(), protocol);
        }
        return Ok(answer);
    }
    let mut answer = response.map(Body::new);
    strip(answer.headers_mut());
    relocate(answer.headers_mut(), host, before);
    Ok(answer)
}

/// Without what was meant for us: who asks, and on whose behalf.
fn headers(mut headers: HeaderMap, host: &str, before: &str) -> HeaderMap {
    strip(&mut headers);
    headers.remove(header::AUTHORIZATION);
    let names: Vec<HeaderName> = headers.keys().cloned().collect();
    for name in names.iter().filter(|name| name.as_str().starts_with("impersonate-")) {
        headers.remove(name);
    }
    let forwarded = headers.get(header::HOST).cloned();
    let mut set = |name: HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    set(header::HOST, HeaderValue::try_from(host).ok());
    set(HeaderName::from_static("x-forwarded-host"), forwarded);
    set(
        HeaderName::from_static("x-forwarded-proto"),
        Some(HeaderValue::from_static("https")),
    );
    set(
        HeaderName::from_static("x-forwarded-uri"),
        HeaderValue::try_from(before).ok(),
    );
    headers
}

fn strip(headers: &mut HeaderMap) {
    // What `Connection` names is for the next hop too.
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_owned()))
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in HOP {
        headers.remove(name);
    }
}

fn switch(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// A redirect within the pod's own site stays below the proxy's path.
fn relocate(headers: &mut HeaderMap, host: &str, before: &str) {
    let Some(location) = headers.get(header::LOCATION).and_then(|l| l.to_str().ok()) else {
        return;
    };
    let own = ["http://", "https://"]
        .iter()
        .filter_map(|scheme| location.strip_prefix(scheme)?.strip_prefix(host))
        .find(|rest| rest.is_empty() || rest.starts_with('/'));
    let path = match own {
        Some(rest) => rest,
        None if location.starts_with('/') && !location.starts_with("//") => location,
        None => return,
    };
    if let Ok(moved) = HeaderValue::try_from(format!("{before}{path}")) {
        headers.insert(header::LOCATION, moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_scheme_and_port() {
        for (text, expected) in [
            ("web", Some((false, "web", ""))),
            ("web:80", Some((false, "web", "80"))),
            ("https:web:secure", Some((true, "web", "secure"))),
            ("http:web:", Some((false, "web", ""))),
            ("ftp:web:21", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            let named = Named::parse(text).ok();
            assert_eq!(named.map(|n| (n.tls, n.name, n.port)), expected, "{text}");
        }
    }

    #[test]
    fn the_path_behind_the_proxy_stays_as_it_was_sent() {
        let (before, after) = split("/api/v1/namespaces/a/pods/web:80/proxy/x%2Fy/z", true);
        assert_eq!(
            (before.as_str(), after),
            ("/api/v1/namespaces/a/pods/web:80/proxy", "/x%2Fy/z")
        );
        let (before, after) = split("/api/v1/namespaces/a/services/web/proxy", true);
        assert_eq!(
            (before.as_str(), after),
            ("/api/v1/namespaces/a/services/web/proxy", "")
        );
    }

    #[test]
    fn redirects_within_the_site_are_led_back() {
        for (location, expected) in [
            ("/login", "/p/proxy/login"),
            ("http://10.0.0.1:80/x", "/p/proxy/x"),
            ("https://example.com/x", "https://example.com/x"),
            ("http://10.0.0.1:8080/x", "http://10.0.0.1:8080/x"),
            ("there", "there"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(location));
            relocate(&mut headers, "10.0.0.1:80", "/p/proxy");
            assert_eq!(headers[header::LOCATION], expected, "{location}");
        }
    }

    #[test]
    fn credentials_stay_here() {
        let mut sent = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("accept", "text/html"),
            ("host", "cluster"),
        ] {
            sent.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let passed = headers(sent, "10.0.0.1:80", "/p/proxy");
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "host",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-forwarded-uri"
            ]
        );
        assert_eq!(passed[header::HOST], "10.0.0.1:80");
    }
}
