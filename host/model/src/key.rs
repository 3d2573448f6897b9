//! Which object, at which revision.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{Failure, GroupResource};

/// One object's place in the cluster. The namespace is empty for cluster-scoped kinds.
///
/// The version is not part of it: `apps/v1` and `apps/v2` of one Deployment are the same object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    pub resource: GroupResource,
    pub namespace: CompactString,
    pub name: CompactString,
}

impl ObjectKey {
    pub fn new(resource: GroupResource, namespace: &str, name: &str) -> Self {
        Self {
            resource,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    /// `deployments.apps "web"`, as kube-apiserver words it; with the namespace in front of the name where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.resource, self.name)
    }
}

/// A store revision: rises with every write to the cluster and names exactly one of them.
///
/// Clients treat it as opaque text; here it is a number so that two can be compared (KEP-5504 allows that).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceVersion(pub u64);

impl ResourceVersion {
    /// `"0"` in a request: any version will do.
    pub const ANY: ResourceVersion = ResourceVersion(0);
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ResourceVersion {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        text.parse().map(Self).map_err(|_| {
            Failure::BadRequest(format!(
                "Invalid value: \"{text}\": the resource version must be a whole number"
            ))
        })
    }
}

/// What tells an object from an earlier one of the same name. Never reused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Uid(pub CompactString);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
