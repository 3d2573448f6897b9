//! DeviceClass: a kind of device that claims can ask for by name.

use model::Cause;
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::resourceclaim::{MOST_CONFIGS, configuration, selectors};
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    Resource::cluster("resource.k8s.io", "v1", "DeviceClass", "deviceclasses")
        .columns(vec![Column::age()])
        .validate(validate)
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    selectors(&mut spec);
    let configs = spec.list("config").len();
    if configs > MOST_CONFIGS {
        spec.under("config").too_many(configs, MOST_CONFIGS);
    }
    spec.each("config", |mut config| configuration(&mut config));
    if spec.has("extendedResourceName") {
        let name = spec.text("extendedResourceName");
        let qualified = name.split_once('/').is_some_and(|(domain, _)| {
            !domain.is_empty()
                && domain != "kubernetes.io"
                && !domain.ends_with(".kubernetes.io")
                && !name.starts_with("requests.")
        });
        if !qualified || !model::text::qualified_name(name).is_empty() {
            spec.under("extendedResourceName")
                .invalid("must be a valid extended resource name");
        }
    }
}
