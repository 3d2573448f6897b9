//! The door alone, for load: registry, roles and TLS on a memory store, without plugins. Prints a kubeconfig's path.
//!
//! `BENCH_ONLY=1 cargo run --release -p harness --example api -- KUBECONFIG` is a load to put on it.

#[path = "../tests/it/support.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod support;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let cluster = support::TestCluster::start_with(|config| config.in_flight = (4000, 2000)).await;
    println!("{}", cluster.config_of("admin").display());
    tokio::signal::ctrl_c().await
}
