//! Compaction, by one of all who share an etcd, elected the way kube-apiserver elects.
//!
//! The key `compact_rev_key` holds the newest revision at the time of its last write; its version counts the rounds. Every
//! interval each server tries to write it, comparing the version that it knows. Who succeeds compacts to the revision it
//! learned an interval ago; the others learn the winner's round. A stock kube-apiserver takes part without knowing us.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Error, KvClient, Txn, TxnOp, TxnOpResponse};

use super::follow::Follower;
use super::{is_compacted, revision};
use crate::Revision;

const KEY: &str = "compact_rev_key";

/// What a server knows of the last round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Round {
    version: i64,
    /// The newest revision at that time.
    revision: Revision,
}

/// Takes part in the election until aborted.
pub(super) async fn elected(kv: KvClient, follower: Arc<Follower>, age: Duration) {
    let mut known = Round::default();
    let mut seen = follower.through();
    loop {
        tokio::time::sleep(age).await;
        match round(&kv, known).await {
            Ok(next) => known = next,
            // In the next round then; nothing depends on the hour.
            Err(error) => tracing::debug!(%error, "etcd could not be compacted"),
        }
        // Whoever compacted: what we keep for watchers is not older than an interval or two either.
        follower.forget(seen);
        seen = follower.through();
    }
}

/// One round: compacts to what was known, or learns that another did.
pub(super) async fn round(kv: &KvClient, known: Round) -> Result<Round, Error> {
    let mut kv = kv.clone();
    let unchanged = Compare::version(KEY, CompareOp::Equal, known.version);
    let put = TxnOp::put(KEY, known.revision.to_string(), None);
    let txn = Txn::new()
        .when([unchanged])
        .and_then([put])
        .or_else([TxnOp::get(KEY, None)]);
    let response = kv.txn(txn).await?;
    let now = revision(response.header());
    if !response.succeeded() {
        let version = response.op_responses().into_iter().find_map(|found| match found {
            TxnOpResponse::Get(found) => found.kvs().first().map(|kv| kv.version()),
            _ => None,
        });
        return Ok(Round {
            version: version.unwrap_or(0),
            revision: now,
        });
    }
    let next = Round {
        version: known.version + 1,
        revision: now,
    };
    // In the first round there is nothing to go by yet.
    if known.revision != Revision::default() {
        match kv.compact(known.revision.0 as i64, None).await {
            Err(error) if !is_compacted(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(next)
}
