//! What a controller is asked and what it answers, in the words of `pilotis:controller` but without wasmtime.

use bytes::Bytes;
use model::Gvk;
use serde::{Deserialize, Serialize};
use view::{Refused, Selection};

/// What a call may hand to its next one.
pub const MEMO_BYTES: usize = 4096;

/// One object, as plugins name it. `namespace` is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub kind: Gvk,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: Gvk, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub key: Key,
    /// What became of the last call's intents, if one was refused.
    pub refused: Option<Refusal>,
    /// What the last call gave back; empty at the start, and whenever it was lost.
    pub memo: Bytes,
    /// Milliseconds since 1970.
    pub now: i64,
}

/// The first intent that was not carried out. Those behind it were not tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub intent: u32,
    pub why: Refused,
    /// How many runs in a row ended in a refusal, this one included.
    pub times: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Carried out in order, up to the first refusal, before the key runs again.
    pub intents: Vec<Intent>,
    /// At most [`MEMO_BYTES`].
    pub memo: Bytes,
}

/// What must still hold at the moment of the write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// Still the object with this uid.
    Uid(String),
    /// Nothing changed since this `resourceVersion`.
    Version(String),
    /// The object with this uid, and these fields as the call's view has them.
    FieldsAsRead {
        uid: String,
        fields: String,
    },
    /// No object of that name.
    Absent,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchFormat {
    Json,
    Merge,
    Strategic,
}

/// Something to be told about an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    pub about: Key,
    pub uid: String,
    pub warning: bool,
    /// `SuccessfulCreate`.
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Server-side apply as the plugin, forced.
    Apply {
        body: Bytes,
        when: Precondition,
    },
    Create {
        body: Bytes,
    },
    /// Replaces `status` of the object that the body names.
    SetStatus {
        body: Bytes,
        when: Precondition,
    },
    Patch {
        key: Key,
        when: Precondition,
        format: PatchFormat,
        body: Bytes,
        subresource: String,
    },
    Remove {
        key: Key,
        when: Precondition,
        propagation: Propagation,
    },
    /// Every selected object of the kind.
    RemoveAll {
        kind: Gvk,
        which: Selection,
    },
    SetScale {
        key: Key,
        replicas: i32,
        when: Precondition,
    },
    RemoveFinalizer {
        key: Key,
        finalizer: String,
        when: Precondition,
    },
    Evict {
        key: Key,
        when: Precondition,
    },
    Event(Event),
    /// A step that this host does not know; refused as `unsupported`.
    Other(u32),
}
