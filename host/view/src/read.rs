//! What one call sees: every kind at one version, every answer noted.

use std::sync::Arc;

use bytes::Bytes;
use client::{ReadVersion, Target};
use hashbrown::HashMap;
use model::{Failure, Gvk, Kind, Object};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::answer::{self, Asked};
use crate::changes::Delta;
use crate::question::{Ask, What};
use crate::record::{Answer, Read, Recording, Refused};
use crate::selection::Selection;
use crate::slot::{Frozen, Slot};
use crate::{Grants, View};

/// The cluster as it stood when this was opened: equal questions get equal answers, and each becomes a reason to run again
/// once the view is installed ([`View::install`]). A kind that nobody had read before is not there yet: see
/// [`RecordedView::unfilled`].
pub struct RecordedView {
    source: Source,
    grants: Arc<dyn Grants>,
    now: i64,
    pins: Mutex<Pins>,
    noted: Mutex<Noted>,
    unfilled: Mutex<Vec<Gvk>>,
}

/// By the slots' numbers: some dozens, looked through faster than hashed.
type Pins = SmallVec<[(usize, Arc<Frozen>); 32]>;

enum Source {
    View(Arc<View>),
    /// The reads that are left, in order.
    Replay(Mutex<std::collections::VecDeque<(Read, Answer)>>),
}

#[derive(Default)]
struct Noted {
    reads: Vec<(Read, Answer)>,
    /// Where each question stands in `reads`, so that asking twice costs and records nothing.
    at: HashMap<Read, usize, ahash::RandomState>,
}

/// One served kind, as `kinds()` tells it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Served {
    pub kind: String,
    /// With the group: `deployments.apps`.
    pub resource: String,
    pub namespaced: bool,
    pub listable: bool,
    pub deletable: bool,
}

/// The `scale` subresource of an object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Scaling {
    pub uid: String,
    pub version: String,
    pub spec_replicas: i32,
    pub status_replicas: i32,
    /// As text; empty if the kind has none.
    pub selector: String,
}

impl RecordedView {
    pub(crate) fn open(view: Arc<View>, grants: Arc<dyn Grants>, now: i64) -> Self {
        let slots = view.slots.load_full();
        let synced = slots.values().filter(|slot| slot.synced());
        let pins = synced.map(|slot| (slot.number, slot.frozen())).collect();
        Self {
            source: Source::View(view),
            grants,
            now,
            pins: Mutex::new(pins),
            noted: Mutex::default(),
            unfilled: Mutex::default(),
        }
    }

    /// Answers from a recording, and only the questions that were asked in it, in its order.
    pub fn replay(recording: Recording) -> Self {
        let source = Source::Replay(Mutex::new(recording.reads.into()));
        let grants = Arc::new(crate::AllGranted);
        Self {
            source,
            grants,
            now: recording.now,
            pins: Mutex::default(),
            noted: Mutex::default(),
            unfilled: Mutex::default(),
        }
    }

    /// The time of the call, in milliseconds since 1970. It stands still too.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// One object's fields: packed columns with no row, or one. The path `.` is the whole object.
    pub fn get(&self, kind: &Gvk, namespace: &str, name: &str, fields: &str) -> Answer {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let read = Read::Get {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            fields: fields.into(),
        };
        self.noting(read, |view| {
            let (_, pinned) = self.pinned(view, kind, &namespace)?;
            let wanted = view.wanted(fields)?;
            Ok(answer::get(pinned.object(&namespace, &name), &wanted))
        })
    }

    /// The first `limit` (0: all) in `order` (empty: by namespace and name).
    pub fn find(&self, kind: &Gvk, which: &Selection, fields: &str, order: &str, limit: u32) -> Answer {
        let what = What::Find {
            fields: fields.into(),
            order: order.into(),
        };
        self.ask(kind, which, what, Asked::First(limit))
    }

    /// A row for each combination of values of `by`: those, the number of objects, the sum of each of `sums`.
    pub fn tally(&self, kind: &Gvk, which: &Selection, by: &str, sums: &str) -> Answer {
        let what = What::Tally {
            by: by.into(),
            sums: sums.into(),
        };
        self.ask(kind, which, what, Asked::Whole)
    }

    /// The combinations of values of `by`, each once: one more object of a combination that is there changes nothing.
    pub fn distinct(&self, kind: &Gvk, which: &Selection, by: &str) -> Answer {
        self.ask(kind, which, What::Distinct { by: by.into() }, Asked::Whole)
    }

    /// What came, changed in a wanted field, or went since `cursor` (0: everything).
    pub fn changes(&self, kind: &Gvk, which: &Selection, fields: &str, cursor: u64) -> Result<Delta, Refused> {
        let what = What::Changes { fields: fields.into() };
        let packed = self.ask(kind, which, what, Asked::Since(cursor))?;
        Delta::unpack(packed).ok_or_else(|| Failure::Internal("the recorded delta is cut off".into()).into())
    }

