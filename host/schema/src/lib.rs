//! What a kind is made of: the table of facts, and decoding, defaulting, pruning, patches and apply on it. No IO.
