//! What a call may ask of the cluster: the far side of `pilotis:cluster/view`.

use async_trait::async_trait;
use model::Failure;

pub use crate::bindings::pilotis::cluster::metrics::Metric;
pub use crate::bindings::pilotis::cluster::view::{Delta, Scaling, Selection, Served};
pub use crate::bindings::pilotis::core::types::ObjectKey;

/// One call's view of the cluster, standing still at one version and writing down what it is asked.
///
/// Answers are packed columns, ready to be copied into the guest. A `Failure` crosses as `pilotis:core/types.failure`; it
/// is part of the recording like any answer. Implementations check the plugin's grants.
#[async_trait]
pub trait Reads: Send + 'static {
    fn get(&mut self, key: &ObjectKey, wanted: &str) -> Result<Vec<u8>, Failure>;

    fn find(&mut self, of: &str, which: &Selection, wanted: &str, order: &str, limit: u32) -> Result<Vec<u8>, Failure>;

    fn tally(&mut self, of: &str, which: &Selection, by: &str, sums: &str) -> Result<Vec<u8>, Failure>;

    fn changes(&mut self, of: &str, which: &Selection, wanted: &str, cursor: u64) -> Result<Delta, Failure>;

    fn kinds(&mut self) -> Result<Vec<Served>, Failure>;

    fn metadata(
        &mut self,
        of: &str,
        which: &Selection,
        wanted: &str,
        order: &str,
        limit: u32,
    ) -> Result<Vec<u8>, Failure>;

    fn scale(&mut self, key: &ObjectKey) -> Result<Option<Scaling>, Failure>;

    /// Has this time (milliseconds since 1970) come?
    fn reached(&mut self, instant: i64) -> bool;

    fn random(&mut self) -> u64;

    /// From the store itself.
    async fn get_live(&mut self, key: &ObjectKey, wanted: &str) -> Result<Vec<u8>, Failure>;

    async fn sample(&mut self, of: &str, which: &Selection, metric: &Metric) -> Result<Vec<u8>, Failure>;
}

/// For worlds that do not read: every question is refused, no time has come, and chance always falls the same way.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReads;

fn refused() -> Failure {
    Failure::BadRequest("this call may not read the cluster: only reconcile, pre-bind and context rules may".into())
}

#[async_trait]
impl Reads for NoReads {
    fn get(&mut self, _: &ObjectKey, _: &str) -> Result<Vec<u8>, Failure> {
        Err(refused())
    }

    fn find(&mut self, _: &str, _: &Selection, _: &str, _: &str, _: u32) -> Result<Vec<u8>, Failure> {
        Err(refused())
    }

    fn tally(&mut self, _: &str, _: &Selection, _: &str, _: &str) -> Result<Vec<u8>, Failure> {
        Err(refused())
    }

    fn changes(&mut self, _: &str, _: &Selection, _: &str, _: u64) -> Result<Delta, Failure> {
        Err(refused())
    }

    fn kinds(&mut self) -> Result<Vec<Served>, Failure> {
        Err(refused())
    }

    fn metadata(&mut self, _: &str, _: &Selection, _: &str, _: &str, _: u32) -> Result<Vec<u8>, Failure> {
        Err(refused())
    }

    fn scale(&mut self, _: &ObjectKey) -> Result<Option<Scaling>, Failure> {
        Err(refused())
    }

    fn reached(&mut self, _: i64) -> bool {
        false
    }

    fn random(&mut self) -> u64 {
        0
    }

    async fn get_live(&mut self, _: &ObjectKey, _: &str) -> Result<Vec<u8>, Failure> {
        Err(refused())
    }

    async fn sample(&mut self, _: &str, _: &Selection, _: &Metric) -> Result<Vec<u8>, Failure> {
        Err(refused())
    }
}
