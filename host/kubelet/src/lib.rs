//! From bound pods to running containers: pod state machine and runtime bridge.
