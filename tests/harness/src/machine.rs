//! A machine of a test's own: its network, mounts and processes lie in namespaces that end with the test, however it ends.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster;
use crate::run::run;

/// Tells a test that it is inside, and where its folder is.
const INSIDE: &str = "PILOTIS_TEST_MACHINE";

/// For all that happens on one machine; its commands have limits of their own. Eleven kubectls take five minutes on two cores
/// that have nothing else to do.
const LIMIT: Duration = Duration::from_secs(1200);

/// Made before the test begins. `/run` is where runtimes and `ip netns` keep what lives as long as a machine. The wire ends
/// in nothing: it is there so that the machine has an address and a default route, as a node has.
const SETUP: &str = "mkdir -p /var/lib/cni && mount -t tmpfs none /run && mount -t tmpfs none /var/lib/cni \
    && ip link set lo up && ip link add uplink type veth peer name world \
    && ip address add 192.0.2.2/24 dev uplink && ip link set uplink up && ip link set world up \
    && ip route add default via 192.0.2.1";

/// What a test gets that runs on a machine of its own, as root.
pub struct Machine {
    dir: PathBuf,
}

impl Machine {
    /// The address of its one wire.
    pub const ADDRESS: &str = "192.0.2.2";

    /// Runs `story` on a machine of its own: the test binary again, with this one test. `test` is its name as
    /// `cargo test` prints it. Where the machine or one of `tools` (a program or a path) cannot be had, the test is
    /// skipped, and says so.
    ///
    /// # Panics
    /// With all that was said inside, if the story fails there.
    #[track_caller]
    pub fn of_its_own(test: &str, tools: &[&str], story: impl FnOnce(&Machine)) {
        if let Some(dir) = env::var_os(INSIDE) {
            // The test runner has begun a line, `test NAME ... `: what the story says first has its own.
            println!();
            return story(&Machine { dir: dir.into() });
        }
        if let Some(why) = lacking(tools) {
            eprintln!("skipped: {test}: {why}");
            return;
        }
        let _turn = cluster::turn();
        // /var/tmp is seldom on the overlay that /tmp is on in containers; snapshots cannot lie on one.
        let dir = tempfile::Builder::new().prefix("pilotis-").tempdir_in("/var/tmp");
        let dir = dir.expect("a folder in /var/tmp");
        let mut again = isolated(&format!("{SETUP} && exec \"$0\" \"$@\" 2>&1"));
        again
            .arg(env::current_exe().expect("the test binary's path"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(INSIDE, dir.path())
            .env("TMPDIR", dir.path());
        // Indented: a reader of the outer test's output must not take the inner one's for it.
        let said = run(&mut again, None, LIMIT).unwrap_or_else(|why| panic!("{}", why.replace('\n', "\n    ")));
        assert!(said.contains("1 passed"), "there is no test {test}: {said}");
        // What `cargo xtask test` collects.
        for line in said.lines() {
            if line.starts_with("skipped: ") || line.starts_with("client ") {
                println!("{line}");
            }
        }
    }

    /// A folder for all that the test leaves on disk; removed after it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A shell that is process 1 of new namespaces: when it ends, everything in them does.
fn isolated(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "sh", "-c", script]);
    command
}

fn lacking(tools: &[&str]) -> Option<String> {
    if std::fs::metadata("/proc/self").map_or(true, |me| me.uid() != 0) {
        return Some("a machine of its own needs root".into());
    }
    let found = |tool: &&&str| {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(tool).exists())
    };
    let missing: Vec<&str> = ["unshare", "ip"]
        .iter()
        .chain(tools)
        .filter(|tool| !found(tool))
        .copied()
        .collect();
    if !missing.is_empty() {
        return Some(format!("not installed: {}", missing.join(", ")));
    }
    let made = run(&mut isolated(SETUP), None, Duration::from_secs(30));
    made.err()
        .map(|why| format!("no namespaces here: {}", why.replace('\n', " ")))
}
