//! The story of hello on containerd, as root: OCI images, the packet filter's Services, exec; and a clean machine afterwards.

use std::process::Command;

use harness::{Containerd, Machine, TestCluster};

use crate::hello::{self, Ground};
use crate::steps::answer;

struct Oci {
    containerd: Containerd,
    cluster: TestCluster,
}

impl Ground for Oci {
    fn cluster(&self) -> &TestCluster {
        &self.cluster
    }

    fn manifest(&self) -> &'static str {
        "hello-busybox.yaml"
    }

    fn images(&self) -> [&'static str; 2] {
        Containerd::IMAGES
    }

    fn tells_of_a_request(&self, line: &str) -> bool {
        line.ends_with("response:200")
    }

    fn containers(&self) -> Vec<String> {
        self.containerd.containers("container")
    }

    fn kill(&self, container: &str) {
        self.containerd.kill(container);
    }

    fn left(&self) -> Vec<String> {
        self.containerd.left()
    }
}

#[test]
fn hello_on_containerd() {
    let tools = [&Containerd::TOOLS[..], &["nft"]].concat();
    Machine::of_its_own("containerd::hello_on_containerd", &tools, |machine| {
        let containerd = Containerd::start(machine);
        let cluster = TestCluster::on(&containerd);
        let oci = Oci { containerd, cluster };
        hello::story(&oci, || {
            assert!(tables().contains("pilotis-proxy"), "{}", tables());
            commands_run_in_a_container(&oci.cluster);
            // The manifest asks for this port of every node.
            let by_node = format!("{}:30080", Machine::ADDRESS);
            assert!(answer(&by_node).body.contains("hello from hello-"));
        });
        oci.cluster.down();
        assert_eq!(tables(), "", "rules are left in the packet filter");
        assert_eq!(oci.left(), [""; 0]);
        assert!(oci.cluster.processes().is_empty(), "{:?}", oci.cluster.processes());
    });
}

fn tables() -> String {
    let output = Command::new("nft").args(["list", "tables"]).output().expect("nft runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn commands_run_in_a_container(cluster: &TestCluster) {
    let exec = |script: &str| cluster.try_kubectl(&["exec", "deployment/hello", "--", "sh", "-c", script]);
    let page = exec("cat /www/index.html").unwrap_or_else(|why| panic!("{why}"));
    assert!(page.starts_with("hello from hello-"), "{page}");
    let why = exec("echo to stdout; echo to stderr >&2; exit 3").expect_err("it fails");
    for word in ["to stdout", "to stderr", "exit code 3"] {
        assert!(why.contains(word), "{why}");
    }
}
