//! Failures in the words of `pilotis:core/types`, and back.

use std::time::Duration;

use model::Failure;

use crate::bindings::pilotis::core::types::{self, Reason};

impl From<&Failure> for types::Failure {
    /// No `_` arm: whoever adds a case decides what a guest is told.
    fn from(failure: &Failure) -> Self {
        let reason = match failure {
            Failure::NotFound(_) | Failure::NoSuchResource { .. } => Reason::NotFound,
            Failure::AlreadyExists(_) => Reason::AlreadyExists,
            Failure::Conflict { .. } => Reason::Conflict,
            Failure::Invalid { .. } => Reason::Invalid,
            Failure::Forbidden { .. } | Failure::Denied { .. } | Failure::Unauthorized(_) => Reason::Forbidden,
            Failure::BadRequest(_)
            | Failure::MethodNotAllowed { .. }
            | Failure::NotAcceptable(_)
            | Failure::UnsupportedMediaType(_)
            | Failure::TooLarge { .. } => Reason::BadRequest,
            Failure::Expired(_) => Reason::Expired,
            Failure::TooManyRequests { .. } => Reason::TooManyRequests,
            Failure::Timeout(_) => Reason::Timeout,
            Failure::TooLargeVersion { .. } | Failure::Unavailable { .. } | Failure::Plugin { .. } => Reason::Unavailable,
            Failure::Internal(_) => Reason::Internal,
        };
        Self { reason, message: failure.to_string() }
    }
}

/// A plugin's own refusal as a failure of the request that needed it.
pub fn refusal(plugin: &str, doing: &'static str, said: types::Failure) -> Failure {
    match said.reason {
        Reason::TooManyRequests => Failure::TooManyRequests { reason: said.message, retry_after: Duration::from_secs(1) },
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
        | Reason::Other(_) => Failure::Plugin { name: plugin.to_owned(), doing, reason: said.message },
    }
}
