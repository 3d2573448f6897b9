//! containerd and runc on a test's own machine, with a network for pods and an image made of busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::eventually;
use crate::machine::Machine;
use crate::run::run;

/// For one call of a tool.
const TOOL: Duration = Duration::from_secs(60);

/// Runs until dropped. What it ran then ends with the machine.
pub struct Containerd {
    dir: PathBuf,
    process: Child,
}

impl Containerd {
    /// What [`Machine::of_its_own`] must find for it.
    pub const TOOLS: [&str; 7] = [
        "containerd",
        "ctr",
        "runc",
        "umoci",
        "tar",
        "/bin/busybox",
        "/usr/lib/cni/bridge",
    ];
    /// One static busybox that sleeps unless told otherwise, under two tags.
    pub const IMAGES: [&str; 2] = ["pilotis.test/busybox:1", "pilotis.test/busybox:2"];
    /// What pods get addresses of.
    pub const POD_CIDR: &str = "10.90.0.0/24";

    pub fn start(machine: &Machine) -> Self {
        let dir = machine.dir().join("containerd");
        fs::create_dir_all(dir.join("cni")).expect("a folder");
        let network = json!({
            "cniVersion": "0.4.0", "name": "pilotis-test",
            "plugins": [{
                "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false,
                "ipam": {
                    "type": "host-local", "dataDir": dir.join("ipam"),
                    "ranges": [[{"subnet": Self::POD_CIDR}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        fs::write(dir.join("cni/10-test.conflist"), network.to_string()).expect("written");
        fs::write(dir.join("config.toml"), config(&dir)).expect("written");
        let log = fs::File::create(dir.join("containerd.log")).expect("a file");
        let process = Command::new("containerd")
            .arg("--config")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let held = Self { dir, process };
        eventually("containerd answers", TOOL, || {
            held.ctr(&["version"])
                .map_err(|why| format!("{why}{}", held.log_tail()))
        });
        held.import_busybox();
        held
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// `ctr ARGS`, on what Kubernetes runs.
    pub fn ctr(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"]);
        run(command.args(args), None, TOOL)
    }

    /// Ids of the containers there are, of a `kind`: `container`, or `sandbox` for those that hold a pod's network.
    pub fn containers(&self, kind: &str) -> Vec<String> {
        let filter = format!("labels.\"io.cri-containerd.kind\"=={kind}");
        let ids = self
            .ctr(&["containers", "list", "-q", &filter])
            .unwrap_or_else(|why| panic!("{why}"));
        ids.lines().map(str::to_owned).collect()
    }

    /// `kill -9` of a container's process, behind everybody's back.
    pub fn kill(&self, container: &str) {
        self.ctr(&["tasks", "kill", "-s", "SIGKILL", container])
            .unwrap_or_else(|why| panic!("{why}"));
    }

    /// What is left on the machine of pods that are gone: containers, processes, mounts, network.
    pub fn left(&self) -> Vec<String> {
        let all = |args: &[&str]| self.ctr(args).unwrap_or_else(|why| panic!("{why}"));
        let ids = all(&["containers", "list", "-q"]) + &all(&["tasks", "list", "-q"]);
        let mut left: Vec<String> = ids.lines().map(|id| format!("container {id}")).collect();
        let words_of = |path: &str, nth: usize| {
            let text = fs::read_to_string(path).expect("Linux");
            let found = text.lines().filter_map(|line| line.split_whitespace().nth(nth));
            found.map(str::to_owned).collect::<Vec<_>>()
        };
        let mounts = words_of("/proc/self/mounts", 1).into_iter();
        left.extend(
            mounts
                .filter(|at| Path::new(at).starts_with(&self.dir))
                .map(|at| format!("mount {at}")),
        );
        let links = words_of("/proc/net/dev", 0).into_iter();
        left.extend(
            links
                .filter(|link| link.starts_with("veth"))
                .map(|link| format!("link {link}")),
        );
        let networks = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        left.extend(networks.map(|network| format!("network namespace {:?}", network.file_name())));
        left
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn import_busybox(&self) {
        let at = |name: &str| self.dir.join(name).to_str().expect("UTF-8").to_owned();
        let (layout, image, bundle) = (at("oci"), at("oci") + ":1", at("bundle"));
        let umoci = |args: &[&str]| must(Command::new("umoci").args(args));
        umoci(&["init", "--layout", &layout]);
        umoci(&["new", "--image", &image]);
        umoci(&["unpack", "--image", &image, &bundle]);
        fill(&Path::new(&bundle).join("rootfs"));
        umoci(&["repack", "--image", &image, &bundle]);
        umoci(&[
            "config",
            "--image",
            &image,
            "--config.entrypoint",
            "/bin/sleep",
            "--config.cmd",
            "2147483647",
            "--config.env",
            "PATH=/bin",
        ]);
        umoci(&["tag", "--image", &image, "2"]);
        let file = at("image.tar");
        must(Command::new("tar").args(["-C", &layout, "-cf", &file, "."]));
        let (repository, _) = Self::IMAGES[0].split_once(':').expect("a tag");
        self.ctr(&[
            "images",
            "import",
            "--snapshotter",
            "native",
            "--base-name",
            repository,
            &file,
        ])
        .unwrap_or_else(|why| panic!("{why}"));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the end of containerd's log\n{}\n----", self.log_tail());
        }
        // Containers that a failed test left: the machine ends their processes, runc their cgroups.
        for id in self.ctr(&["containers", "list", "-q"]).unwrap_or_default().lines() {
            let _ = self.ctr(&["tasks", "delete", "-f", id]);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Also its pause container is our image: there is no registry to pull one from.
fn config(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    format!(
        r#"
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        root = at("root"),
        state = at("state"),
        socket = at("c.sock"),
        opt = at("opt"),
        cni = at("cni"),
        image = Containerd::IMAGES[0],
    )
}

/// One static binary and links to it.
fn fill(root: &Path) {
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    for name in [
        "sh", "sleep", "cat", "echo", "httpd", "ls", "env", "tr", "dd", "id", "hostname", "mkdir", "wget", "tar",
        "head",
    ] {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
}

fn must(command: &mut Command) {
    run(command, None, TOOL).unwrap_or_else(|why| panic!("{why}"));
}
