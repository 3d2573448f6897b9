//! What kinds there are and how they are addressed.

use std::fmt;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Group, version and kind, as `apiVersion` and `kind` spell them in an object. The core group is the empty string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gvk {
    pub group: CompactString,
    pub version: CompactString,
    pub kind: CompactString,
}

impl Gvk {
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        }
    }

    /// `v1` or `apps/v1`: the value of an object's `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Splits `v1` or `apps/v1` and adds the kind.
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        match api_version.split_once('/') {
            Some((group, version)) => Self::new(group, version, kind),
            None => Self::new("", api_version, kind),
        }
    }

    /// Parses `v1/Pod` or `apps/v1/ReplicaSet`, the spelling plugins use.
    pub fn parse(text: &str) -> Option<Self> {
        let (api_version, kind) = text.rsplit_once('/')?;
        (!api_version.is_empty() && !kind.is_empty()).then(|| Self::from_api_version(api_version, kind))
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

/// A collection's name without its version: `deployments.apps`. Storage, RBAC and field selectors speak of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupResource {
    pub group: CompactString,
    pub resource: CompactString,
}

impl GroupResource {
    pub fn new(group: &str, resource: &str) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

/// A collection as a URL addresses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gvr {
    pub group: CompactString,
    pub version: CompactString,
    pub resource: CompactString,
}

impl Gvr {
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
        }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.group.clone(),
            resource: self.resource.clone(),
        }
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            Gvk::new(&self.group, &self.version, "").api_version(),
            self.resource
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// What may be done to a resource, as RBAC and discovery spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// All of them, in the order discovery lists them.
    pub const ALL: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A second door to an object: `status`, `scale`, `binding`, `log`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subresource {
    pub name: CompactString,
    /// The kind that goes in and out, where it is not the parent's own (`autoscaling/v1/Scale`, `policy/v1/Eviction`).
    pub kind: Option<Gvk>,
    pub verbs: Vec<Verb>,
}

/// One served kind: all that discovery says of it. Shared by everything that handles objects of the kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kind {
    pub gvk: Gvk,
    /// `pods`; the last part of the collection's URL.
    pub plural: CompactString,
    pub singular: CompactString,
    pub scope: Scope,
    pub short_names: Vec<CompactString>,
    pub categories: Vec<CompactString>,
    pub verbs: Vec<Verb>,
    pub subresources: Vec<Subresource>,
    /// The kind and version that its objects are stored as, which may be another's; `None`: they are not stored.
    pub stored: Option<Gvk>,
}

impl Kind {
    pub fn gvr(&self) -> Gvr {
        Gvr {
            group: self.gvk.group.clone(),
            version: self.gvk.version.clone(),
            resource: self.plural.clone(),
        }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.gvk.group.clone(),
            resource: self.plural.clone(),
        }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `PodList`, or the CRD's own list kind: Kubernetes' rule is kind plus `List`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.gvk.kind)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_spelled_as_plugins_spell_them() {
        for text in ["v1/Pod", "apps/v1/ReplicaSet", "plugins.pilotis.dev/v1alpha1/Plugin"] {
            assert_eq!(Gvk::parse(text).unwrap().to_string(), text);
        }
        for bad in ["Pod", "/Pod", "v1/"] {
            assert_eq!(Gvk::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_core_group_is_not_written() {
        assert_eq!(GroupResource::new("", "pods").to_string(), "pods");
        assert_eq!(
            GroupResource::new("apps", "deployments").to_string(),
            "deployments.apps"
        );
        assert_eq!(Gvr::new("apps", "v1", "deployments").to_string(), "apps/v1/deployments");
    }
}
