//! The `Store` trait and its engines `memory`, `embedded` and `etcd`; one conformance suite runs on all.
