//! What a kind is made of: the table of facts, and decoding, defaulting, pruning, patches and apply on it. No IO.
//!
//! Start at [`Schema`]: one kind, built in ([`Table`]) or compiled from a custom resource definition ([`Schema::from_crd`]).
//! Everything that is done to objects goes through it and asks nowhere which of the two it has.
//!
//! Does not know: HTTP, the store, who is asking, what a pod is.

pub mod apply;
mod custom;
mod decode;
pub mod duration;
mod fields;
mod form;
mod format;
mod json;
mod laws;
mod merge;
mod patch;
mod place;
pub mod protobuf;
mod rules;
mod schema;
mod shape;
pub mod strategic;
mod structural;
mod table;
mod typed;

pub use form::{Member, Relation, Scalar, Type};
pub use json::parse;
pub use merge::json_merge;
pub use patch::json_patch;
pub use schema::{Decoded, Schema};
pub use structural::{Definition, field_path};
pub use table::Table;
