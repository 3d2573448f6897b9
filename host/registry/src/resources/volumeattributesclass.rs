//! VolumeAttributesClass: qualities of a volume that may change while it is used.

use model::Cause;
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::storageclass::parameters;
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    Resource::cluster(
        "storage.k8s.io",
        "v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
    )
    .short(&["vac"])
    .no_generation()
    .columns(vec![
        Column::text_or("DriverName", "driverName", "").about("The CSI driver that understands the parameters."),
        Column::age(),
    ])
    .validate(validate)
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut class = At::new(new, "", wrong);
    if let Some(old) = old {
        for key in ["driverName", "parameters"] {
            if new.get(key) != old.get(key) {
                class.under(key).forbidden(&format!("updates to {key} are forbidden."));
            }
        }
        return;
    }
    class.with("driverName", super::csidriver::driver_name);
    parameters(&mut class, false);
}
