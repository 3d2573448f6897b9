//! What goes over the wire, without a client library in between.

use http::Request;

use crate::support::TestCluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_answers() {
    let cluster = TestCluster::start().await;
    let response = cluster.send("admin", Request::get("/api/v1/namespaces").body(String::new()).unwrap()).await;
    assert_eq!(response.status(), 200, "{}", response.body());
}
