//! The cluster as it stood at one version. Every question asked is a reason to be called again.

use crate::bindings::host::pilotis::cluster::{metrics, view};
#[cfg(feature = "test")]
use crate::bindings::host::pilotis::core::types;
use crate::bindings::host::pilotis::core::{clock, random};
use crate::columns::{Columns, Row};
use crate::fields::Fields;
use crate::{Error, Instant, ObjectKey, Result};

pub use metrics::Metric;
pub use view::{Scaling, Served};

/// Which objects. Begin with [`all`] or [`within`] and narrow.
pub type Selection = view::Selection;

/// Objects of every namespace.
pub fn all() -> Selection {
    within("")
}

/// Objects of one namespace.
pub fn within(namespace: &str) -> Selection {
    Selection {
        namespace: namespace.to_owned(),
        labels: String::new(),
        equals: Vec::new(),
    }
}

impl Selection {
    /// A selector as text: `app=web,tier in (a,b)`.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = selector.into();
        self
    }

    /// The value at `path` (or one of them, where it has `[*]`) reads as `text`. The first one is looked up in an index.
    #[must_use]
    pub fn equals(mut self, path: &str, text: &str) -> Self {
        self.equals.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Controlled by the object of this uid.
    #[must_use]
    pub fn controlled_by(self, uid: &str) -> Self {
        self.equals(".metadata.ownerReferences[controller=true].uid", uid)
    }
}

/// What a decision sees. The host's while it runs as a plugin, a test's otherwise.
pub struct View {
    source: Source,
}

enum Source {
    Host,
    #[cfg(feature = "test")]
    Recorded(std::sync::Arc<::view::RecordedView>, std::cell::Cell<u64>),
}

/// Rows as they came, for reading without making a value of each.
pub struct Packed(Vec<u8>);

impl Packed {
    /// # Errors
    /// When host and SDK do not speak the same layout.
    pub fn columns(&self) -> Result<Columns<'_>> {
        Ok(Columns::parse(&self.0)?)
    }

    /// # Errors
    /// When a field is not of the type its member has.
    pub fn rows<T: Fields>(&self) -> Result<Vec<T>> {
        self.columns()?.iter().map(read).collect()
    }
}

/// What happened since a cursor.
pub struct Changes<T> {
    pub cursor: u64,
    /// `rows` is everything there is; what is not in it is gone.
    pub complete: bool,
    pub rows: Vec<(Identity, T)>,
    pub gone: Vec<Identity>,
}

/// The first three columns of every delta.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// One row of a tally.
pub struct Tallied<'a> {
    row: Row<'a>,
    by: usize,
}

impl<'a> Tallied<'a> {
    /// The value of the `n`th path grouped by.
    pub fn value(&self, n: usize) -> crate::columns::Cell<'a> {
        self.row.cell(n)
    }

    pub fn count(&self) -> i64 {
        self.row.i64(self.by).unwrap_or_default()
    }

    /// The `n`th sum.
    pub fn sum(&self, n: usize) -> i64 {
        self.row.i64(self.by + 1 + n).unwrap_or_default()
    }
}

fn read<T: Fields>(row: Row<'_>) -> Result<T> {
    T::read(row).map_err(Error::internal)
}

impl View {
    /// The host's. Made by the macros, once a call.
    #[doc(hidden)]
    pub fn of_host() -> Self {
        Self { source: Source::Host }
    }

    #[cfg(feature = "test")]
    pub(crate) fn recorded(view: std::sync::Arc<::view::RecordedView>) -> Self {
        Self {
            source: Source::Recorded(view, std::cell::Cell::new(0)),
        }
    }

