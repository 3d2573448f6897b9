//! `spec.config.weight` of a policy is the host's, whatever else the policy takes: `wit/scheduler/scheduler.wit` promises it.

use harness::TestCluster;
use serde_json::json;

use crate::steps::{loaded, patch, plugin_status};

#[test]
fn an_operator_weighs_the_default_policy() {
    let cluster = TestCluster::fake(1);
    patch(
        &cluster,
        "plugin/scheduler-default",
        &json!({"spec": {"config": {"weight": 2}}}),
    );
    let status = plugin_status(&cluster, "scheduler-default");
    assert_eq!(
        (loaded(&status).0, &status["state"]),
        ("True", &json!("Ready")),
        "{status}"
    );
}
