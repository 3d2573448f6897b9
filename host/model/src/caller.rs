//! Who is asking: every request carries one of these, whichever door it came through.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What an authenticator found out, as `authentication.k8s.io/v1 UserInfo` says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserInfo {
    #[serde(rename = "username")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The one a request acts for. Cheap to clone.
///
/// There is no way to write without one, and no built-in caller skips authorization: components of the cluster act as
/// users with roles, like everybody else (`system:kube-scheduler`, `system:plugin:NAME`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    user: Arc<UserInfo>,
    /// The program, as `managedFields` names it when a request does not (`kubectl`, `pilotis-scheduler`).
    agent: Arc<str>,
}

impl Caller {
    pub fn new(user: UserInfo, agent: &str) -> Self {
        Self {
            user: Arc::new(user),
            agent: agent.into(),
        }
    }

    /// A component or plugin of the cluster: `system:kube-scheduler` in group `system:authenticated`.
    pub fn component(name: &str, groups: &[&str]) -> Self {
        let groups = groups
            .iter()
            .copied()
            .chain(["system:authenticated"])
            .map(String::from)
            .collect();
        let agent = name.rsplit(':').next().unwrap_or(name);
        Self::new(
            UserInfo {
                name: name.into(),
                groups,
                ..UserInfo::default()
            },
            agent,
        )
    }

    pub fn user(&self) -> &UserInfo {
        &self.user
    }

    pub fn agent(&self) -> &str {
        &self.agent
    }
}
