//! A session of every kubectl on this machine.

use crate::support::{TestCluster, kubectl, kubectls};

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_gets() {
    let cluster = TestCluster::start().await;
    for (version, program) in kubectls() {
        let ran = kubectl(&program, &cluster.config_of("admin"), "", &["get", "configmaps", "-A"]).await;
        assert!(ran.ok, "{version}: {}\n{}", ran.out, ran.err);
        println!("{}", ran.out);
    }
}
