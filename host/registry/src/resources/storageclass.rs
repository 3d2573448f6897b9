//! StorageClass: how volumes are made for claims that name it. What it says may hardly change.

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::default;
use crate::table::Column;

/// All parameters of a class together, keys and values, in bytes; and how many there may be.
const LARGEST: usize = 256 * 1024;
const MOST: usize = 512;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

pub(crate) fn resource() -> Resource {
    let mut columns = vec![
        Column::text_or("Provisioner", "provisioner", "").about("Who makes the volumes."),
        Column::text_or("ReclaimPolicy", "reclaimPolicy", "").about("What becomes of a released volume."),
        Column::text_or("VolumeBindingMode", "volumeBindingMode", "").about("When claims are bound."),
        Column::boolean("AllowVolumeExpansion", "allowVolumeExpansion").about("Whether volumes may grow."),
        Column::age(),
    ];
    let mut all = vec![Column::computed("Name", |o, _| name(o).into()).named()];
    all.append(&mut columns);
    Resource::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .no_generation()
        .only_columns(all)
        .prepare(|new, _| {
            default(new, "reclaimPolicy", "Delete");
            default(new, "volumeBindingMode", "Immediate");
        })
        .validate(validate)
}

fn name(class: &Value) -> String {
    let meta = &class["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    let beta = "storageclass.beta.kubernetes.io/is-default-class";
    match [DEFAULT, beta].iter().any(|key| meta["annotations"][key] == "true") {
        true => format!("{name} (default)"),
        false => name.to_owned(),
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut class = At::new(new, "", wrong);
    if let Some(old) = old {
        for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            class.immutable(key, old);
        }
    }
    if class.need("provisioner", "") {
        class
            .under("provisioner")
            .fits(|name| text::qualified_name(&name.to_lowercase()));
    }
    parameters(&mut class, true);
    class.may_be_one_of("reclaimPolicy", &["Delete", "Retain"]);
    class.one_of("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
    let mut seen: Vec<&Value> = Vec::new();
    class.each("allowedTopologies", |mut term| {
        let expressions = &term.value["matchLabelExpressions"];
        if seen.contains(&expressions) {
            let cause = Cause::duplicate(term.path_of("matchLabelExpressions"), "\"\"");
            term.push(cause);
        }
        seen.push(expressions);
        term.each("matchLabelExpressions", |mut rule| {
            if rule.list("values").is_empty() {
                rule.under("values").required("");
            }
            rule.under("key").fits(text::qualified_name);
        });
    });
}

/// Free words for a driver, with a limit on all of them.
pub(crate) fn parameters(class: &mut At<'_, '_>, may_be_empty: bool) {
    let (mut size, mut count) = (0, 0);
    class.entries("parameters", |key, mut value| {
        count += 1;
        size += key.len() + value.value.as_str().map_or(0, str::len);
        if key.is_empty() {
            let cause = Cause::invalid("parameters", "\"\"", "field can not be empty.");
            value.push(cause);
        }
    });
    if count > MOST {
        class.under("parameters").too_long(MOST);
    }
    if size > LARGEST {
        class.under("parameters").too_long(LARGEST);
    }
    if count == 0 && !may_be_empty {
        class
            .under("parameters")
            .required("must contain at least one key/value pair");
    }
}
