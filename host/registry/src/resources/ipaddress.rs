//! IPAddress: that an address of the Service ranges is taken, and by whom. Its name is the address.

use model::{Cause, text};
use serde_json::Value;

use crate::names::{NameRule, path_segment};
use crate::resource::Resource;
use crate::resources::check::At;
use crate::table::{Column, text_at};

pub(crate) fn resource() -> Resource {
    Resource::cluster("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
        .no_generation()
        .short(&["ip"])
        .names(NameRule::Address)
        .columns(vec![
            Column::computed("ParentRef", |o, _| parent(o).into()).about("What the address belongs to."),
            Column::age(),
        ])
        .validate(validate)
}

fn parent(address: &Value) -> String {
    let at = |key: &str| text_at(&address["spec"]["parentRef"], key);
    let kind = match at("group") {
        "" => at("resource").to_owned(),
        group => format!("{}.{group}", at("resource")),
    };
    let parts = [kind.as_str(), at("namespace"), at("name")];
    parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if let Some(old) = old {
        return spec.immutable("parentRef", &old["spec"]);
    }
    if !spec.has("parentRef") {
        return spec.under("parentRef").required("");
    }
    let mut parent = spec.under("parentRef");
    parent.may_fit("group", text::dns1123_subdomain);
    parent.need_fit("resource", path_segment);
    parent.need_fit("name", path_segment);
    parent.may_fit("namespace", path_segment);
}
