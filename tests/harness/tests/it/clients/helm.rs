//! Helm with a chart of ours: the session in `tests/clients/helm/helm.txt`.

use std::path::PathBuf;

use harness::TestCluster;

use super::session::Terminal;
use super::{Client, material};

pub(super) const CLIENT: Client = Client { name: "helm", session };

fn session(cluster: &TestCluster, folder: PathBuf) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let kubeconfig = cluster.dir().join("kubeconfig").display().to_string();
    let own = cluster.scratch("helm-kubeconfig");
    std::fs::copy(kubeconfig, &own).expect("a copy in the temporary folder");
    let own = own.display().to_string();
    cluster.kubectl(&[
        "--kubeconfig",
        &own,
        "config",
        "set-context",
        "--current",
        "--namespace=helm",
    ]);
    let terminal = Terminal {
        script: &material("helm").join("helm.txt"),
        // Which kubectl lies on PATH makes no difference to the steps.
        version: 0,
        dir: material("helm"),
        env: vec![
            ("PATH", format!("{}:{path}", folder.display())),
            ("KUBECONFIG", own),
            ("HOME", cluster.scratch("helm").display().to_string()),
        ],
    };
    let steps = terminal.hold().unwrap_or_else(|why| panic!("{why}"));
    format!("helm {}: {steps} steps", version(&folder))
}

fn version(folder: &std::path::Path) -> String {
    let mut helm = std::process::Command::new(folder.join("helm"));
    let output = helm.args(["version", "--template", "{{.Version}}"]).output();
    String::from_utf8_lossy(&output.expect("it ran before").stdout)
        .trim_start_matches('v')
        .to_owned()
}
