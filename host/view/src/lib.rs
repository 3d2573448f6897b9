//! The cluster as one decision sees it: informers, indexes, tallies and recorded reads.
