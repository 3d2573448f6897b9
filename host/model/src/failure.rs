//! All that can go wrong in a request, told once and without HTTP.

use std::fmt;
use std::time::Duration;

use crate::{GroupResource, Gvk, ObjectKey, ResourceVersion};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request failed. `api/reject.rs` is the only place that turns one into an HTTP status and a Kubernetes `Status`.
///
/// Messages follow kube-apiserver's wording where clients are known to print or match it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0} not found")]
    NotFound(ObjectKey),
    /// The collection itself is not served here.
    #[error("the server could not find the requested resource")]
    NoSuchResource { asked: String },
    #[error("{0} already exists")]
    AlreadyExists(ObjectKey),
    /// The object moved on since the caller read it, or (causes of `FieldManagerConflict`) others own what it applies.
    #[error("{}", Fulfilled(.object, .reason, .causes))]
    Conflict {
        object: ObjectKey,
        reason: String,
        causes: Vec<Cause>,
    },
    /// The object reads well but breaks rules of its kind.
    #[error("{} \"{name}\" is invalid: {}", GroupKind(.kind), Causes(.causes))]
    Invalid {
        kind: Gvk,
        name: String,
        causes: Vec<Cause>,
    },
    /// The request itself cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Unauthorized(String),
    /// The caller may not do this, or an admission step said no. `reason` is the whole sentence after `is forbidden: `.
    #[error("{} is forbidden: {reason}", Subject(.resource, .name))]
    Forbidden {
        resource: GroupResource,
        name: String,
        reason: String,
    },
    /// An admission plugin refused, with the status it chose.
    #[error("{reason}")]
    Denied {
        by: String,
        object: ObjectKey,
        reason: String,
        code: u16,
    },
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed { verb: String, resource: GroupResource },
    #[error("{0}")]
    NotAcceptable(String),
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The revision asked for has been compacted away; list again.
    #[error("{0}")]
    Expired(String),
    /// `resourceVersion` lies in the future.
    #[error("Too large resource version: {asked}, current: {current}")]
    TooLargeVersion {
        asked: ResourceVersion,
        current: ResourceVersion,
    },
    #[error("Request entity too large: limit is {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{reason}")]
    TooManyRequests {
        reason: String,
        /// Zero: nobody knows when it would go better.
        retry_after: Duration,
        causes: Vec<Cause>,
    },
    #[error("{0}")]
    Timeout(String),
    #[error("{what} is not reachable")]
    Unavailable {
        what: &'static str,
        #[source]
        source: BoxError,
    },
    /// What a request was to be passed on to does not answer. (The words kube-apiserver's proxy has for it.)
    #[error("error trying to reach service: {0}")]
    Unreached(String),
    /// A plugin stopped while it was needed: trapped, ran out of time or budget, or is not loaded.
    #[error("plugin {name} stopped while {doing}: {reason}")]
    Plugin {
        name: String,
        doing: &'static str,
        reason: String,
    },
    /// A fault of ours.
    #[error("Internal error occurred: {0}")]
    Internal(String),
}

impl Failure {
    /// An unexpected error of ours, with its whole chain in the message.
    pub fn internal(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Failure::Internal(text)
    }

    /// The usual conflict: someone else wrote first.
    pub fn modified(object: ObjectKey) -> Self {
        Failure::Conflict {
            object,
            reason: "the object has been modified; please apply your changes to the latest version and try again"
                .into(),
            causes: Vec::new(),
        }
    }

    /// No `_` arm: whoever adds a case decides here whether the same request may succeed when sent again.
    pub fn worth_retrying(&self) -> bool {
        match self {
            Failure::Conflict { .. }
            | Failure::Expired(_)
            | Failure::TooLargeVersion { .. }
            | Failure::TooManyRequests { .. }
            | Failure::Timeout(_)
            | Failure::Unavailable { .. }
            | Failure::Unreached(_)
            | Failure::Plugin { .. }
            | Failure::Internal(_) => true,
            Failure::NotFound(_)
            | Failure::NoSuchResource { .. }
            | Failure::AlreadyExists(_)
            | Failure::Invalid { .. }
            | Failure::BadRequest(_)
            | Failure::Unauthorized(_)
            | Failure::Forbidden { .. }
            | Failure::Denied { .. }
            | Failure::MethodNotAllowed { .. }
            | Failure::NotAcceptable(_)
            | Failure::UnsupportedMediaType(_)
            | Failure::TooLarge { .. } => false,
        }
    }
}

