//! The plugin host: load by digest, AOT cache, instances, limits, grants, faults, host imports.
