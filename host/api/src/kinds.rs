//! The kinds served now, indexed by what a URL says, with the discovery documents made of them.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use client::Cluster;
use model::{Gvr, Kind};

use crate::computed;
use crate::discovery::Documents;

/// One state of the served kinds. Made anew when a CRD comes or goes; requests hold the one they began with.
pub(crate) struct Served {
    /// What the cluster said; compared by address to tell whether this is still true.
    said: Arc<Vec<Arc<Kind>>>,
    /// Those of the cluster, then those that `api` answers itself.
    pub(crate) kinds: Vec<Arc<Kind>>,
    by_gvr: HashMap<Gvr, Arc<Kind>>,
    pub(crate) documents: Documents,
}

impl Served {
    fn new(said: Arc<Vec<Arc<Kind>>>) -> Self {
        let mut kinds: Vec<Arc<Kind>> = said.iter().cloned().collect();
        let mut by_gvr: HashMap<Gvr, Arc<Kind>> = kinds.iter().map(|kind| (kind.gvr(), kind.clone())).collect();
        // Kubernetes lists the groups of reviews here.
        let mut at = kinds
            .iter()
            .position(|kind| kind.gvk.group == "autoscaling")
            .unwrap_or(kinds.len());
        for (computed, kind) in computed::kinds() {
            by_gvr.entry(kind.gvr()).or_insert_with(|| {
                if computed.comes_last() {
                    kinds.push(kind.clone());
                } else {
                    kinds.insert(at, kind.clone());
                    at += 1;
                }
                kind
            });
        }
        let documents = Documents::of(&kinds);
        Self {
            said,
            kinds,
            by_gvr,
            documents,
        }
    }

    pub(crate) fn get(&self, gvr: &Gvr) -> Option<&Arc<Kind>> {
        self.by_gvr.get(gvr)
    }
}

/// Holds the newest [`Served`].
#[derive(Default)]
pub(crate) struct Index(ArcSwapOption<Served>);

impl Index {
    pub(crate) fn now(&self, cluster: &dyn Cluster) -> Arc<Served> {
        let said = cluster.kinds();
        if let Some(served) = &*self.0.load()
            && Arc::ptr_eq(&served.said, &said)
        {
            return served.clone();
        }
        let served = Arc::new(Served::new(said));
        self.0.store(Some(served.clone()));
        served
    }
}
