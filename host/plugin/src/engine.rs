//! The two wasmtime engines and what makes guests deterministic in them.

use model::Failure;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

use crate::capability;
use crate::limits::Limits;
use crate::state::State;
use crate::ticker::Ticker;

/// Which engine a component runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Instances in slots reserved once: made in microseconds, of bounded size. For small guests and short calls.
    Pooled,
    /// Instances of any size, mapped when made and unmapped when dropped. For mirrors and large guests.
    OnDemand,
}

/// Slots of the pool. Address space is reserved for all of them and memory used by none until it is touched.
const POOL_INSTANCES: u32 = 256;
const POOL_MEMORY: usize = 64 << 20;
const POOL_TABLE: usize = 100_000;
/// Guests with a runtime inside (Go, Python, JavaScript) are larger than this as bytes, and are better kept out of it.
const POOL_COMPONENT: usize = 8 << 20;

pub(crate) struct Engines {
    pooled: Tenant,
    on_demand: Tenant,
    pub(crate) ticker: Ticker,
}

/// An engine and all that is linked to it.
pub(crate) struct Tenant {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
}

impl Engines {
    /// # Errors
    /// [`Failure::Internal`] on a machine wasmtime cannot run on.
    pub(crate) fn new() -> Result<Self, Failure> {
        let pooled = Tenant::new(&config(EngineKind::Pooled)).map_err(wasmtime_failure)?;
        let on_demand = Tenant::new(&config(EngineKind::OnDemand)).map_err(wasmtime_failure)?;
        let ticker = Ticker::start(&[&pooled.engine, &on_demand.engine]).map_err(Failure::internal)?;
        Ok(Self {
            pooled,
            on_demand,
            ticker,
        })
    }

    pub(crate) fn get(&self, kind: EngineKind) -> &Tenant {
        match kind {
            EngineKind::Pooled => &self.pooled,
            EngineKind::OnDemand => &self.on_demand,
        }
    }
}

impl EngineKind {
    /// For a component of which nothing is known but its bytes: one that keeps a mirror grows with the cluster.
    pub(crate) fn for_component(component: &[u8]) -> Self {
        if memchr::memmem::find(component, b"pilotis:scheduler/mirror").is_some() {
            EngineKind::OnDemand
        } else {
            Self::for_guest(component.len(), &Limits::controller())
        }
    }

    /// The pool where it fits.
    pub(crate) fn for_guest(component: usize, limits: &Limits) -> Self {
        let small = component <= POOL_COMPONENT && limits.memory <= POOL_MEMORY && limits.table_elements <= POOL_TABLE;
        if small {
            EngineKind::Pooled
        } else {
            EngineKind::OnDemand
        }
    }
}

impl Tenant {
    fn new(config: &Config) -> wasmtime::Result<Self> {
        let engine = Engine::new(config)?;
        let mut linker = Linker::new(&engine);
        capability::add_to_linker(&mut linker)?;
        Ok(Self { engine, linker })
    }
}

/// What compiled code depends on: the same for a build's images and the process that runs them.
pub(crate) fn config(kind: EngineKind) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.epoch_interruption(true);
    // Same bits on every machine (rule 2): one NaN, one meaning of relaxed instructions, no threads.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    config.wasm_features(WasmFeatures::THREADS | WasmFeatures::SHARED_EVERYTHING_THREADS, false);
    config.memory_init_cow(true);
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(1 << 20);
    if kind == EngineKind::Pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(POOL_INSTANCES);
        pool.total_core_instances(POOL_INSTANCES * 8);
        pool.total_memories(POOL_INSTANCES);
        pool.total_tables(POOL_INSTANCES * 4);
        pool.total_stacks(POOL_INSTANCES);
        pool.max_core_instances_per_component(32);
        pool.max_memories_per_component(4);
        pool.max_tables_per_component(16);
        pool.max_memory_size(POOL_MEMORY);
        pool.table_elements(POOL_TABLE);
        // The pages that a finished instance touched are written back to what they were, where the kernel can say which
        // those are (Linux 6.7); only what is beyond this goes back to the machine. Giving every page back costs each call
        // its faults, and all processors an interrupt.
        pool.pagemap_scan(Enabled::Auto);
        pool.linear_memory_keep_resident(1 << 20);
        pool.table_keep_resident(64 << 10);
        pool.max_unused_warm_slots(16);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

pub(crate) fn wasmtime_failure(error: wasmtime::Error) -> Failure {
    Failure::Internal(format!("the WebAssembly engine does not start: {error:#}"))
}
