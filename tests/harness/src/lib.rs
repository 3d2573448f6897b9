//! Starts what end-to-end tests need: clusters of the built binary, and the real kubectl to speak with them.
//!
//! Start at [`TestCluster`]; what needs root and would leave traces runs on a [`Machine`] of its own.
//!
//! Does not know: any crate of the house. It sees what an operator sees: a binary, a folder, processes, kubectl.

mod cluster;
mod containerd;
mod http;
mod machine;
mod run;

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use cluster::TestCluster;
pub use containerd::Containerd;
pub use http::{Answer, get};
pub use machine::Machine;
pub use run::{kill_group, output};

/// The repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tests/harness lies two folders deep")
        .to_owned()
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The binary under test: `PILOTIS_BIN`, or what `cargo xtask build` leaves.
pub fn binary() -> PathBuf {
    let path = env::var_os("PILOTIS_BIN").map_or_else(|| target().join("debug/pilotis"), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo xtask build` first",
        path.display()
    );
    path
}

/// A built guest, by the name of its crate or example. Guests are always built into the workspace's own target folder.
pub fn guest(name: &str) -> PathBuf {
    let path = root().join(format!("target/guests/{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is not there: run `cargo xtask build` first",
        path.display()
    );
    path
}

/// Polls `condition` until it holds, and returns what it gave. Panics after `limit` with what the condition said last.
/// The only place where tests wait by sleeping.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) if Instant::now() >= until => panic!("{what}: not within {limit:?}; last seen: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
