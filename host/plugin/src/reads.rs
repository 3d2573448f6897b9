//! What a call may ask of the cluster: the far side of `pilotis:cluster/view`.

use std::sync::Arc;

use async_trait::async_trait;
use model::{Failure, Gvk};
use view::RecordedView;

use crate::bindings::pilotis::core::types::{Failure as Refusal, Reason};
use crate::words;

pub use crate::bindings::pilotis::cluster::metrics::Metric;
pub use crate::bindings::pilotis::cluster::view::{Delta, Scaling, Selection, Served};
pub use crate::bindings::pilotis::core::types::ObjectKey;

/// One call's view of the cluster, standing still at one version and writing down what it is asked.
///
/// Answers are packed columns, ready to be copied into the guest. A refusal is an answer too, and recorded like one. Implementations check the plugin's grants.
#[async_trait]
pub trait Reads: Send + 'static {
    fn get(&mut self, key: &ObjectKey, wanted: &str) -> Result<Vec<u8>, Refusal>;

    fn find(&mut self, of: &str, which: &Selection, wanted: &str, order: &str, limit: u32) -> Result<Vec<u8>, Refusal>;

    fn tally(&mut self, of: &str, which: &Selection, by: &str, sums: &str) -> Result<Vec<u8>, Refusal>;

    fn distinct(&mut self, of: &str, which: &Selection, by: &str) -> Result<Vec<u8>, Refusal>;

    fn changes(&mut self, of: &str, which: &Selection, wanted: &str, cursor: u64) -> Result<Delta, Refusal>;

    fn kinds(&mut self) -> Result<Vec<Served>, Refusal>;

    fn metadata(
        &mut self,
        of: &str,
        which: &Selection,
        wanted: &str,
        order: &str,
        limit: u32,
    ) -> Result<Vec<u8>, Refusal>;

    fn scale(&mut self, key: &ObjectKey) -> Result<Option<Scaling>, Refusal>;

    /// Has this time (milliseconds since 1970) come?
    fn reached(&mut self, instant: i64) -> bool;

    fn random(&mut self) -> u64;

    /// From the store itself.
    async fn get_live(&mut self, key: &ObjectKey, wanted: &str) -> Result<Vec<u8>, Refusal>;

    async fn sample(&mut self, of: &str, which: &Selection, metric: &Metric) -> Result<Vec<u8>, Refusal>;
}

/// For worlds that do not read: every question is refused, no time has come, and chance always falls the same way.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReads;

fn refused() -> Refusal {
    let says = "this call may not read the cluster: only reconcile, pre-bind and context rules may";
    Refusal {
        reason: Reason::BadRequest,
        message: says.into(),
    }
}

#[async_trait]
impl Reads for NoReads {
    fn get(&mut self, _: &ObjectKey, _: &str) -> Result<Vec<u8>, Refusal> {
        Err(refused())
    }

    fn find(&mut self, _: &str, _: &Selection, _: &str, _: &str, _: u32) -> Result<Vec<u8>, Refusal> {
        Err(refused())
    }

    fn tally(&mut self, _: &str, _: &Selection, _: &str, _: &str) -> Result<Vec<u8>, Refusal> {
        Err(refused())
    }

    fn distinct(&mut self, _: &str, _: &Selection, _: &str) -> Result<Vec<u8>, Refusal> {
        Err(refused())
    }

    fn changes(&mut self, _: &str, _: &Selection, _: &str, _: u64) -> Result<Delta, Refusal> {
        Err(refused())
    }

    fn kinds(&mut self) -> Result<Vec<Served>, Refusal> {
        Err(refused())
    }

    fn metadata(&mut self, _: &str, _: &Selection, _: &str, _: &str, _: u32) -> Result<Vec<u8>, Refusal> {
        Err(refused())
    }

    fn scale(&mut self, _: &ObjectKey) -> Result<Option<Scaling>, Refusal> {
        Err(refused())
    }

    fn reached(&mut self, _: i64) -> bool {
        false
    }

    fn random(&mut self) -> u64 {
        0
    }

    async fn get_live(&mut self, _: &ObjectKey, _: &str) -> Result<Vec<u8>, Refusal> {
        Err(refused())
    }

    async fn sample(&mut self, _: &str, _: &Selection, _: &Metric) -> Result<Vec<u8>, Refusal> {
        Err(refused())
    }
}