    /// One object's fields; `None` if there is no such object. `kind` as in `apps/v1/ReplicaSet`.
    ///
    /// # Errors
    /// `forbidden` beyond the plugin's grants, `not-found` for a kind that is not served.
    pub fn get<T: Fields>(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<T>> {
        let packed = self.get_packed(&ObjectKey::new(kind, namespace, name), T::PATHS)?;
        packed.columns()?.iter().next().map(read).transpose()
    }

    /// # Errors
    /// As [`View::get`].
    pub fn get_packed(&self, key: &ObjectKey, wanted: &str) -> Result<Packed> {
        Ok(Packed(match &self.source {
            Source::Host => view::get(key, wanted)?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => {
                test::bytes(view.get(&test::gvk(&key.kind)?, &key.namespace, &key.name, wanted))?
            }
        }))
    }

    /// The first `limit` (0: all) in `order`; the grammar of an order stands in `wit/cluster`.
    ///
    /// # Errors
    /// As [`View::get`], and `bad-request` for a selection or order that cannot be read.
    pub fn find<T: Fields>(&self, kind: &str, which: &Selection, order: &str, limit: u32) -> Result<Vec<T>> {
        self.find_packed(kind, which, T::PATHS, order, limit)?.rows()
    }

    /// # Errors
    /// As [`View::find`].
    pub fn find_packed(&self, kind: &str, which: &Selection, wanted: &str, order: &str, limit: u32) -> Result<Packed> {
        Ok(Packed(match &self.source {
            Source::Host => view::find(kind, which, wanted, order, limit)?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => {
                test::bytes(view.find(&test::gvk(kind)?, &test::selection(which), wanted, order, limit))?
            }
        }))
    }

    /// How many there are by the values of the paths in `by`, and the sums of those in `sums`. Costs the number of rows,
    /// whatever the number of objects.
    ///
    /// # Errors
    /// As [`View::find`].
    pub fn tally(&self, kind: &str, which: &Selection, by: &str, sums: &str) -> Result<Tally> {
        let packed = match &self.source {
            Source::Host => view::tally(kind, which, by, sums)?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => test::bytes(view.tally(&test::gvk(kind)?, &test::selection(which), by, sums))?,
        };
        Ok(Tally {
            packed: Packed(packed),
            by: by.split(' ').filter(|path| !path.is_empty()).count(),
        })
    }

    /// The combinations of values of the wanted fields that occur, each once. One more object of a combination that is
    /// there already is no reason to run again.
    ///
    /// # Errors
    /// As [`View::find`].
    pub fn distinct<T: Fields>(&self, kind: &str, which: &Selection) -> Result<Vec<T>> {
        let packed = Packed(match &self.source {
            Source::Host => view::distinct(kind, which, T::PATHS)?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => {
                test::bytes(view.distinct(&test::gvk(kind)?, &test::selection(which), T::PATHS))?
            }
        });
        packed.columns()?.iter().map(read).collect()
    }

    /// What came, changed in a wanted field, or went since `cursor`. Keep the answer's cursor in the memo.
    ///
    /// # Errors
    /// As [`View::find`].
    pub fn changes<T: Fields>(&self, kind: &str, which: &Selection, cursor: u64) -> Result<Changes<T>> {
        let (cursor, complete, rows, gone) = match &self.source {
            Source::Host => {
                let delta = view::changes(kind, which, T::PATHS, cursor)?;
                (delta.cursor, delta.complete, delta.rows, delta.gone)
            }
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => {
                let delta = view.changes(&test::gvk(kind)?, &test::selection(which), T::PATHS, cursor);
                let delta = delta.map_err(test::refused)?;
                (delta.cursor, delta.complete, delta.rows.to_vec(), delta.gone.to_vec())
            }
        };
        let identity = |row: Row<'_>| Identity {
            namespace: row.str(0).to_owned(),
            name: row.str(1).to_owned(),
            uid: row.str(2).to_owned(),
        };
        let rows = Columns::parse(&rows)?
            .iter()
            .map(|row| Ok((identity(row), read(row.skip(3))?)));
        Ok(Changes {
            cursor,
            complete,
            rows: rows.collect::<Result<_>>()?,
            gone: Columns::parse(&gone)?.iter().map(identity).collect(),
        })
    }

    /// Past the view, from the store itself. For deciding from absence; slow, and no reason to be called again.
    ///
    /// # Errors
    /// As [`View::get`], and `unavailable`: an error is never an absence.
    pub fn get_live<T: Fields>(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<T>> {
        let key = ObjectKey::new(kind, namespace, name);
        let packed = match &self.source {
            Source::Host => view::get_live(&key, T::PATHS)?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => {
                let gvk = test::gvk(kind)?;
                test::bytes(test::wait(view.get_live(&gvk, namespace, name, T::PATHS)))?
            }
        };
        Columns::parse(&packed)?.iter().next().map(read).transpose()
    }

    /// The kinds there are, in discovery order.
    ///
    /// # Errors
    /// `unavailable`.
    pub fn kinds(&self) -> Result<Vec<Served>> {
        Ok(match &self.source {
            Source::Host => view::kinds()?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => test::kinds(view)?,
        })
    }

    /// [`View::find`] for any listable kind, limited to paths under `.metadata`.
    ///
    /// # Errors
    /// As [`View::find`].
    pub fn metadata<T: Fields>(&self, kind: &str, which: &Selection, order: &str, limit: u32) -> Result<Vec<T>> {
        let packed = match &self.source {
            Source::Host => view::metadata(kind, which, T::PATHS, order, limit)?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => {
                test::bytes(view.metadata(&test::gvk(kind)?, &test::selection(which), T::PATHS, order, limit))?
            }
        };
        Packed(packed).rows()
    }

    /// The `scale` subresource; `None` if there is no such object.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn scale(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Scaling>> {
        Ok(match &self.source {
            Source::Host => view::scale(&ObjectKey::new(kind, namespace, name))?,
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => test::scale(view, kind, namespace, name)?,
        })
    }

