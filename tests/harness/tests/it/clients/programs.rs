//! Programs on client libraries, in `tests/clients/NAME`: what their users rely on, with containers to speak with.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Containerd, Machine, TestCluster, root};

use super::{got, material, skipped, steps_of};

/// For one program; each of its steps has a limit of its own.
const LIMIT: Duration = Duration::from_secs(300);

struct Program {
    /// As in `target/clients` and `tests/clients`.
    name: &'static str,
    /// The file that says which version of the library it is, and what stands there before it.
    version: (&'static str, &'static str),
    /// Given the folder in `target/clients`.
    command: fn(&Path) -> Command,
}

/// They share a cluster; each has a namespace of its own, named as itself.
const PROGRAMS: [Program; 4] = [
    Program {
        name: "kube-rs",
        version: ("tests/clients/kube-rs/Cargo.lock", "name = \"kube\"\nversion = \""),
        command: |folder| Command::new(folder.join("client-kube-rs")),
    },
    Program {
        name: "controller-runtime",
        version: (
            "tests/clients/controller-runtime/go.mod",
            "sigs.k8s.io/controller-runtime v",
        ),
        command: |folder| Command::new(folder.join("controller-runtime")),
    },
    Program {
        name: "python",
        version: ("tests/clients/python/requirements.txt", "\nkubernetes=="),
        command: |folder| {
            let mut python = Command::new(folder.join("bin/python"));
            // Nothing is written beside the sources, by the programs that it starts neither.
            python.env("PYTHONDONTWRITEBYTECODE", "1");
            python.arg(material("python").join("main.py"));
            python
        },
    },
    Program {
        name: "javascript",
        version: (
            "tests/clients/javascript/package.json",
            "\"@kubernetes/client-node\": \"",
        ),
        command: |folder| {
            let mut node = Command::new("node");
            node.arg(folder.join("main.mjs"));
            node
        },
    },
];

#[test]
fn programs_on_containers() {
    Machine::of_its_own(
        "clients::programs::programs_on_containers",
        &Containerd::TOOLS,
        |machine| {
            let containerd = Containerd::start(machine);
            let cluster = TestCluster::on(&containerd);
            // One program's failure must not hide what the next has to say.
            let failed = PROGRAMS.map(|program| catch_unwind(AssertUnwindSafe(|| run(&cluster, &program))).is_err());
            assert!(!failed.contains(&true), "a program failed, see above");
        },
    );
}

fn run(cluster: &TestCluster, program: &Program) {
    let name = program.name;
    let folder = match got(name) {
        Ok(folder) => folder,
        Err(why) => return skipped(name, &why),
    };
    cluster.kubectl(&["create", "namespace", name]);
    let mut command = (program.command)(&folder);
    command
        .env("IMAGE", Containerd::IMAGES[0])
        .env("HOME", cluster.scratch(name));
    let steps = steps_of(cluster, name, &mut command, LIMIT);
    println!("client {name} {}: {steps} steps", version(program.version));
}

/// What stands in a file after the marker.
fn version((file, marker): (&str, &str)) -> String {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (_, rest) = text
        .split_once(marker)
        .unwrap_or_else(|| panic!("{file} does not say {marker:?}"));
    rest.split(['"', '\n']).next().unwrap_or_default().to_owned()
}