/// The house's own view. Whoever opened it keeps the other `Arc`, to install what was read once the call has ended.
#[async_trait]
impl Reads for Arc<RecordedView> {
    fn get(&mut self, key: &ObjectKey, wanted: &str) -> Result<Vec<u8>, Refusal> {
        bytes(RecordedView::get(
            self,
            &gvk(&key.kind)?,
            &key.namespace,
            &key.name,
            wanted,
        ))
    }

    fn find(&mut self, of: &str, which: &Selection, wanted: &str, order: &str, limit: u32) -> Result<Vec<u8>, Refusal> {
        bytes(RecordedView::find(
            self,
            &gvk(of)?,
            &selection(which),
            wanted,
            order,
            limit,
        ))
    }

    fn tally(&mut self, of: &str, which: &Selection, by: &str, sums: &str) -> Result<Vec<u8>, Refusal> {
        bytes(RecordedView::tally(self, &gvk(of)?, &selection(which), by, sums))
    }

    fn distinct(&mut self, of: &str, which: &Selection, by: &str) -> Result<Vec<u8>, Refusal> {
        bytes(RecordedView::distinct(self, &gvk(of)?, &selection(which), by))
    }

    fn changes(&mut self, of: &str, which: &Selection, wanted: &str, cursor: u64) -> Result<Delta, Refusal> {
        let delta = RecordedView::changes(self, &gvk(of)?, &selection(which), wanted, cursor)?;
        Ok(Delta {
            cursor: delta.cursor,
            complete: delta.complete,
            rows: delta.rows.to_vec(),
            gone: delta.gone.to_vec(),
        })
    }

    fn kinds(&mut self) -> Result<Vec<Served>, Refusal> {
        let served = RecordedView::kinds(self)?.into_iter().map(|kind| Served {
            kind: kind.kind,
            resource: kind.resource,
            namespaced: kind.namespaced,
            listable: kind.listable,
            deletable: kind.deletable,
        });
        Ok(served.collect())
    }

    fn metadata(
        &mut self,
        of: &str,
        which: &Selection,
        wanted: &str,
        order: &str,
        limit: u32,
    ) -> Result<Vec<u8>, Refusal> {
        bytes(RecordedView::metadata(
            self,
            &gvk(of)?,
            &selection(which),
            wanted,
            order,
            limit,
        ))
    }

    fn scale(&mut self, key: &ObjectKey) -> Result<Option<Scaling>, Refusal> {
        let scaling = RecordedView::scale(self, &gvk(&key.kind)?, &key.namespace, &key.name)?;
        Ok(scaling.map(|scaling| Scaling {
            uid: scaling.uid,
            version: scaling.version,
            spec_replicas: scaling.spec_replicas,
            status_replicas: scaling.status_replicas,
            selector: scaling.selector,
        }))
    }

    fn reached(&mut self, instant: i64) -> bool {
        RecordedView::reached(self, instant)
    }

    fn random(&mut self) -> u64 {
        let noted = self.note("random", || Ok(uuid::Uuid::new_v4().as_bytes()[..8].to_vec().into()));
        let bytes = noted.ok().and_then(|bytes| bytes.as_ref().try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    async fn get_live(&mut self, key: &ObjectKey, wanted: &str) -> Result<Vec<u8>, Refusal> {
        bytes(RecordedView::get_live(self, &gvk(&key.kind)?, &key.namespace, &key.name, wanted).await)
    }

    async fn sample(&mut self, of: &str, _: &Selection, _: &Metric) -> Result<Vec<u8>, Refusal> {
        let answer = self.note(&format!("metrics of {of}"), || {
            let says = "this cluster has no metrics API; metrics.k8s.io is not served".to_owned();
            Err(Failure::NoSuchResource { asked: says }.into())
        });
        bytes(answer)
    }
}

fn gvk(kind: &str) -> Result<Gvk, Refusal> {
    let says = || format!("{kind:?} is not a kind; write v1/Pod or apps/v1/ReplicaSet");
    Gvk::parse(kind).ok_or_else(|| Refusal {
        reason: Reason::BadRequest,
        message: says(),
    })
}

fn selection(which: &Selection) -> view::Selection {
    view::Selection {
        namespace: which.namespace.clone(),
        labels: which.labels.clone(),
        equals: which.equals.clone(),
    }
}

fn bytes(answer: view::Answer) -> Result<Vec<u8>, Refusal> {
    Ok(answer?.into())
}

impl From<view::Refused> for Refusal {
    fn from(refused: view::Refused) -> Self {
        Refusal {
            reason: words::reason(&refused.reason),
            message: refused.message,
        }
    }
}
