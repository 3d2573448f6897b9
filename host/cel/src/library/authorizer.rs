//! `authorizer`: may the caller do this as well? Each step narrows the question, `check` asks it.

use std::sync::Arc;

use super::kubernetes::Kube;
use super::{Answer, Run};
use crate::eval::{Fault, Machine};
use crate::value::Val;

/// A question about permissions, as far as it is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Asked for a service account (namespace, name) in place of the caller.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource; then all that follows is empty.
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    pub allowed: bool,
    pub reason: String,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// Who answers. Must not block.
pub trait Authorizer: Send + Sync {
    fn check(&self, asked: &Check) -> Ruling;
}

/// The value of the variable `authorizer`.
impl<'a> Val<'a> {
    pub fn authorizer() -> Self {
        Val::Kube(Kube::Authorizer(Arc::default()))
    }

    /// `authorizer.requestResource`.
    pub fn resource_check(check: Check) -> Self {
        Val::Kube(Kube::ResourceCheck(Arc::new(check)))
    }
}

fn text(args: &[Val<'_>], at: usize) -> Result<String, Fault> {
    match args.get(at) {
        Some(Val::Text(text)) => Ok(text.to_string()),
        _ => Err(Fault::no_overload()),
    }
}

fn narrowed(from: &Arc<Check>, set: impl FnOnce(&mut Check)) -> Arc<Check> {
    let mut check = (**from).clone();
    set(&mut check);
    Arc::new(check)
}

pub(super) fn step(name: &str) -> Run {
    match name {
        "path" => |_, args| {
            let path = text(args, 1)?;
            match args.first() {
                Some(Val::Kube(Kube::Authorizer(_))) if path.is_empty() => Err(Fault::new("path must not be empty")),
                Some(Val::Kube(Kube::Authorizer(from))) => Ok(Val::Kube(Kube::PathCheck(narrowed(from, |check| {
                    check.path = Some(path)
                })))),
                _ => Err(Fault::no_overload()),
            }
        },
        "group" => |_, args| {
            let group = text(args, 1)?;
            match args.first() {
                Some(Val::Kube(Kube::Authorizer(from))) => {
                    Ok(Val::Kube(Kube::GroupCheck(narrowed(from, |check| check.group = group))))
                }
                _ => Err(Fault::no_overload()),
            }
        },
        "serviceAccount" => |_, args| {
            let (namespace, name) = (text(args, 1)?, text(args, 2)?);
            if !model::text::dns1123_subdomain(&name).is_empty() {
                return Err(Fault::new("Invalid service account name"));
            }
            if !model::text::dns1123_label(&namespace).is_empty() {
                return Err(Fault::new("Invalid service account namespace"));
            }
            match args.first() {
                Some(Val::Kube(Kube::Authorizer(from))) => Ok(Val::Kube(Kube::Authorizer(narrowed(from, |check| {
                    check.service_account = Some((namespace, name));
                })))),
                _ => Err(Fault::no_overload()),
            }
        },
        "resource" => |_, args| {
            let resource = text(args, 1)?;
            match args.first() {
                Some(Val::Kube(Kube::GroupCheck(_))) if resource.is_empty() => {
                    Err(Fault::new("resource must not be empty"))
                }
                Some(Val::Kube(Kube::GroupCheck(from))) => {
                    Ok(Val::Kube(Kube::ResourceCheck(narrowed(from, |check| {
                        check.resource = resource
                    }))))
                }
                _ => Err(Fault::no_overload()),
            }
        },
        "subresource" => |_, args| within(args, |check, text| check.subresource = text),
        "namespace" => |_, args| within(args, |check, text| check.namespace = text),
        "name" => |_, args| within(args, |check, text| check.name = text),
        // No authorizer here reads selectors, so they narrow nothing.
        "fieldSelector" | "labelSelector" => |_, args| within(args, |_, _| {}),
        "check" => |machine, args| check(machine, args),
        "allowed" => |_, args| decision(args, |ruling| Val::Bool(ruling.allowed)),
        "reason" => |_, args| decision(args, |ruling| Val::text(ruling.reason.as_str())),
        "errored" => |_, args| decision(args, |ruling| Val::Bool(ruling.error.is_some())),
        "error" => |_, args| decision(args, |ruling| Val::text(ruling.error.as_deref().unwrap_or_default())),
        _ => |_, _| Err(Fault::no_overload()),
    }
}

fn within<'a>(args: &[Val<'a>], set: fn(&mut Check, String)) -> Answer<'a> {
    let text = text(args, 1)?;
    match args.first() {
        Some(Val::Kube(Kube::ResourceCheck(from))) => {
            Ok(Val::Kube(Kube::ResourceCheck(narrowed(from, |check| set(check, text)))))
        }
        _ => Err(Fault::no_overload()),
    }
}

fn check<'a>(machine: &Machine<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let verb = text(args, 1)?;
    let asked = match args.first() {
        Some(Val::Kube(Kube::PathCheck(from) | Kube::ResourceCheck(from))) => narrowed(from, |check| check.verb = verb),
        _ => return Err(Fault::no_overload()),
    };
    let ruling = match machine.authorizer {
        Some(authorizer) => authorizer.check(&asked),
        None => Ruling {
            allowed: false,
            reason: String::new(),
            error: Some("there is nobody to ask for permissions here".into()),
        },
    };
    Ok(Val::Kube(Kube::Decision(Arc::new(ruling))))
}

fn decision<'a>(args: &[Val<'a>], part: fn(&Ruling) -> Val<'static>) -> Answer<'a> {
    match args.first() {
        Some(Val::Kube(Kube::Decision(ruling))) => Ok(part(ruling)),
        _ => Err(Fault::no_overload()),
    }
}
