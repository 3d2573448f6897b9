//! The registry over the memory store: what every verb promises.

mod support;

mod cases;
mod definitions;
mod etcd;
mod gates;
mod golden;
mod kinds;
mod network;
mod speed;
mod verbs;
mod watches;
