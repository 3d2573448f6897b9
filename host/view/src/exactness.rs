//! Properties: answers kept change by change are those made from nothing, and a reader is woken exactly when asking again
//! would give other bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sdk_columns::Columns;
use bytes::Bytes;
use model::{Gvk, Kind, Object, ResourceVersion, Scope, Verb};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;

use crate::answer::{self, Asked};
use crate::changes::Delta;
use crate::fields::Wanted;
use crate::member::Name;
use crate::question::{Ask, What};
use crate::selection::Selection;
use crate::slot::{Change, Frozen, Slot};
use crate::testing::pod;
use crate::wake::{Reading, Wake, Why};

#[derive(Default)]
struct Woken(Mutex<BTreeSet<u64>>);

impl Wake for Woken {
    fn wake(&self, reader: u64, _: Why) {
        self.0.lock().insert(reader);
    }
}

pub(crate) fn slot() -> Arc<Slot> {
    Slot::new(Arc::new(Kind {
        gvk: Gvk::new("", "v1", "Pod"),
        plural: "pods".into(),
        singular: "pod".into(),
        scope: Scope::Namespaced,
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: Verb::ALL.to_vec(),
        subresources: Vec::new(),
        stored: None,
    }))
}

/// One random step: what happens to which pod.
#[derive(Debug, Clone)]
enum Step {
    Put {
        name: u8,
        phase: u8,
        app: u8,
        owner: u8,
        n: i64,
        tags: Vec<u8>,
        noise: u8,
        fresh_uid: bool,
    },
    Delete(u8),
    /// A list with these pods only, as after an expired watch.
    Relist(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let put = (
        0u8..6,
        0u8..3,
        0u8..3,
        0u8..3,
        0i64..3,
        prop::collection::vec(0u8..3, 0..3),
        0u8..2,
        prop::bool::weighted(0.05),
    );
    prop_oneof![
        8 => put.prop_map(|(name, phase, app, owner, n, tags, noise, fresh_uid)| Step::Put { name, phase, app, owner, n, tags, noise, fresh_uid }),
        2 => (0u8..6).prop_map(Step::Delete),
        1 => prop::collection::vec(0u8..6, 0..6).prop_map(Step::Relist),
    ]
}

fn make(step: &Step, version: u64) -> Arc<Object> {
    let Step::Put {
        name,
        phase,
        app,
        owner,
        n,
        tags,
        noise,
        fresh_uid,
    } = step
    else {
        unreachable!("only called for puts")
    };
    let namespace = if name.is_multiple_of(3) { "other" } else { "default" };
    let uid = if *fresh_uid {
        format!("u-{name}-{version}")
    } else {
        format!("u-{name}")
    };
    let tags: Vec<String> = tags.iter().map(|t| format!("t{t}")).collect();
    let phases = ["Pending", "Running", "Failed"];
    pod(
        &format!("p{name}"),
        version,
        json!({
            "metadata": {
                "namespace": namespace, "uid": uid, "labels": {"app": format!("a{app}"), "n": n.to_string()},
                "ownerReferences": [{"uid": "x", "controller": false}, {"uid": format!("o{owner}"), "controller": true}],
                "annotations": {"cost": n.to_string(), "noise": noise.to_string()},
            },
            "spec": {"n": n, "cpu": format!("{n}00m"), "tags": tags},
            "status": {"phase": phases[usize::from(*phase)]},
        }),
    )
}

fn find(which: Selection, fields: &str, order: &str) -> Ask {
    Ask {
        which,
        what: What::Find {
            fields: fields.into(),
            order: order.into(),
        },
    }
}

fn tally(which: Selection, by: &str, sums: &str) -> Ask {
    Ask {
        which,
        what: What::Tally {
            by: by.into(),
            sums: sums.into(),
        },
    }
}

fn distinct(which: Selection, by: &str) -> Ask {
    Ask {
        which,
        what: What::Distinct { by: by.into() },
    }
}

fn changes(which: Selection, fields: &str) -> Ask {
    Ask {
        which,
        what: What::Changes { fields: fields.into() },
    }
}

const OWNER: &str = ".metadata.ownerReferences[controller=true].uid";

/// Questions of every form over every way to select.
fn questions() -> Vec<(Ask, u32)> {
    let all = Selection::default;
    let owned = || all().equals(OWNER, "o1");
    let ranks = ".status.phase(Failed|Pending) -.metadata.annotations[\"cost\"]:int";
    vec![
        (find(all(), ".status.phase", ""), 0),
        (find(all(), ".status.phase", ""), 2),
        (
            find(
                Selection::namespace("default").labelled("app=a1"),
                ".metadata.name .status.phase",
                "",
            ),
            1,
        ),
        (find(all().labelled("app=a1,n!=2"), ".status.phase", "-.spec.n"), 0),
        (find(all().labelled("app in (a0,a1)"), ".metadata.name", ".spec.n"), 2),
        (find(owned(), ".metadata.name", ranks), 1),
        (find(owned(), ".status.phase", ranks), 3),
        (
            find(owned().equals(".status.phase", "Running"), ".metadata.name .spec.n", ""),
            0,
        ),
        (find(all().equals(".spec.tags[*]", "t1"), ".spec.tags[*]", ""), 0),
        (
            find(all().equals(".spec.gone", ""), ".metadata.uid", "-.metadata.name"),
            2,
        ),
        (tally(all(), ".status.phase", ""), 0),
        (
            tally(
                owned(),
                ".status.phase .metadata.annotations[\"no\"]?",
                ".spec.n .spec.cpu",
            ),
            0,
        ),
        (tally(Selection::namespace("other"), ".spec.tags[*]", ".spec.cpu"), 0),
        (distinct(all(), ".metadata.namespace .status.phase"), 0),
        (distinct(owned(), ".metadata.ownerReferences"), 0),
        (changes(all().labelled("app=a1"), ".status.phase"), 0),
        (changes(owned(), ".spec.n"), 0),
        (changes(Selection::namespace("default"), ".status.phase"), 0),
    ]
}

/// One asker with what it knows.
struct Asker {
    ask: Ask,
    asked: Asked,
    answer: Bytes,
    /// For `changes`: what it has folded together, by uid.
    mirror: BTreeMap<String, Vec<String>>,
    reading: Option<Arc<Reading>>,
}

fn answer_now(slot: &Slot, frozen: &Frozen, asker: &Asker) -> Bytes {
    let (question, kept) = slot.question(&asker.ask, frozen).unwrap();
    answer::to(&question, &kept, frozen, asker.asked).0
}

fn rows(packed: &[u8]) -> Vec<Vec<String>> {
    let columns = Columns::parse(packed).unwrap();
    let row = |row: crate::sdk_columns::Row<'_>| (0..columns.columns()).map(|c| format!("{:?}", row.cell(c))).collect();
    columns.iter().map(row).collect()
}

impl Asker {
    /// Reads, folds deltas, and makes the answer the reason to be woken.
    fn read(&mut self, slot: &Slot, number: u64, id: u64, woken: &Arc<Woken>) {
        let frozen = slot.frozen();
        if matches!(self.asked, Asked::Since(_)) {
            let before = std::mem::take(&mut self.answer);
            if let Some(delta) = Delta::unpack(before) {
                self.asked = Asked::Since(delta.cursor);
            }
        }
        self.answer = answer_now(slot, &frozen, self);
        if let Asked::Since(_) = self.asked {
            let delta = Delta::unpack(self.answer.clone()).unwrap();
            if delta.complete {
                self.mirror.clear();
            }
            for row in rows(&delta.gone) {
                self.mirror.remove(&row[2]);
            }
            for row in rows(&delta.rows) {
                self.mirror.insert(row[2].clone(), row);
            }
        }
        if let Some(old) = self.reading.take() {
            old.retire();
            slot.unsubscribe(old.id, &self.ask, self.asked.limit());
        }
        let reading = Reading::new(id, number, woken.clone());
        slot.subscribe(&reading, &self.ask, self.asked, &self.answer, &frozen)
            .unwrap();
        self.reading = Some(reading);
    }
}

fn apply(slot: &Slot, step: &Step, version: u64) {
    let object = |n: &u8| {
        let frozen = slot.frozen();
        frozen
            .object(if n.is_multiple_of(3) { "other" } else { "default" }, &format!("p{n}"))
            .cloned()
    };
    match step {
        Step::Put { .. } => slot.apply([Change::Put(make(step, version))]),
        Step::Delete(n) => slot.apply(object(n).map(Change::Gone)),
        Step::Relist(names) => {
            let names: BTreeSet<&u8> = names.iter().collect();
            slot.replace(ResourceVersion(version), names.into_iter().filter_map(object).collect());
        }
    }
}

static WAKES: AtomicUsize = AtomicUsize::new(0);
static SPURIOUS: AtomicUsize = AtomicUsize::new(0);

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn woken_exactly_when_the_answer_would_differ(steps in prop::collection::vec(step(), 1..40)) {
        let slot = slot();
        let woken = Arc::new(Woken::default());
        let mut next = 0;
        let mut askers: Vec<Asker> = questions().into_iter().map(|(ask, limit)| {
            let asked = match ask.what {
                What::Find { .. } => Asked::First(limit),
                What::Tally { .. } | What::Distinct { .. } => Asked::Whole,
                What::Changes { .. } => Asked::Since(0),
            };
            Asker { ask, asked, answer: Bytes::new(), mirror: BTreeMap::new(), reading: None }
        }).collect();
        for (i, asker) in askers.iter_mut().enumerate() {
            next += 1;
            asker.read(&slot, i as u64, next, &woken);
        }
        for (i, step) in steps.iter().enumerate() {
            apply(&slot, step, 10 + i as u64);
            let frozen = slot.frozen();
            // Made from nothing: another kind's slot that is handed the same objects.
            let other = self::slot();
            other.replace(frozen.version, frozen.objects.iter().map(|m| m.0.clone()).collect());
            let mut all = woken.0.lock();
            let was_woken = std::mem::take(&mut *all);
            drop(all);
            for (n, asker) in askers.iter_mut().enumerate() {
                let again = answer_now(&slot, &frozen, asker);
                if !matches!(asker.asked, Asked::Since(_)) {
                    let fresh = answer_now(&other, &other.frozen(), asker);
                    prop_assert_eq!(&again, &fresh, "kept and made answers differ: {:?}", asker.ask);
                }
                let differs = again != asker.answer;
                let is_woken = was_woken.contains(&(n as u64));
                prop_assert!(!differs || is_woken, "missed: {:?} {:?}", asker.ask, step);
                if is_woken {
                    WAKES.fetch_add(1, Ordering::Relaxed);
                    SPURIOUS.fetch_add(usize::from(!differs), Ordering::Relaxed);
                    next += 1;
                    asker.read(&slot, n as u64, next, &woken);
                }
                if let Asked::Since(_) = asker.asked {
                    let fresh = Asker { ask: asker.ask.clone(), asked: Asked::Since(0), answer: Bytes::new(), mirror: BTreeMap::new(), reading: None };
                    let whole = Delta::unpack(answer_now(&other, &other.frozen(), &fresh)).unwrap();
                    let expected: BTreeMap<_, _> = rows(&whole.rows).into_iter().map(|row| (row[2].clone(), row)).collect();
                    prop_assert_eq!(&asker.mirror, &expected, "folded deltas differ: {:?}", asker.ask);
                }
            }
        }
        // A move between rows that look alike gives equal bytes all the same; nothing else may wake for nothing.
        let (wakes, spurious) = (WAKES.load(Ordering::Relaxed), SPURIOUS.load(Ordering::Relaxed));
        prop_assert!(spurious * 20 <= wakes.max(400), "{spurious} of {wakes} wakes were for nothing");
    }