    /// `find` limited to paths under `.metadata`, for any listable kind.
    pub fn metadata(&self, kind: &Gvk, which: &Selection, fields: &str, order: &str, limit: u32) -> Answer {
        if let Some(path) = crate::fields::words(fields)
            .into_iter()
            .find(|path| !path.starts_with(".metadata"))
        {
            let says = format!("{path} is not under .metadata; read it with find, which needs the kind to be granted");
            return Err(Failure::BadRequest(says).into());
        }
        self.find(kind, which, fields, order, limit)
    }

    /// Past the view, linearizable. Recorded, but no reason to run again.
    pub async fn get_live(&self, kind: &Gvk, namespace: &str, name: &str, fields: &str) -> Answer {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let read = Read::Live {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            fields: fields.into(),
        };
        let view = match self.first_answer(&read) {
            Ok(answer) => return answer,
            Err(view) => view,
        };
        let look = async {
            let served = view.served(kind)?;
            self.grants.may_read(&served, &namespace)?;
            let wanted = view.wanted(fields)?;
            let target = Target::new(served.gvr(), &namespace, &name);
            match view.cluster.get(&view.caller, &target, ReadVersion::Latest).await {
                Ok(object) => Ok(answer::get(Some(&object), &wanted)),
                Err(Failure::NotFound(_)) => Ok(answer::get(None, &wanted)),
                Err(failure) => Err(failure),
            }
        };
        let answer: Result<Bytes, Failure> = look.await;
        self.keep(read, answer.map_err(Refused::from))
    }

    /// The kinds there are, in discovery order.
    pub fn kinds(&self) -> Result<Vec<Served>, Refused> {
        let bytes = self.noting(Read::Kinds, |view| Ok(kinds_answer(&view.cluster.kinds())))?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::internal(error).into())
    }

    /// `None` if there is no such object.
    pub fn scale(&self, kind: &Gvk, namespace: &str, name: &str) -> Result<Option<Scaling>, Refused> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let read = Read::Scale {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let bytes = self.noting(read, |view| {
            let (_, pinned) = self.pinned(view, kind, &namespace)?;
            let served = view.served(kind)?;
            if served.subresource("scale").is_none() {
                return Err(Failure::NoSuchResource {
                    asked: format!("{}/scale", served.gvr()),
                });
            }
            let scaling = pinned.object(&namespace, &name).map(|object| scaling(object));
            serde_json::to_vec(&scaling).map(Bytes::from).map_err(Failure::internal)
        })?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::internal(error).into())
    }

    /// Has `t` come? While it has not, it is a reason to run again, then.
    pub fn reached(&self, t: i64) -> bool {
        let is = t <= self.now;
        let read = Read::Reached(t);
        match &self.source {
            Source::View(_) => {
                self.noted.lock().add(read, Ok(Bytes::copy_from_slice(&[is.into()])));
                is
            }
            Source::Replay(left) => {
                matches!(next(left, &read), Ok(bytes) if bytes.first() == Some(&1))
            }
        }
    }

    /// An answer that is no read of the view (chance, a metric): made by `answer`, or taken from the recording. Asked
    /// again, it is made again.
    pub fn note(&self, label: &str, answer: impl FnOnce() -> Answer) -> Answer {
        let read = Read::Noted(label.into());
        match &self.source {
            Source::View(_) => {
                let answer = answer();
                self.noted.lock().reads.push((read, answer.clone()));
                answer
            }
            Source::Replay(left) => next(left, &read),
        }
    }

    /// The object as this view shows it, without noting a read: for the host's own checks on behalf of the call
    /// (`fields-as-read`). `None` also if the kind was not read.
    pub fn peek(&self, kind: &Gvk, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let Source::View(view) = &self.source else {
            return None;
        };
        let slot = view.slots.load().get(kind).cloned()?;
        self.pin(&slot)?.object(namespace, name).cloned()
    }

    /// The call as it can be run again. `request` in the caller's own form.
    pub fn recording(&self, request: Bytes) -> Recording {
        Recording {
            request,
            now: self.now,
            reads: self.noted.lock().reads.clone(),
        }
    }

    /// How many reads, and how many bytes they answered.
    pub fn cost(&self) -> (usize, usize) {
        let noted = self.noted.lock();
        (
            noted.reads.len(),
            noted
                .reads
                .iter()
                .map(|(_, answer)| answer.as_ref().map_or(0, Bytes::len))
                .sum(),
        )
    }

    pub(crate) fn reads(&self) -> Vec<(Read, Answer)> {
        self.noted.lock().reads.clone()
    }

    pub(crate) fn pin(&self, slot: &Slot) -> Option<Arc<Frozen>> {
        self.pins
            .lock()
            .iter()
            .find(|(number, _)| *number == slot.number)
            .map(|(_, frozen)| frozen.clone())
    }

    fn ask(&self, kind: &Gvk, which: &Selection, what: What, asked: Asked) -> Answer {
        let ask = Ask {
            which: which.clone(),
            what,
        };
        let (limit, cursor) = match asked {
            Asked::First(limit) => (limit, 0),
            Asked::Since(cursor) => (0, cursor),
            Asked::Whole => (0, 0),
        };
        let read = Read::Ask {
            kind: kind.clone(),
            ask: ask.clone(),
            limit,
            cursor,
        };
        self.noting(read, |view| {
            let (slot, pinned) = self.pinned(view, kind, &which.namespace)?;
            let (question, kept) = slot.question(&ask, &pinned)?;
            Ok(answer::to(&question, &kept, &pinned, asked).0)
        })
    }

    /// Kinds that were asked for and are not filled yet. If there are any, what the call came to is worth nothing: throw
    /// it away, wait with [`View::fill`], and call again.
    pub fn unfilled(&self) -> Vec<Gvk> {
        self.unfilled.lock().clone()
    }

    fn noting(&self, read: Read, make: impl FnOnce(&Arc<View>) -> Result<Bytes, Failure>) -> Answer {
        match self.first_answer(&read) {
            Ok(answer) => answer,
            Err(view) => self.keep(read, make(view).map_err(Refused::from)),
        }
    }

    /// The answer this question got before, in this call or in the recorded one; else where to look for one.
    fn first_answer(&self, read: &Read) -> Result<Answer, &Arc<View>> {
        if let Some(known) = self.noted.lock().known(read) {
            return Ok(known);
        }
        match &self.source {
            Source::View(view) => Err(view),
            Source::Replay(left) => Ok(self.keep(read.clone(), next(left, read))),
        }
    }

    fn keep(&self, read: Read, answer: Answer) -> Answer {
        self.noted.lock().add(read, answer.clone());
        answer
    }

    /// The kind as this call sees it, if the call may.
    fn pinned(&self, view: &Arc<View>, kind: &Gvk, namespace: &str) -> Result<(Arc<Slot>, Arc<Frozen>), Failure> {
        let served = view.served(kind)?;
        self.grants.may_read(&served, namespace)?;
        let slot = view.start(kind)?;
        if let Some(pinned) = self.pin(&slot) {
            return Ok((slot, pinned));
        }
        if !slot.synced() {
            self.unfilled.lock().push(kind.clone());
            return Err(Failure::Timeout(format!(
                "the view of {kind} is being filled; the call is made again after that"
            )));
        }
        let pinned = slot.frozen();
        self.pins.lock().push((slot.number, pinned.clone()));
        Ok((slot, pinned))
    }
}

