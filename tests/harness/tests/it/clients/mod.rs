//! The clients people use, unmodified, in sessions as people have them.
//!
//! `cargo xtask test` gets them into `target/clients` first (`tests/xtask/src/clients.rs`). What is not Rust of a client lies
//! in `tests/clients/CLIENT`. Each says one line of what it did, `client NAME VERSION: …`, or `skipped: …` and why.

mod helm;
mod kubectl;
mod programs;
mod session;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{TestCluster, output, root};

/// A client that needs an API and nothing else. To add one: a file here, a line in [`CLIENTS`].
struct Client {
    /// As in `target/clients` and `tests/clients`.
    name: &'static str,
    /// Given the cluster and the folder in `target/clients`: what it did, after `client `. Panics when it fails.
    session: fn(&TestCluster, PathBuf) -> String,
}

/// They share a cluster, of one node that runs Wasm components; each has a namespace of its own, named as itself.
const CLIENTS: [Client; 1] = [helm::CLIENT];

#[test]
fn clients_work_unmodified() {
    let (there, lacking): (Vec<_>, Vec<_>) = CLIENTS
        .iter()
        .map(|client| (client, got(client.name)))
        .partition(|(_, got)| got.is_ok());
    for (client, why) in lacking {
        skipped(client.name, &why.expect_err("partitioned"));
    }
    if there.is_empty() {
        return;
    }
    let cluster = TestCluster::wasm();
    let mut failed = Vec::new();
    for (client, folder) in there {
        cluster.kubectl(&["create", "namespace", client.name]);
        let folder = folder.expect("partitioned");
        // One client's failure must not hide what the next has to say.
        match catch_unwind(AssertUnwindSafe(|| (client.session)(&cluster, folder))) {
            Ok(did) => println!("client {did}"),
            Err(_) => failed.push(client.name),
        }
    }
    assert!(failed.is_empty(), "failed (see above): {}", failed.join(", "));
}

fn skipped(client: &str, why: &str) {
    println!("skipped: client {client}: {why}");
}

/// A client's folder in `target/clients`. `Err` is why it is not there.
fn got(name: &str) -> Result<PathBuf, String> {
    let place = root().join("target/clients");
    let folder = place.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let why = fs::read_to_string(place.join(format!("{name}.lacks")));
    Err(why.unwrap_or_else(|_| format!("{} is not there: `cargo xtask test api` gets it", folder.display())))
}

/// `tests/clients/NAME`.
fn material(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

/// A program that is a client: it finds `KUBECONFIG`, and `NAMESPACE` to work in, prints `ok WHAT` for each step, and fails
/// if one does. Returns how many there were.
#[track_caller]
fn steps_of(cluster: &TestCluster, namespace: &str, program: &mut Command, limit: Duration) -> usize {
    program
        .env("KUBECONFIG", cluster.dir().join("kubeconfig"))
        .env("NAMESPACE", namespace);
    let output = output(program, None, limit).unwrap_or_else(|why| panic!("{why}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let steps = said.lines().filter(|line| line.starts_with("ok ")).count();
    let also = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && steps > 0,
        "{program:?}: {}\n{said}{also}",
        output.status
    );
    steps
}
