//! Components that tests load, most of them at fault. `cargo xtask guests` builds each file of `examples/` into
//! `target/guests/NAME.wasm`; `host/plugin/tests` proves each harmless.
