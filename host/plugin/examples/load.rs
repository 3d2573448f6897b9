//! What it takes to load a component: `cargo run --example load -p plugin [FOLDER OF GUESTS]`. One JSON object a line.
//!
//! Each component of `plugins/`, compiled, and then from the cache of compiled code by a host that never saw it, as at a second
//! start: read, checked against its digest, mapped, linked, an instance made and asked what it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plugin::{Grants, Host, Load, Plugin, PluginName, World};

const CACHED: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::args()
        .nth(1)
        .map_or_else(|| root.join("target/guests"), PathBuf::from);
    let mut names: Vec<String> = std::fs::read_dir(root.join("plugins"))
        .expect("plugins/")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a crate's name")
        })
        .collect();
    names.sort();
    let cache = tempfile::tempdir().expect("a folder");
    let (mut largest, mut compiled) = (Duration::ZERO, Duration::ZERO);
    for name in &names {
        let file = folder.join(format!("{name}.wasm"));
        let component: Arc<[u8]> = std::fs::read(&file)
            .unwrap_or_else(|_| panic!("{}: `cargo xtask guests` builds it", file.display()))
            .into();
        let plugin = Plugin::new(PluginName::new(name));
        let load = Load {
            name: plugin.name().clone(),
            component,
            config: "{}".into(),
            grants: Grants::All,
            limits: None,
            world: World::Any,
            figures: plugin.figures().clone(),
        };
        let first = once(cache.path(), &load).await;
        compiled += first;
        // The best of them: what others do on this machine is not what is measured.
        let mut cached = Duration::MAX;
        for _ in 0..CACHED {
            cached = cached.min(once(cache.path(), &load).await);
        }
        largest = largest.max(cached);
        say(&format!("{name}, compiled"), first);
        say(&format!("{name}, cached"), cached);
    }
    say(&format!("all {} compiled, one after the other", names.len()), compiled);
    say("largest cached load", largest);
}

/// By a host of its own on the same cache.
async fn once(cache: &Path, load: &Load) -> Duration {
    let host = Host::new(cache).expect("a host");
    host.load(load.clone()).await.expect("it loads").load_time()
}

fn say(what: &str, time: Duration) {
    let ms = (time.as_secs_f64() * 1e6).round() / 1e3;
    println!(
        "{}",
        serde_json::json!({"bench": "load", "what": what, "value": ms, "unit": "ms"})
    );
}
