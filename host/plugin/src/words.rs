//! What a plugin says, in the house's words.

use std::time::Duration;

use model::Failure;

use crate::bindings::pilotis::core::types::{self, Reason};

/// A plugin's own refusal as a failure of the request that needed it.
pub fn refusal(plugin: &str, doing: &'static str, said: types::Failure) -> Failure {
    match said.reason {
        Reason::TooManyRequests => Failure::TooManyRequests {
            reason: said.message,
            retry_after: Duration::from_secs(1),
            causes: Vec::new(),
        },
        Reason::BadRequest | Reason::Invalid => Failure::BadRequest(said.message),
        Reason::Timeout => Failure::Timeout(said.message),
        Reason::NotFound
        | Reason::AlreadyExists
        | Reason::Conflict
        | Reason::Forbidden
        | Reason::Expired
        | Reason::Unavailable
        | Reason::Unsupported
        | Reason::Internal
        | Reason::Other(_) => Failure::Plugin {
            name: plugin.to_owned(),
            doing,
            reason: said.message,
        },
    }
}

/// A failure's reason, as `model::Failure` names it, in a plugin's words.
pub fn reason(text: &str) -> Reason {
    match text {
        "not-found" => Reason::NotFound,
        "already-exists" => Reason::AlreadyExists,
        "conflict" => Reason::Conflict,
        "invalid" => Reason::Invalid,
        "forbidden" => Reason::Forbidden,
        "bad-request" => Reason::BadRequest,
        "expired" => Reason::Expired,
        "too-many-requests" => Reason::TooManyRequests,
        "timeout" => Reason::Timeout,
        "unavailable" => Reason::Unavailable,
        "unsupported" => Reason::Unsupported,
        _ => Reason::Internal,
    }
}
