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
