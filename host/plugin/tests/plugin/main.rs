//! The plugin host with real components: what it loads, what it refuses, what it survives, what it costs.

mod admission_and_policy;
mod faults;
mod loading;
mod objects;
mod replay;
mod swap;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin::reads::{Delta, Metric, ObjectKey, Reads, Scaling, Selection, Served};
use plugin::world::controller::Request;
use plugin::{Controller, Fault, Grants, Host, Limits, Load, Plugin, PluginName, Refusal, Revision, World};

/// A component that `cargo xtask guests` has built.
fn guest(name: &str) -> Arc<[u8]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{name}.wasm"));
    let bytes = std::fs::read(&path);
    bytes
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask guests` builds it", path.display()))
        .into()
}

/// One for all tests: the compiled code of each guest is made once.
fn host() -> Arc<Host> {
    static HOST: std::sync::OnceLock<Arc<Host>> = std::sync::OnceLock::new();
    HOST.get_or_init(|| Host::new(&scratch("aot")).expect("the host starts"))
        .clone()
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn load(name: &str) -> Load {
    Load {
        name: PluginName::new(name),
        component: guest(name),
        config: "{}".into(),
        grants: Grants::All,
        limits: None,
        world: World::Any,
        figures: Arc::default(),
    }
}

/// Loaded, and the only revision of a plugin of that name.
async fn controller(name: &str, limits: Option<Limits>) -> Controller {
    let plugin = Plugin::new(PluginName::new(name));
    let loaded = host()
        .load(Load {
            limits,
            figures: plugin.figures().clone(),
            ..load(name)
        })
        .await;
    plugin.swap(loaded.unwrap_or_else(|fault| panic!("{fault}")));
    Controller::new(plugin)
}

async fn refused(load: Load) -> Fault {
    match host().load(load).await {
        Ok(_) => panic!("this should not have been loaded"),
        Err(fault) => fault,
    }
}

fn request(memo: &[u8]) -> Request {
    let key = ObjectKey {
        kind: "v1/ConfigMap".into(),
        namespace: "default".into(),
        name: "one".into(),
    };
    Request {
        key,
        refused: None,
        memo: memo.to_vec(),
        now: 1_767_225_600_000,
    }
}

/// A cluster that answers `get` with its own question, and everything else with nothing.
struct Echo;

#[async_trait::async_trait]
impl Reads for Echo {
    fn get(&mut self, key: &ObjectKey, wanted: &str) -> Result<Vec<u8>, Refusal> {
        Ok(format!("{}{wanted}", key.name).into_bytes())
    }

    fn find(&mut self, _: &str, _: &Selection, _: &str, _: &str, _: u32) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }

    fn tally(&mut self, _: &str, _: &Selection, _: &str, _: &str) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }

    fn distinct(&mut self, _: &str, _: &Selection, _: &str) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }

    fn changes(&mut self, _: &str, _: &Selection, _: &str, cursor: u64) -> Result<Delta, Refusal> {
        Ok(Delta {
            cursor,
            complete: false,
            rows: Vec::new(),
            gone: Vec::new(),
        })
    }

    fn kinds(&mut self) -> Result<Vec<Served>, Refusal> {
        Ok(Vec::new())
    }

    fn metadata(&mut self, _: &str, _: &Selection, _: &str, _: &str, _: u32) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }

    fn scale(&mut self, _: &ObjectKey) -> Result<Option<Scaling>, Refusal> {
        Ok(None)
    }

    fn reached(&mut self, _: i64) -> bool {
        false
    }

    fn random(&mut self) -> u64 {
        4
    }

    async fn get_live(&mut self, _: &ObjectKey, _: &str) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }

    async fn sample(&mut self, _: &str, _: &Selection, _: &Metric) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }
}

fn digests(revision: &Arc<Revision>) -> String {
    revision.digest().to_string()
}
