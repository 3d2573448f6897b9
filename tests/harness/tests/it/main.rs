//! The walls of the house, and the house as a whole: the built binary, the real kubectl, one cluster at a time.

mod admission;
mod bad_input;
mod clients;
mod command;
mod containerd;
mod crash;
mod hello;
mod hot_swap;
mod policy_weight;
mod restart;
mod steps;
mod walls;
