//! URLs, as far as Go's `net/url` takes them for a request's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kubernetes::Kube;
use super::{Answer, Run};
use crate::eval::{Fault, Machine};
use crate::value::{Key, Val};

#[derive(Debug)]
pub struct Url {
    pub(crate) text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// An absolute URL, or an absolute path.
    ///
    /// # Errors
    /// Go's complaint.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return wrong("empty url");
        }
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return wrong("net/url: invalid control character in URL");
        }
        let (bare, _) = text.split_once('#').unwrap_or((text, ""));
        let (rest, query) = bare.split_once('?').unwrap_or((bare, ""));
        let end = rest.find([':', '/']).unwrap_or(rest.len());
        let (scheme, rest) = match rest[end..].strip_prefix(':') {
            Some(_) if end == 0 => return wrong("missing protocol scheme"),
            Some(after) => {
                let scheme = &rest[..end];
                let letters = scheme
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
                if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !letters {
                    return wrong("first path segment in URL cannot contain colon");
                }
                (scheme.to_ascii_lowercase(), after)
            }
            None => (String::new(), rest),
        };
        if !rest.starts_with('/') && scheme.is_empty() {
            return wrong("invalid URI for request");
        }
        let (host, path) = match rest.strip_prefix("//") {
            Some(after) if !scheme.is_empty() => {
                let slash = after.find('/').unwrap_or(after.len());
                let (authority, path) = after.split_at(slash);
                (authority.rsplit_once('@').map_or(authority, |(_, host)| host), path)
            }
            _ if rest.starts_with('/') => ("", rest),
            // `mailto:x`: opaque, no path.
            _ => ("", ""),
        };
        if host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']) {
            return wrong(&format!("invalid character {:?} in host name", host));
        }
        let after_host = host.rsplit_once(']').map_or(host, |(_, after)| after);
        if let Some((_, port)) = after_host.rsplit_once(':')
            && !port.bytes().all(|b| b.is_ascii_digit())
        {
            return wrong(&format!("invalid port \":{port}\" after host"));
        }
        if host.starts_with('[') && !host.contains(']') {
            return wrong("missing ']' in host");
        }
        if let Some(escape) = bad_escape(path) {
            return wrong(&format!("invalid URL escape {escape:?}"));
        }
        Ok(Self {
            text: text.to_owned(),
            scheme,
            host: host.to_owned(),
            path: escape_path(path),
            query: query.to_owned(),
        })
    }

    fn hostname(&self) -> &str {
        if let Some(rest) = self.host.strip_prefix('[') {
            return rest.split_once(']').map_or(rest, |(name, _)| name);
        }
        self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name)
    }

    fn port(&self) -> &str {
        let after = self
            .host
            .rsplit_once(']')
            .map_or(self.host.as_str(), |(_, after)| after);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }
}

fn bad_escape(path: &str) -> Option<&str> {
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let digits = rest.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
            let end = (at + 3).min(rest.len());
            return Some(rest.get(at..end).unwrap_or(&rest[at..]));
        }
        rest = &rest[at + 3..];
    }
    None
}

fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(byte as char),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' | b'%' | b'!'
            | b'\'' | b'(' | b')' | b'*' | b'[' | b']' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn decode(part: &str) -> String {
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |b: &u8| (*b as char).to_digit(16);
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => match (bytes.get(at + 1).and_then(hex), bytes.get(at + 2).and_then(hex)) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            other => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn text<'v>(args: &'v [Val<'_>]) -> Result<&'v str, Fault> {
    match args.first() {
        Some(Val::Text(text)) => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn parse<'a>(_: &Machine<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match Url::parse(text(args)?) {
        Ok(url) => Ok(Val::Kube(Kube::Url(Arc::new(url)))),
        Err(why) => Err(Fault::new(format!(
            "URL parse error during conversion from string: {why}"
        ))),
    }
}

pub(super) fn is_url<'a>(_: &Machine<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(Url::parse(text(args)?).is_ok()))
}

pub(super) fn part(name: &str) -> Run {
    fn url<'v>(args: &'v [Val<'_>]) -> Result<&'v Url, Fault> {
        match args.first() {
            Some(Val::Kube(Kube::Url(url))) => Ok(url),
            _ => Err(Fault::no_overload()),
        }
    }
    match name {
        "getScheme" => |_, args| Ok(Val::text(url(args)?.scheme.as_str())),
        "getHost" => |_, args| Ok(Val::text(url(args)?.host.as_str())),
        "getHostname" => |_, args| Ok(Val::text(url(args)?.hostname())),
        "getPort" => |_, args| Ok(Val::text(url(args)?.port())),
        "getEscapedPath" => |_, args| Ok(Val::text(url(args)?.path.as_str())),
        _ => |_, args| {
            let mut map: BTreeMap<Key, Vec<Val<'_>>> = BTreeMap::new();
            for pair in url(args)?.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                map.entry(Key::Text(decode(key)))
                    .or_default()
                    .push(Val::text(decode(value)));
            }
            Ok(Val::map(
                map.into_iter().map(|(key, list)| (key, Val::list(list))).collect(),
            ))
        },
    }
}
