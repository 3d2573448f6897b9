//! kubectl from three years before the cluster to one version after it: the sessions in `tests/clients/kubectl`.
//!
//! Each file there is a session in a namespace of its own. Those in `objects` need no more than an API and nodes; those in
//! `containers` run commands in containers, read logs and forward ports. To hold a few of them, name them:
//! `KUBECTL_VERSIONS=1.27,1.36 KUBECTL_SESSIONS=get,apply`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use harness::{Containerd, Machine, TestCluster};

use super::session::{Minor, Terminal};
use super::{got, material, skipped};

/// Those that are compared with, oldest first.
const VERSIONS: std::ops::RangeInclusive<Minor> = 27..=37;

/// Sessions held at once: most of one is waiting.
const AT_ONCE: usize = 6;

#[test]
fn sessions_on_objects() {
    let versions = versions(true);
    if !versions.is_empty() {
        // A node for each version, to be drained and tainted, and one to go to then.
        let cluster = TestCluster::fake(versions.len() + 1);
        hold(&cluster, "objects", &versions, |nth| format!("pilotis-{nth}"));
    }
}

#[test]
fn sessions_on_containers() {
    let tools = [&Containerd::TOOLS[..], &["nft", "curl"]].concat();
    Machine::of_its_own("clients::kubectl::sessions_on_containers", &tools, |machine| {
        let versions = versions(false);
        let containerd = Containerd::start(machine);
        let cluster = TestCluster::on(&containerd);
        hold(&cluster, "containers", &versions, |_| "pilotis".into());
    });
}

/// The program of each version that is there; if `tell`, says which are not, and why.
fn versions(tell: bool) -> Vec<(Minor, PathBuf)> {
    let mut found = Vec::new();
    for minor in VERSIONS.filter(|minor| chosen("KUBECTL_VERSIONS", &format!("1.{minor}"))) {
        match program(minor) {
            Ok(program) => found.push((minor, program)),
            Err(why) if tell => skipped(&format!("kubectl 1.{minor}"), &why),
            Err(_) => {}
        }
    }
    found
}

/// Old ones lie beside Google's kubectl, which chooses among them; the others are built.
fn program(minor: Minor) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("kubectl"));
    let beside = installed
        .filter_map(|kubectl| fs::canonicalize(kubectl).ok())
        .map(|kubectl| kubectl.with_file_name(format!("kubectl.1.{minor}")));
    if let Some(program) = beside.into_iter().find(|program| program.is_file()) {
        return Ok(program);
    }
    got(&format!("kubectl-1.{minor}")).map(|folder| folder.join("kubectl"))
}

/// Holds every session of the folder with every version.
fn hold(cluster: &TestCluster, folder: &str, versions: &[(Minor, PathBuf)], node: impl Fn(usize) -> String + Sync) {
    let scripts = scripts(&material("kubectl").join(folder));
    let sessions = versions
        .iter()
        .enumerate()
        .flat_map(|version| scripts.iter().map(move |script| (version, script)));
    let left = Mutex::new(sessions);
    let did = Mutex::new((BTreeMap::<Minor, usize>::new(), String::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(((nth, (version, program)), script)) = take(&left) {
                    let taken = session(cluster, *version, program, script, &node(nth));
                    let mut did = did.lock().expect("no panic holds it");
                    match taken {
                        Ok(steps) => *did.0.entry(*version).or_default() += steps,
                        Err(why) => did.1 += &format!("kubectl 1.{version}: {why}\n"),
                    }
                }
            });
        }
    });
    let (steps, wrong) = did.into_inner().expect("no panic holds it");
    assert!(wrong.is_empty(), "{wrong}");
    for (version, steps) in steps {
        println!("client kubectl 1.{version}: {steps} steps on {folder}");
    }
}

fn take<T>(left: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    left.lock().expect("no panic holds it").next()
}

/// Whether a variable of the environment names it, or is not set.
fn chosen(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |names| names.split(',').any(|chosen| chosen == name))
}

fn topic(script: &Path) -> String {
    script.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut scripts: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|of| of == "txt") && chosen("KUBECTL_SESSIONS", &topic(path)));
    scripts.sort();
    scripts
}

/// In a namespace and a home of its own, where `kubectl` is the one of this version.
fn session(cluster: &TestCluster, version: Minor, program: &Path, script: &Path, node: &str) -> Result<usize, String> {
    let namespace = format!("v{version}-{}", topic(script));
    let dir = cluster.scratch(&namespace);
    fs::create_dir_all(dir.join("bin")).map_err(|error| error.to_string())?;
    symlink(program, dir.join("bin/kubectl")).map_err(|error| error.to_string())?;
    for entry in fs::read_dir(script.parent().unwrap_or(script))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.path().extension().is_some_and(|of| of != "txt") {
            fs::copy(entry.path(), dir.join(entry.file_name())).map_err(|error| error.to_string())?;
        }
    }
    fs::copy(cluster.dir().join("kubeconfig"), dir.join("kubeconfig")).map_err(|error| error.to_string())?;
    cluster.try_kubectl(&["create", "namespace", &namespace])?;
    let kubeconfig = dir.join("kubeconfig").display().to_string();
    cluster.try_kubectl(&[
        "--kubeconfig",
        &kubeconfig,
        "config",
        "set-context",
        "--current",
        "--namespace",
        &namespace,
    ])?;
    let path = std::env::var("PATH").unwrap_or_default();
    let env = vec![
        ("PATH", format!("{}:{path}", dir.join("bin").display())),
        ("KUBECONFIG", kubeconfig),
        ("HOME", dir.display().to_string()),
        ("NODE", node.to_owned()),
        ("NS", namespace.clone()),
        ("MINOR", version.to_string()),
    ];
    let taken = Terminal {
        script,
        version,
        dir,
        env,
    }
    .hold();
    // So that the pods of one session do not slow down the next.
    let _ = cluster.try_kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
    taken
}