    #[test]
    fn an_object_read_wakes_for_its_fields_only(steps in prop::collection::vec(step(), 1..40)) {
        let slot = slot();
        let woken = Arc::new(Woken::default());
        let fields = [".status.phase", ".spec.n .spec.tags", ".", ".metadata.annotations[\"noise\"]"];
        let wanted = fields.map(|text| Wanted::parse(text).unwrap());
        let at = Name { namespace: "default".into(), name: "p1".into() };
        let look = |frozen: &Frozen, wanted: &Wanted| answer::get(frozen.object("default", "p1"), wanted);
        let mut id = 0;
        let mut install = |n: usize| {
            id += 1;
            slot.subscribe_object(&Reading::new(id, n as u64, woken.clone()), &at, &wanted[n], &slot.frozen());
        };
        (0..fields.len()).for_each(&mut install);
        for (i, step) in steps.iter().enumerate() {
            let before = slot.frozen();
            apply(&slot, step, 10 + i as u64);
            let after = slot.frozen();
            let was_woken = std::mem::take(&mut *woken.0.lock());
            for n in 0..fields.len() {
                let differs = look(&before, &wanted[n]) != look(&after, &wanted[n]);
                // A pod that was replaced by a new one of its name went in between.
                let replaced = before.object("default", "p1").zip(after.object("default", "p1")).is_some_and(|(a, b)| a.uid != b.uid);
                prop_assert!(differs == was_woken.contains(&(n as u64)) || replaced, "{} {:?}", fields[n], step);
                if was_woken.contains(&(n as u64)) {
                    install(n);
                }
            }
        }
    }
}

