//! Acting as somebody else (`kubectl --as`): allowed one name at a time by the verb `impersonate`.

use std::collections::BTreeMap;

use model::{Failure, UserInfo};

use crate::rbac::{Ask, Rbac, What};
use crate::users;

/// Whom a request wants to act as. The user name is required as soon as anything else is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// Keys in lower case, percent-decoded.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Wish {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user that `caller` becomes.
///
/// # Errors
/// `BadRequest` without a user name, `Forbidden` for the first name the caller may not take.
pub fn impersonate(rbac: &Rbac, caller: &UserInfo, wish: Wish) -> Result<UserInfo, Failure> {
    if wish.user.is_empty() {
        return Err(Failure::BadRequest(
            "impersonation of groups, uid or extra needs Impersonate-User as well".into(),
        ));
    }
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let what = What::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        };
        rbac.check(&Ask {
            user: caller,
            verb: "impersonate",
            what,
        })
    };
    let account = users::parse_service_account(&wish.user);
    match account {
        Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
        None => may("", "users", "", "", &wish.user)?,
    }
    for group in &wish.groups {
        may("", "groups", "", "", group)?;
    }
    for (key, value) in wish
        .extra
        .iter()
        .flat_map(|(key, values)| values.iter().map(move |value| (key, value)))
    {
        may(AUTHENTICATION, "userextras", key, "", value)?;
    }
    if !wish.uid.is_empty() {
        may(AUTHENTICATION, "uids", "", "", &wish.uid)?;
    }
    let mut groups = wish.groups;
    if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
        groups = users::service_account_groups(namespace);
    }
    let badge = if wish.user == users::ANONYMOUS {
        users::UNAUTHENTICATED
    } else {
        users::AUTHENTICATED
    };
    if !groups
        .iter()
        .any(|g| g == users::AUTHENTICATED || g == users::UNAUTHENTICATED)
    {
        groups.push(badge.into());
    }
    Ok(UserInfo {
        name: wish.user,
        uid: wish.uid,
        groups,
        extra: wish.extra,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).into()).collect(),
            ..UserInfo::default()
        }
    }

    #[test]
    fn only_who_may_impersonate_does() {
        let rbac = Rbac::new(defaults::policy());
        let admin = user("root", &[users::MASTERS]);
        let wish = |name: &str, groups: &[&str]| Wish {
            user: name.into(),
            groups: groups.iter().map(|g| (*g).into()).collect(),
            ..Wish::default()
        };
        let jane = impersonate(&rbac, &admin, wish("jane", &["dev"])).unwrap();
        assert_eq!(
            (jane.name.as_str(), &jane.groups[..]),
            ("jane", &["dev".to_owned(), "system:authenticated".into()][..])
        );
        let robot = impersonate(&rbac, &admin, wish("system:serviceaccount:shop:cart", &[])).unwrap();
        assert_eq!(
            robot.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated"
            ]
        );
        assert_eq!(
            impersonate(&rbac, &jane, wish("root", &[])).unwrap_err().to_string(),
            "users \"root\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
        assert!(matches!(
            impersonate(&rbac, &admin, wish("", &["dev"])),
            Err(Failure::BadRequest(_))
        ));
    }
}