impl Noted {
    fn known(&self, read: &Read) -> Option<Answer> {
        self.at.get(read).map(|at| self.reads[*at].1.clone())
    }

    fn add(&mut self, read: Read, answer: Answer) {
        if !self.at.contains_key(&read) {
            self.at.insert(read.clone(), self.reads.len());
            self.reads.push((read, answer));
        }
    }
}

fn next(left: &Mutex<std::collections::VecDeque<(Read, Answer)>>, read: &Read) -> Answer {
    let mut left = left.lock();
    match left.pop_front() {
        Some((recorded, answer)) if recorded == *read => answer,
        Some((recorded, answer)) => {
            let says =
                format!("the replay left the recording: it asked {read:?}, the recorded call asked {recorded:?}");
            left.push_front((recorded, answer));
            Err(Failure::Internal(says).into())
        }
        None => Err(Failure::Internal(format!("the replay asked {read:?} after the recording's end")).into()),
    }
}

/// What the `scale` subresource says of an object of the usual shape: replicas in `spec` and `status`, the selector as a
/// `LabelSelector`, a plain map, or text in `status`.
fn scaling(object: &Object) -> Scaling {
    let document = object.value();
    let number = |at: &str| document.pointer(at).and_then(serde_json::Value::as_i64).unwrap_or(0) as i32;
    let selector = match (document.pointer("/status/selector"), document.pointer("/spec/selector")) {
        (Some(serde_json::Value::String(text)), _) => text.clone(),
        (_, Some(spec)) if spec.get("matchLabels").is_some() || spec.get("matchExpressions").is_some() => {
            model::Selector::from_json(spec)
                .map(|selector| selector.to_string())
                .unwrap_or_default()
        }
        (_, Some(serde_json::Value::Object(map))) => {
            let pairs = map
                .iter()
                .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
            pairs.collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    };
    Scaling {
        uid: object.uid.to_string(),
        version: object.version.to_string(),
        spec_replicas: number("/spec/replicas"),
        status_replicas: number("/status/replicas"),
        selector,
    }
}

pub(crate) fn kinds_answer(kinds: &[Arc<Kind>]) -> Bytes {
    let served: Vec<Served> = kinds
        .iter()
        .map(|kind| Served {
            kind: kind.gvk.to_string(),
            resource: kind.group_resource().to_string(),
            namespaced: kind.namespaced(),
            listable: kind.verbs.contains(&model::Verb::List) && kind.verbs.contains(&model::Verb::Watch),
            deletable: kind.verbs.contains(&model::Verb::Delete),
        })
        .collect();
    serde_json::to_vec(&served).expect("plain data").into()
}
