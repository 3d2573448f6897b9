//! CSIStorageCapacity: how much a driver can still provide of a class in one part of the cluster.

use model::text;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    Resource::namespaced("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
        .no_generation()
        .columns(vec![Column::created_at()])
        .conditional_updates()
        .validate(|new, old, wrong| {
            let mut capacity = At::new(new, "", wrong);
            capacity.under("storageClassName").fits(text::dns1123_subdomain);
            if capacity.has("capacity") {
                capacity.under("capacity").quantity_not_negative();
            }
            capacity.selector("nodeTopology");
            for key in ["nodeTopology", "storageClassName"] {
                capacity.immutable(key, old.unwrap_or(new));
            }
        })
}
