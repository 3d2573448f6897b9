//! What expressions ask of the authorizer (`authorizer.group(…).resource(…).check(…)`).

use cel::{Check, Ruling};
use futures::FutureExt;
use model::Caller;
use registry::gates::{Attributes, Decision};

use crate::Means;

/// Answers what expressions ask of the authorizer.
pub(crate) struct Judge<'a> {
    pub means: &'a Means,
    pub caller: &'a Caller,
}

impl cel::Authorizer for Judge<'_> {
    fn check(&self, asked: &Check) -> Ruling {
        let other;
        let caller = match &asked.service_account {
            None => self.caller,
            Some((namespace, name)) => {
                let user = format!("system:serviceaccount:{namespace}:{name}");
                let own = format!("system:serviceaccounts:{namespace}");
                let groups = ["system:serviceaccounts", own.as_str(), "system:authenticated"];
                other = Caller::component(&user, &groups);
                &other
            }
        };
        let attributes = Attributes {
            caller,
            verb: &asked.verb,
            group: &asked.group,
            version: "*",
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name: &asked.name,
        };
        // Expressions do not wait: an authorizer that has to ask elsewhere has no answer for them.
        let answer = match &asked.path {
            Some(_) => None,
            None => self.means.authorize.authorize(&attributes).now_or_never(),
        };
        let ruling = |allowed, reason: String, error| Ruling { allowed, reason, error };
        match answer {
            Some(Decision::Allow) => ruling(true, String::new(), None),
            Some(Decision::Deny(why) | Decision::NoOpinion(why)) => ruling(false, why, None),
            None => ruling(
                false,
                String::new(),
                Some("the authorizer does not answer at once".into()),
            ),
        }
    }
}
