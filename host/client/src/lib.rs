//! The `Cluster` trait: what any component may ask of the cluster, and as whom.
//!
//! Start at [`Cluster`]; [`follow`] is how to keep up with what is there, and [`usage::Meter`] tells what nodes and pods use.
//! The registry implements it in this process. A component that takes `Arc<dyn Cluster>` does not notice where the cluster
//! is: one that speaks to an API server over HTTP is to come, and then it runs on another machine or in a stock cluster as
//! it is.
//!
//! Does not know: how objects are stored, who is authorised, what a URL looks like.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod follow;
pub mod node;
#[cfg(feature = "tls")]
pub mod tls;
pub mod usage;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{Caller, Failure, Gvr, Kind, Object, ResourceVersion, Uid};

pub use follow::{News, follow};

/// The cluster to one caller. Every call names its [`Caller`]; the cluster authorises, admits, audits and versions it.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// The kinds served now, in discovery order. Changes with CRDs; `kinds_changed` tells when.
    fn kinds(&self) -> Arc<Vec<Arc<Kind>>>;

    /// Resolves at the next change of [`Cluster::kinds`].
    async fn kinds_changed(&self);

    /// # Errors
    /// `NotFound`, `Forbidden`, `NoSuchResource`, `Unavailable`, and `TooLargeVersion` if `at` is not reached in time.
    async fn get(&self, caller: &Caller, target: &Target, at: ReadVersion) -> Result<Arc<Object>, Failure>;

    /// # Errors
    /// `Forbidden`, `NoSuchResource`, `Expired` for a continue token or version that is compacted, `BadRequest`.
    async fn list(&self, caller: &Caller, of: &Collection, options: &ListOptions) -> Result<List, Failure>;

    /// Events after `options.from`, in order, without gap or duplicate. The stream ends with an `Err` when it cannot go
    /// on (`Expired`: list again) or, after `options.timeout`, without one.
    ///
    /// # Errors
    /// Those of [`Cluster::list`].
    async fn watch(&self, caller: &Caller, of: &Collection, options: &WatchOptions) -> Result<WatchStream, Failure>;

    /// The only way to change anything.
    ///
    /// # Errors
    /// Any [`Failure`]. When it is `Unavailable` or `Timeout` the write may have happened all the same.
    async fn write(&self, caller: &Caller, write: Write) -> Result<Written, Failure>;
}