/// One thing wrong with an object, at one field: an entry of `status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub reason: CauseReason,
    /// `spec.template.spec.containers[0].image`; empty for the object as a whole.
    pub field: String,
    /// What stands after the field in the message: `Required value`, `Invalid value: "x": must be …`.
    pub message: String,
}

impl Cause {
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::of(CauseReason::Required, field, "Required value", detail)
    }

    /// `value` as it is to be printed, quoted if it is text.
    pub fn invalid(field: impl Into<String>, value: impl fmt::Display, detail: &str) -> Self {
        Self::of(CauseReason::Invalid, field, &format!("Invalid value: {value}"), detail)
    }

    pub fn duplicate(field: impl Into<String>, value: impl fmt::Display) -> Self {
        Self::of(CauseReason::Duplicate, field, &format!("Duplicate value: {value}"), "")
    }

    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::of(CauseReason::Forbidden, field, "Forbidden", detail)
    }

    /// `supported` in the order it is to be printed.
    pub fn not_supported(field: impl Into<String>, value: impl fmt::Display, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        Self::of(
            CauseReason::NotSupported,
            field,
            &format!("Unsupported value: {value}"),
            &detail,
        )
    }

    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self::of(
            CauseReason::TooLong,
            field,
            "Too long",
            &format!("may not be more than {limit} bytes"),
        )
    }

    fn of(reason: CauseReason, field: impl Into<String>, what: &str, detail: &str) -> Self {
        let message = if detail.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {detail}")
        };
        Self {
            reason,
            field: field.into(),
            message,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

/// The machine-readable kind of a cause (`field.ErrorType` and `metav1.CauseType` in Kubernetes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CauseReason {
    Required,
    Invalid,
    TypeInvalid,
    Duplicate,
    Forbidden,
    NotSupported,
    TooLong,
    TooMany,
    NotFound,
    Internal,
    /// Another field manager owns the field (server-side apply).
    FieldManagerConflict,
    /// A precondition did not hold when the object was compared (uid or version).
    UidMismatch,
    ResourceVersionMismatch,
    /// A PodDisruptionBudget does not allow an eviction (`policy/v1` `DisruptionBudgetCause`).
    DisruptionBudget,
}

impl CauseReason {
    pub fn as_str(self) -> &'static str {
        match self {
            CauseReason::Required => "FieldValueRequired",
            CauseReason::Invalid => "FieldValueInvalid",
            CauseReason::TypeInvalid => "FieldValueTypeInvalid",
            CauseReason::Duplicate => "FieldValueDuplicate",
            CauseReason::Forbidden => "FieldValueForbidden",
            CauseReason::NotSupported => "FieldValueNotSupported",
            CauseReason::TooLong => "FieldValueTooLong",
            CauseReason::TooMany => "FieldValueTooMany",
            CauseReason::NotFound => "FieldValueNotFound",
            CauseReason::Internal => "InternalError",
            CauseReason::FieldManagerConflict => "FieldManagerConflict",
            CauseReason::UidMismatch => "UIDMismatch",
            CauseReason::ResourceVersionMismatch => "ResourceVersionMismatch",
            CauseReason::DisruptionBudget => "DisruptionBudget",
        }
    }
}

struct Causes<'a>(&'a [Cause]);

impl fmt::Display for Causes<'_> {
    /// One cause as it is, several in brackets with commas: `field.ErrorList.ToAggregate` in Kubernetes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [one] => one.fmt(f),
            many => {
                f.write_str("[")?;
                for (i, cause) in many.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    cause.fmt(f)?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A conflict between field managers is told as it is: kubectl prints it so.
struct Fulfilled<'a>(&'a ObjectKey, &'a str, &'a [Cause]);

impl fmt::Display for Fulfilled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fulfilled(object, reason, causes) = self;
        match causes.first().map(|cause| cause.reason) {
            Some(CauseReason::FieldManagerConflict) => f.write_str(reason),
            _ => write!(f, "Operation cannot be fulfilled on {object}: {reason}"),
        }
    }
}

/// `Pod`, `Deployment.apps`.
struct GroupKind<'a>(&'a Gvk);

impl fmt::Display for GroupKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.group.as_str() {
            "" => f.write_str(&self.0.kind),
            group => write!(f, "{}.{group}", self.0.kind),
        }
    }
}

struct Subject<'a>(&'a GroupResource, &'a str);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            "" => write!(f, "{}", self.0),
            name => write!(f, "{} \"{name}\"", self.0),
        }
    }
}
