//! The registry over the memory store: what every verb promises.

mod support;

mod cases;
mod custom;
mod definitions;
mod etcd;
mod gates;
mod golden;
mod kinds;
mod laws;
mod network;
mod patches;
mod services;
mod speed;
mod verbs;
mod watches;