/// An object that may be a moment old: from the cache if it is there; absence is believed of the store alone.
///
/// # Errors
/// Those of [`Cluster::get`] without `NotFound`.
pub async fn find(cluster: &dyn Cluster, caller: &Caller, target: &Target) -> Result<Option<Arc<Object>>, Failure> {
    let read = match cluster.get(caller, target, ReadVersion::Any).await {
        Err(Failure::NotFound(_)) => cluster.get(caller, target, ReadVersion::Latest).await,
        read => read,
    };
    match read {
        Ok(object) => Ok(Some(object)),
        Err(Failure::NotFound(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// One object or one of its subresources, as a URL addresses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub gvr: Gvr,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Empty for a create that generates its name.
    pub name: String,
    /// `status`, `scale`, `binding` …; empty for the object itself.
    pub subresource: String,
}

impl Target {
    pub fn new(gvr: Gvr, namespace: &str, name: &str) -> Self {
        Self {
            gvr,
            namespace: namespace.into(),
            name: name.into(),
            subresource: String::new(),
        }
    }

    pub fn subresource(mut self, name: &str) -> Self {
        self.subresource = name.into();
        self
    }
}

/// A kind's objects in one namespace, or in all of them when `namespace` is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collection {
    pub gvr: Gvr,
    pub namespace: Option<String>,
}

impl Collection {
    pub fn all(gvr: Gvr) -> Self {
        Self { gvr, namespace: None }
    }
}

/// How fresh a read must be (KEP-2340, `resourceVersion` and `resourceVersionMatch`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadVersion {
    /// Linearizable: sees every write acknowledged before the call.
    #[default]
    Latest,
    /// Whatever the watch cache has.
    Any,
    AtLeast(ResourceVersion),
    /// Lists only.
    Exactly(ResourceVersion),
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Kubernetes' selector text; empty selects all.
    pub labels: String,
    pub fields: String,
    /// 0: no limit.
    pub limit: u64,
    /// From an earlier [`List::continue_token`].
    pub continue_token: String,
    pub version: ReadVersion,
}

#[derive(Debug, Clone)]
pub struct List {
    pub version: ResourceVersion,
    pub items: Vec<Arc<Object>>,
    /// Empty at the end.
    pub continue_token: String,
    /// How many follow this page, where that is known.
    pub remaining: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    pub labels: String,
    pub fields: String,
    /// Events after this version; `None`: state as synthetic `Added` events first, at any version.
    pub from: Option<ResourceVersion>,
    /// Ask for [`WatchEvent::Bookmark`]s.
    pub bookmarks: bool,
    /// WatchList (KEP-3157): state first, then a bookmark that says so. Needs `bookmarks`.
    pub send_initial_events: bool,
    pub timeout: Option<Duration>,
}

pub type WatchStream = BoxStream<'static, Result<WatchEvent, Failure>>;

/// A change as one watcher's selector sees it: an object that stops matching is `Deleted` to it.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last state, at the version of the deletion.
    Deleted(Arc<Object>),
    /// Everything up to this version has been sent.
    Bookmark {
        version: ResourceVersion,
        initial_events_end: bool,
    },
}

/// A change somebody asks for.
#[derive(Debug, Clone)]
pub struct Write {
    pub target: Target,
    pub action: Action,
    pub options: WriteOptions,
}

#[derive(Debug, Clone)]
pub enum Action {
    /// The body is JSON. On a subresource (`binding`, `eviction`, `token`) the subresource's own kind.
    Create(Bytes),
    Update {
        body: Bytes,
        preconditions: Preconditions,
    },
    Patch {
        kind: PatchKind,
        body: Bytes,
        preconditions: Preconditions,
    },
    Delete(DeleteOptions),
    /// Deletes each object of the target's collection that the selectors match; `target.name` is empty.
    DeleteCollection {
        delete: DeleteOptions,
        labels: String,
        fields: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    Strategic,
    /// Server-side apply (KEP-555). `force` takes fields from other managers.
    Apply {
        force: bool,
    },
}

/// What must hold at the moment of the write; otherwise it is refused with `Conflict` and nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<Uid>,
    pub version: Option<ResourceVersion>,
}

#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub preconditions: Preconditions,
    /// Seconds; `None`: the kind's default.
    pub grace: Option<u64>,
    pub propagation: Option<Propagation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Empty: the caller's agent.
    pub field_manager: String,
    pub dry_run: bool,
    pub validation: FieldValidation,
}

/// What to do about unknown and duplicate fields (KEP-2885).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What came of a write.
#[derive(Debug, Clone)]
pub struct Written {
    pub outcome: Outcome,
    /// For the `Warning` header.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Outcome {
    Created(Arc<Object>),
    /// Updated, patched, or marked for deletion while finalizers or a grace period remain.
    Changed(Arc<Object>),
    /// Gone. The last state.
    Deleted(Arc<Object>),
    /// What a deletecollection removed or marked.
    DeletedMany(Vec<Arc<Object>>),
    /// A subresource answered with a document of its own (`Binding` → `Status`, `TokenRequest`, `Scale`).
    Document {
        json: Bytes,
        created: bool,
    },
}

impl Outcome {
    /// The one object written, if it was one.
    pub fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Outcome::Created(object) | Outcome::Changed(object) | Outcome::Deleted(object) => Some(object),
            Outcome::DeletedMany(_) | Outcome::Document { .. } => None,
        }
    }
}
