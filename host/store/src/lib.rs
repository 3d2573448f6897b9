//! What the cluster remembers: the `Store` trait and its engines `memory`, `embedded` and `etcd`.
//!
//! Start at [`Store`]: its documentation is the contract, and one conformance suite runs it on every engine.
//!
//! Does not know: objects, kinds, JSON, versions of APIs. A value is bytes; a key is bytes under Kubernetes' layout
//! (`/registry/pods/default/web-0`, `/registry/apiregistration.k8s.io/apiservices/v1.apps`).
//!
//! # Why `embedded` has a log of its own
//!
//! Measured by `benches/engines.rs` on the 2-core development machine (ext4, other builds running): 1,000 writers, 1 KB
//! values, every answer after an fsync, the same group commit in front of each engine.
//!
//! | engine | asked to keep | writes/s | wait p50 / p99, ms | bytes to disk per byte of value |
//! |---|---|---|---|---|
//! | a log, values in memory | key, revision → value | 57,900 | 17 / 32 | 1.06 |
//! | fjall 3 | the same | 54,200 | 16 / 78 | 2.00 |
//! | fjall 3 | the whole contract (watchable log, old versions dropped) | 35,400 | 26 / 100 | 2.18 |
//! | redb 4 | key, revision → value | 17,400 | 57 / 184 | 7.40 |
//! | SQLite (WAL, synchronous=FULL) | the same | 7,500 | 144 / 237 | 21.6 |
//!
//! redb and SQLite are far away. fjall comes near as long as it does half of the work; with the other half it is at 60 %,
//! writes twice the bytes, and brings threads, caches and write buffers that an idle single-node cluster would carry. What
//! the contract needs beyond a log is small here, since the keys are in memory anyhow: history is what the tree has not
//! forgotten yet, a watch is a place in the list of recent changes, compaction drops memory and touches no disk. The price:
//! values are in memory, and a start reads them all.
//!
//! `benches/store.rs` measures the finished store beside a real etcd (3.4.23), in one run on that same busy machine:
//!
//! | | embedded | etcd |
//! |---|---|---|
//! | durable writes, 1,000 clients, 1 KB | 44,500/s, 530 for each fsync | 3,500/s, 57 for each fsync |
//! | wait for one, p50 / p99 | 17 / 127 ms | 279 / 479 ms |
//! | durable writes, 1 client | 960/s | 990/s |
//! | events to 100 watchers of this process | 2.2 million/s | 0.45 million/s |
//! | memory for a pod of 1 KB, key and value included | 1.45 KB | – |
//! | start with 100,000 such pods | 0.3 s | – |

mod contract;
pub mod embedded;
mod engine;
mod error;
pub mod etcd;
mod hub;
pub mod memory;
mod snapshot;
mod tree;
mod watch;
mod writer;

pub use contract::{
    Batch, Change, Compare, Counted, Entry, Event, MAX_KEY, MAX_VALUE, Outcome, Page, Previous, Range, Read, Revision,
    Store, Txn,
};
pub use engine::{History, LocalStore};
pub use error::StoreError;
pub use watch::Watch;