/// A pod of which nothing else matters.
fn put(slot: &Slot, name: u8, phase: u8, noise: u8, version: u64) {
    let step = Step::Put {
        name,
        phase,
        app: 1,
        owner: 1,
        n: 1,
        tags: vec![],
        noise,
        fresh_uid: false,
    };
    slot.apply([Change::Put(make(&step, version))]);
}

#[test]
fn what_changed_between_snapshot_and_install_wakes_at_once() {
    let slot = slot();
    let woken = Arc::new(Woken::default());
    let put = |phase, noise, version| put(&slot, 1, phase, noise, version);
    put(0, 0, 1);
    let ask = tally(Selection::default().labelled("app=a1"), ".status.phase", "");
    let pinned = slot.frozen();
    let (question, kept) = slot.question(&ask, &pinned).unwrap();
    let told = answer::to(&question, &kept, &pinned, Asked::Whole).0;
    put(0, 1, 2);
    slot.subscribe(&Reading::new(1, 1, woken.clone()), &ask, Asked::Whole, &told, &pinned)
        .unwrap();
    assert!(woken.0.lock().is_empty(), "nothing that was read has changed");
    put(1, 1, 3);
    assert_eq!(*woken.0.lock(), [1].into());
    slot.subscribe(&Reading::new(2, 2, woken.clone()), &ask, Asked::Whole, &told, &pinned)
        .unwrap();
    assert_eq!(
        *woken.0.lock(),
        [1, 2].into(),
        "the answer was old when it was installed"
    );
}

