//! PodTemplate: a template of pods kept for later.

use serde_json::Value;

use crate::resource::Resource;
use crate::resources::{pod, pod_check, pod_spec};
use crate::table::{Column, at, pairs};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "PodTemplate", "podtemplates")
        .columns(vec![
            Column::computed("Containers", |o, _| pod::containers(&o["template"]).into())
                .about("Names of each container in the template."),
            Column::computed("Images", |o, _| pod::images(&o["template"]).into())
                .about("Images referenced by each container in the template."),
            Column::computed("Pod Labels", |o: &Value, _| {
                pairs(at(o, "template.metadata.labels")).into()
            })
            .about("The labels for the pod template."),
        ])
        .prepare(|new, _| {
            if let Some(spec) = new.pointer_mut("/template/spec") {
                pod_spec::default_spec(spec);
            }
        })
        .validate(|new, _, wrong| {
            let any = &["Always", "OnFailure", "Never"];
            pod_check::validate_template(&new["template"], "template", any, wrong);
        })
}
