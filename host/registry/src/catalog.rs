//! Which kinds are served now: the built-in ones, and one for every version of every established CRD.

use std::sync::Arc;

use ahash::AHashMap;
use model::{Gvr, Kind};

use crate::resource::Resource;
use crate::resources;

/// All kinds at one moment. Replaced as a whole when a CRD comes or goes, so that readers never wait.
pub(crate) struct Catalog {
    /// In discovery order.
    pub(crate) all: Arc<Vec<Arc<Resource>>>,
    pub(crate) kinds: Arc<Vec<Arc<Kind>>>,
    by_gvr: AHashMap<Gvr, Arc<Resource>>,
    built_in: usize,
}

impl Catalog {
    pub(crate) fn built_in() -> Self {
        let all: Vec<_> = resources::all().into_iter().map(Arc::new).collect();
        let built_in = all.len();
        Self::of(all, built_in)
    }

    fn of(all: Vec<Arc<Resource>>, built_in: usize) -> Self {
        let kinds = all.iter().map(|r| r.kind.clone()).collect();
        let by_gvr = all.iter().map(|r| (r.kind.gvr(), r.clone())).collect();
        Self {
            all: Arc::new(all),
            kinds: Arc::new(kinds),
            by_gvr,
            built_in,
        }
    }

    /// The built-in kinds and these custom ones.
    pub(crate) fn with_custom(&self, custom: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let all = self.all[..self.built_in].iter().cloned().chain(custom).collect();
        Self::of(all, self.built_in)
    }

    pub(crate) fn find(&self, gvr: &Gvr) -> Option<&Arc<Resource>> {
        self.by_gvr.get(gvr)
    }

    pub(crate) fn is_built_in(&self, group: &str, plural: &str) -> bool {
        let is = |r: &Arc<Resource>| r.kind.gvk.group == group && r.kind.plural == plural;
        self.all[..self.built_in].iter().any(is)
    }
}