#[test]
fn one_more_of_a_combination_that_is_there_wakes_nobody() {
    let slot = slot();
    let woken = Arc::new(Woken::default());
    let put = |name, phase, version| put(&slot, name, phase, 0, version);
    put(1, 0, 1);
    let ask = distinct(Selection::default(), ".status.phase");
    let pinned = slot.frozen();
    let (question, kept) = slot.question(&ask, &pinned).unwrap();
    let told = answer::to(&question, &kept, &pinned, Asked::Whole).0;
    assert_eq!(rows(&told), [[r#"Str("Pending")"#]]);
    slot.subscribe(&Reading::new(1, 1, woken.clone()), &ask, Asked::Whole, &told, &pinned)
        .unwrap();
    put(2, 0, 2);
    assert!(woken.0.lock().is_empty(), "one pod more, and no phase more");
    put(2, 1, 3);
    assert_eq!(*woken.0.lock(), [1].into());
}

#[test]
fn questions_nobody_reads_are_let_go() {
    let slot = slot();
    for n in 0..5000 {
        let ask = tally(
            Selection::default().equals(OWNER, &format!("o{n}")),
            ".status.phase",
            "",
        );
        slot.question(&ask, &slot.frozen()).unwrap();
    }
    let (questions, indexes, readers) = slot.standing();
    assert_eq!((questions, indexes, readers), (1024, 1, 0));
}
