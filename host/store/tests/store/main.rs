//! The contract, held against every engine, and what a crash, a full disk and a slow reader may do to it.

mod conformance;
mod crash;
mod disk;
mod etcd;
mod etcd_server;
mod laws;
mod slow;
