//! IngressClass: which controller serves the Ingresses that name it.

use model::{Cause, text};
use serde_json::Value;

use crate::names::path_segment;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{default, domain_path};
use crate::table::{Column, text_at};

const LONGEST_CONTROLLER: usize = 250;

pub(crate) fn resource() -> Resource {
    Resource::cluster("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
        .columns(vec![
            Column::text_or("Controller", "spec.controller", "").about("Who serves this class."),
            Column::computed("Parameters", |o, _| parameters(o).into()).about("An object with more parameters."),
            Column::age(),
        ])
        .prepare(|new, _| {
            if let Some(parameters) = new.pointer_mut("/spec/parameters") {
                default(parameters, "scope", "Cluster");
            }
        })
        .validate(validate)
}

fn parameters(class: &Value) -> String {
    let at = |key: &str| text_at(class, &format!("spec.parameters.{key}"));
    match (at("kind"), at("apiGroup")) {
        ("", _) => "<none>".into(),
        (kind, "") => format!("{kind}/{}", at("name")),
        (kind, group) => format!("{kind}.{group}/{}", at("name")),
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if let Some(old) = old {
        spec.immutable("controller", &old["spec"]);
    }
    if spec.text("controller").len() > LONGEST_CONTROLLER {
        spec.under("controller").too_long(LONGEST_CONTROLLER);
    }
    spec.with("controller", domain_path);
    if !spec.has("parameters") {
        return;
    }
    let mut parameters = spec.under("parameters");
    if parameters.has("apiGroup") {
        parameters.under("apiGroup").fits(text::dns1123_subdomain);
    }
    parameters.need_fit("kind", path_segment);
    parameters.need_fit("name", path_segment);
    match parameters.text("scope") {
        "Namespace" if parameters.has("namespace") => parameters.under("namespace").fits(text::dns1123_label),
        "Namespace" => parameters
            .under("namespace")
            .required("`parameters.scope` is set to 'Namespace'"),
        "Cluster" if parameters.has("namespace") => parameters
            .under("namespace")
            .forbidden("`parameters.scope` is set to 'Cluster'"),
        "Cluster" => {}
        _ => parameters.under("scope").not_supported(&["Cluster", "Namespace"]),
    }
}
