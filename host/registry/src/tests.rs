//! The registry over the memory store: what every verb promises.

mod support;

mod verbs;
mod watches;
