//! A plugin's own lines in the host's log, and on standard error in tests.

pub use crate::bindings::host::pilotis::core::log::Level;

pub fn write(level: Level, line: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::host::pilotis::core::log::write(level, line);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?}: {line}");
}

pub fn info(line: &str) {
    write(Level::Info, line);
}

pub fn warn(line: &str) {
    write(Level::Warn, line);
}
