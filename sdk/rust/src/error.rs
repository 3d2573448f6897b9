//! What a decision says when it cannot be made.

use std::fmt;

use crate::bindings::host::pilotis::core::types::Failure;
pub use crate::bindings::host::pilotis::core::types::Reason;

/// One sentence for a person, with Kubernetes' reason. The key is run again, later each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    pub reason: Reason,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The subject cannot be right, whatever the cluster does: trying again will not help until it is changed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, message)
    }

    /// A fault of the plugin's own, or of the host's.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Reason::Internal, message.to_string())
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason,
            message: failure.message,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            reason: error.reason,
            message: error.message,
        }
    }
}

impl From<crate::columns::Malformed> for Error {
    fn from(error: crate::columns::Malformed) -> Self {
        Self::internal(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::internal(message)
    }
}
