//! The registry over the memory store: what every verb promises.

mod support;

mod kinds;
mod verbs;
mod watches;
