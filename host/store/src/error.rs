//! What can go wrong in a store, and what the caller may conclude from it.

use std::path::PathBuf;

use model::{BoxError, Failure};

use crate::Revision;

/// Why a store did not do what it was asked. Whether a refused write can have happened stands at each case.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is older than the history that is kept. List again and watch from the list's revision.
    #[error("revision {asked} is compacted away; the oldest that can be read is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision asked for has not been issued yet.
    #[error("revision {asked} has not been issued yet; the newest is {current}")]
    Future { asked: Revision, current: Revision },
    /// A key or value is over its limit (or a key is empty). Nothing was written.
    #[error("a {what} of {size} bytes was refused: it must have 1 to {limit} bytes")]
    Size {
        what: &'static str,
        size: usize,
        limit: usize,
    },
    /// A watcher fell further behind than is kept for it in memory. Watch again from [`crate::Batch::through`] of its
    /// last batch.
    #[error("the watcher is too far behind: it has seen everything through {seen}")]
    Lagged { seen: Revision },
    /// No room for the write. It did not happen, nothing acknowledged is lost, and reads go on.
    #[error("no room left to write to {path}: free some space; the store goes on by itself", path = .path.display())]
    Full {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The disk or the etcd server did not answer as it should. A write may or may not have happened.
    #[error("{what} is not reachable")]
    Unavailable {
        what: String,
        #[source]
        source: BoxError,
    },
    /// The files are not what this store wrote. It is not opened, so that nothing more is lost.
    #[error("{path} is damaged: {reason}", path = .path.display())]
    Damaged { path: PathBuf, reason: String },
    /// Another process has the store open.
    #[error("{path} is in use by another process{holder}: stop it, or choose another directory", path = .path.display())]
    InUse { path: PathBuf, holder: String },
    /// The store was closed while the call waited. A write may or may not have happened.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn unavailable(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        StoreError::Unavailable {
            what: what.into(),
            source: source.into(),
        }
    }
}

impl From<StoreError> for Failure {
    /// As Kubernetes would say it. Callers that can say more (which continue token, which object) match first.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { asked, oldest } => {
                Failure::Expired(format!("too old resource version: {asked} ({oldest})"))
            }
            StoreError::Lagged { seen } => Failure::Expired(format!("too old resource version: {seen}")),
            StoreError::Future { asked, current } => Failure::TooLargeVersion { asked, current },
            StoreError::Size {
                what: "value", limit, ..
            } => Failure::TooLarge { limit },
            StoreError::Size { .. } => Failure::BadRequest(error.to_string()),
            StoreError::Full { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Closed
            | StoreError::Damaged { .. }
            | StoreError::InUse { .. } => Failure::Unavailable {
                what: "the store",
                source: error.into(),
            },
        }
    }
}
