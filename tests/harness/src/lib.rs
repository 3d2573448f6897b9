//! Starts what tests need: clusters, stores, runtimes, clients.
