//! Images: components compiled when the binary that holds them is built, so that a first start compiles nothing.
//!
//! An image is a header (what it was compiled of, and for which engine) and the code. One that fits neither the component
//! nor this build's engines is not an error: the component is compiled as any other, and kept in the cache.

use std::collections::HashMap;

use model::Failure;
use wasmtime::Engine;

use crate::Digest;
use crate::cache::identity;
use crate::engine::{self, EngineKind};

const MAGIC: &[u8; 8] = b"pilimg1\n";

/// Compiled code that came with the binary, by the component it was compiled of and the engine it fits.
#[derive(Default)]
pub struct Images(HashMap<(Digest, u64), &'static [u8]>);

impl Images {
    /// Takes what [`Images::compile`] wrote. Files that are none of ours are left out.
    ///
    /// # Safety
    /// The code in `files` will run natively: they must be part of the program (`include_bytes!`), so that whoever could
    /// have altered them could have altered the program too.
    #[allow(
        unsafe_code,
        reason = "a first start takes a second with images, and six without them"
    )]
    pub unsafe fn new(files: &[&'static [u8]]) -> Self {
        Self(files.iter().filter_map(|file| parse(file)).collect())
    }

    pub(crate) fn get(&self, engine: &Engine, digest: Digest) -> Option<&'static [u8]> {
        self.0.get(&(digest, identity(engine))).copied()
    }

    /// The image of a component, for the engine that it is loaded into where nothing else is said of its limits. `None`
    /// if `old` is that already.
    ///
    /// # Errors
    /// [`Failure::Invalid`] if it does not compile; [`Failure::Internal`] on a machine wasmtime cannot run on.
    pub fn compile(component: &[u8], old: Option<&[u8]>) -> Result<Option<Vec<u8>>, Failure> {
        let kind = EngineKind::for_component(component);
        let engine = Engine::new(&engine::config(kind)).map_err(engine::wasmtime_failure)?;
        let header = [
            MAGIC.as_slice(),
            Digest::of(component).bytes(),
            &identity(&engine).to_le_bytes(),
        ]
        .concat();
        if old.is_some_and(|old| old.starts_with(&header)) {
            return Ok(None);
        }
        let code = engine
            .precompile_component(component)
            .map_err(|error| Failure::Internal(format!("it does not compile: {error:#}")))?;
        Ok(Some([header, code].concat()))
    }
}

fn parse(file: &'static [u8]) -> Option<((Digest, u64), &'static [u8])> {
    let (digest, rest) = file.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    let (engine, code) = rest.split_first_chunk::<8>()?;
    Some(((Digest::from(*digest), u64::from_le_bytes(*engine)), code))
}