    /// Measurements; the columns are written at [`Metric`].
    ///
    /// # Errors
    /// `unavailable` where there is no metrics API.
    pub fn sample(&self, kind: &str, which: &Selection, metric: &Metric) -> Result<Packed> {
        match &self.source {
            Source::Host => Ok(Packed(metrics::sample(kind, which, metric)?)),
            #[cfg(feature = "test")]
            Source::Recorded(..) => Err(Error::new(types::Reason::Unavailable, "tests have no metrics")),
        }
    }

    /// Has `t` come? While the answer is no, the key is run again at `t`.
    pub fn reached(&self, t: Instant) -> bool {
        match &self.source {
            Source::Host => clock::reached(t.0),
            #[cfg(feature = "test")]
            Source::Recorded(view, _) => view.reached(t.0),
        }
    }

    /// Chance, recorded.
    pub fn random(&self) -> u64 {
        match &self.source {
            Source::Host => random::next(),
            #[cfg(feature = "test")]
            Source::Recorded(_, asked) => {
                asked.set(asked.get() + 1);
                asked.get()
            }
        }
    }
}

/// Counts by value.
pub struct Tally {
    packed: Packed,
    by: usize,
}

impl Tally {
    /// # Errors
    /// When host and SDK do not speak the same layout.
    pub fn rows(&self) -> Result<impl Iterator<Item = Tallied<'_>>> {
        let by = self.by;
        Ok(self.packed.columns()?.iter().map(move |row| Tallied { row, by }))
    }

    /// # Errors
    /// When host and SDK do not speak the same layout.
    pub fn total(&self) -> Result<i64> {
        Ok(self.rows()?.map(|row| row.count()).sum())
    }
}

/// The host's own view, asked natively.
#[cfg(feature = "test")]
mod test {
    use super::*;

    pub(super) fn gvk(kind: &str) -> Result<model::Gvk> {
        model::Gvk::parse(kind)
            .ok_or_else(|| Error::new(types::Reason::BadRequest, format!("{kind:?} is not group/version/Kind")))
    }

    pub(super) fn selection(which: &Selection) -> ::view::Selection {
        ::view::Selection {
            namespace: which.namespace.clone(),
            labels: which.labels.clone(),
            equals: which.equals.clone(),
        }
    }

    pub(super) fn refused(refused: ::view::Refused) -> Error {
        let reason = match refused.reason.replace('-', "").to_lowercase().as_str() {
            "notfound" => types::Reason::NotFound,
            "forbidden" => types::Reason::Forbidden,
            "badrequest" => types::Reason::BadRequest,
            "timeout" => types::Reason::Timeout,
            "unavailable" => types::Reason::Unavailable,
            _ => types::Reason::Internal,
        };
        Error::new(reason, refused.message)
    }

    pub(super) fn bytes(answer: ::view::Answer) -> Result<Vec<u8>> {
        answer.map(|bytes| bytes.to_vec()).map_err(refused)
    }

    pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
    }

    pub(super) fn kinds(view: &::view::RecordedView) -> Result<Vec<Served>> {
        let served = view.kinds().map_err(refused)?.into_iter().map(|kind| Served {
            kind: kind.kind,
            resource: kind.resource,
            namespaced: kind.namespaced,
            listable: kind.listable,
            deletable: kind.deletable,
        });
        Ok(served.collect())
    }

    pub(super) fn scale(
        view: &::view::RecordedView,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Scaling>> {
        let scaling = view.scale(&gvk(kind)?, namespace, name).map_err(refused)?;
        Ok(scaling.map(|scaling| Scaling {
            uid: scaling.uid,
            version: scaling.version,
            spec_replicas: scaling.spec_replicas,
            status_replicas: scaling.status_replicas,
            selector: scaling.selector,
        }))
    }
}
