//! The user and group names that mean something to the cluster itself.

use model::{Caller, UserInfo};

/// Members may do everything, whatever the roles say. The bootstrap of all other rights stands on it.
pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
pub const NODES: &str = "system:nodes";
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
pub const SCHEDULER: &str = "system:kube-scheduler";
pub const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub const PROXY: &str = "system:kube-proxy";
pub const API_SERVER: &str = "system:apiserver";

/// Someone who showed no credentials.
pub fn anonymous() -> UserInfo {
    UserInfo {
        name: ANONYMOUS.into(),
        groups: vec![UNAUTHENTICATED.into()],
        ..UserInfo::default()
    }
}

/// The API server itself: it reads roles and checks tokens, and puts the default roles in place.
pub fn api_server() -> Caller {
    Caller::component(API_SERVER, &[MASTERS])
}

/// `system:serviceaccount:NAMESPACE:NAME`.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Namespace and name out of `system:serviceaccount:NAMESPACE:NAME`.
pub fn parse_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups each account of a namespace is in, apart from `system:authenticated`.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![SERVICE_ACCOUNTS.into(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}
