//! The door as clients meet it: real TLS, real kubectl, a registry on a memory store behind it.

mod http;
mod kinds;
mod kubectl;
mod protobuf;
mod streams;
mod support;
mod usage;
