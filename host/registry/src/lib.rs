//! The only writer: a file per resource, admission order, versions, finalizers, watch cache.
