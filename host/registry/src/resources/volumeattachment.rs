//! VolumeAttachment: that a volume is to be at a node. The attacher tells in `status` whether it is.

use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::born_with_status;
use crate::table::{Column, text_at};

pub(crate) fn resource() -> Resource {
    Resource::cluster("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
        .no_generation()
        .columns(vec![
            Column::text_or("Attacher", "spec.attacher", "").about("The driver that is to act."),
            Column::text_or("PV", "spec.source.persistentVolumeName", "").about("The volume."),
            Column::text_or("Node", "spec.nodeName", "").about("The node."),
            Column::boolean("Attached", "status.attached").about("Whether it is there."),
            Column::age(),
        ])
        .prepare(|new, old| {
            born_with_status(new, old);
            if old.is_none() {
                new["status"]["attached"] = false.into();
            }
        })
        .conditional_updates()
        .validate(validate)
        .status_checked(|_, _, _| {})
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut whole = At::new(new, "", wrong);
    if let Some(old) = old {
        return whole.immutable("spec", old);
    }
    let mut spec = whole.under("spec");
    if spec.need("attacher", "") {
        spec.under("attacher")
            .fits(|name| text::qualified_name(&name.to_lowercase()));
    }
    let mut source = spec.under("source");
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("inlineVolumeSpec"), source.has("persistentVolumeName")) {
        (false, false) => source.required(one),
        (true, true) => source.forbidden(one),
        (false, true) if text_at(source.value, "persistentVolumeName").is_empty() => source
            .under("persistentVolumeName")
            .required("must specify non empty persistentVolumeName"),
        (false, true) => source.under("persistentVolumeName").fits(text::dns1123_subdomain),
        (true, false) => {}
    }
    spec.under("nodeName").fits(text::dns1123_subdomain);
}
