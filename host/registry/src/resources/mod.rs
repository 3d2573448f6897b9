//! The built-in kinds. To add one: a file here, a line in [`all`].

use model::Failure;

use crate::resource::Resource;

pub(crate) mod common;
pub(crate) mod configmap;
pub(crate) mod crd;
pub(crate) mod namespace;
pub(crate) mod pod;

/// Every built-in resource, in discovery order.
///
/// # Errors
/// `Internal` if the schema table lacks one: a fault of ours.
pub fn all() -> Result<Vec<Resource>, Failure> {
    Ok(vec![
        namespace::resource(),
        configmap::resource(),
        pod::resource(),
    ])
}
