//! One suite, every engine. To add a case: an async function, and its name in `CASES`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::etcd::{EtcdOptions, EtcdStore};
use store::{
    Batch, Event, History, MAX_KEY, MAX_VALUE, Outcome, Previous, Range, Revision, Store, StoreError, Txn, Watch,
    embedded, memory,
};

use crate::etcd_server::EtcdServer;

type Handle = Arc<dyn Store>;

/// Two handles on the same data (two API servers on one etcd, one store twice elsewhere) and a prefix of the case's own.
#[derive(Clone)]
struct Stage {
    a: Handle,
    b: Handle,
    prefix: String,
}

impl Stage {
    fn key(&self, name: &str) -> Bytes {
        format!("{}{name}", self.prefix).into()
    }

    fn prefix(&self) -> Bytes {
        self.prefix.clone().into()
    }
}

type Case = fn(Stage) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |stage| Box::pin($name(stage)))),*];
    };
}

cases![
    a_key_lives_and_dies,
    a_txn_compares_many_keys,
    a_refusal_tells_what_is_there,
    deleting_nothing_is_refused,
    keys_are_bytes_in_order,
    a_prefix_is_no_path,
    pages_at_a_revision_are_one_list,
    a_long_list_comes_whole,
    counts_at_a_revision,
    the_past_can_be_read,
    the_future_cannot_be_read,
    what_is_too_large_is_refused,
    a_watch_tells_everything_once,
    a_watch_starts_in_the_past,
    a_watch_may_start_in_the_future,
    a_watch_sees_its_prefix_only,
    progress_comes_when_asked,
    compaction_forgets,
    what_is_alive_survives_compaction,
    a_watcher_that_keeps_up_survives_compaction,
    puts_expire,
    counters_lose_no_step,
    a_crowd_of_writers_is_seen_in_order,
    writes_of_one_handle_are_seen_by_the_other,
    a_backup_becomes_a_store,
];

async fn run_all(a: Handle, b: Handle) {
    for (name, case) in CASES {
        eprintln!("case {name}");
        let stage = Stage {
            a: a.clone(),
            b: b.clone(),
            prefix: format!("/registry/{name}/"),
        };
        let limit = tokio::time::timeout(Duration::from_secs(60), tokio::spawn(case(stage)));
        limit
            .await
            .unwrap_or_else(|_| panic!("{name} takes too long"))
            .unwrap_or_else(|_| panic!("{name} failed"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let store: Handle = Arc::new(memory::open(History::default()).unwrap());
    run_all(store.clone(), store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    // A small log, so that snapshots are taken all the while.
    let options = embedded::Options {
        log_bytes: 100_000,
        ..embedded::Options::default()
    };
    let store: Handle = Arc::new(embedded::open(dir.path(), options).unwrap());
    run_all(store.clone(), store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = EtcdServer::start(dir.path()) else {
        return;
    };
    let connect = || EtcdStore::connect(EtcdOptions::new(vec![server.endpoint.clone()]));
    let (a, b) = (connect().await.unwrap(), connect().await.unwrap());
    run_all(Arc::new(a), Arc::new(b)).await;
}

// A stage is one store; these need another.

#[tokio::test]
async fn an_empty_store_begins_at_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores: Vec<Handle> = vec![
        Arc::new(memory::open(History::default()).unwrap()),
        Arc::new(embedded::open(dir.path(), embedded::Options::default()).unwrap()),
    ];
    let etcd_dir = tempfile::tempdir().unwrap();
    let server = EtcdServer::start(etcd_dir.path());
    if let Some(server) = &server {
        stores.push(Arc::new(
            EtcdStore::connect(EtcdOptions::new(vec![server.endpoint.clone()]))
                .await
                .unwrap(),
        ));
    }
    for store in stores {
        assert_eq!(store.revision().await.unwrap(), rev(1));
        assert!(matches!(
            store.get(b"/registry/x", Some(rev(0))).await,
            Err(StoreError::Compacted { .. })
        ));
        assert!(matches!(
            store.watch("/registry/".into(), rev(0)).await,
            Err(StoreError::Compacted { .. })
        ));
        assert_eq!(done(&*store, Txn::create("/registry/x", "1")).await, rev(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_etcd_compact_it_by_turns() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = EtcdServer::start(dir.path()) else {
        return;
    };
    let history = History {
        age: Duration::from_millis(150),
        ..History::default()
    };
    let options = EtcdOptions {
        history,
        ..EtcdOptions::new(vec![server.endpoint.clone()])
    };
    let a = EtcdStore::connect(options.clone()).await.unwrap();
    let b = EtcdStore::connect(options).await.unwrap();
    let old = done(&a, Txn::put("/registry/a", "1")).await;
    done(&a, Txn::put("/registry/a", "2")).await;
    eventually("what is old is forgotten", || async {
        a.get(b"/registry/a", Some(old)).await.is_err()
    })
    .await;
    // One writes the round each time, not both: the version of the key grows no faster than the clock.
    let round = || async { b.get(b"compact_rev_key", None).await.unwrap().entry };
    let first = round().await.expect("somebody was elected");
    eventually("another round", || async {
        round().await.unwrap().modified > first.modified
    })
    .await;
    let read = b.get(b"/registry/a", None).await.unwrap();
    assert_eq!(read.entry.unwrap().value, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_history_is_forgotten_by_itself() {
    let history = History {
        age: Duration::from_millis(100),
        ..History::default()
    };
    let store = memory::open(history).unwrap();
    let old = done(&store, Txn::put("/registry/a", "1")).await;
    let new = done(&store, Txn::put("/registry/a", "2")).await;
    eventually("what is old is forgotten", || async {
        store.get(b"/registry/a", Some(old)).await.is_err()
    })
    .await;
    let read = store.get(b"/registry/a", Some(new)).await.unwrap();
    assert_eq!(read.entry.unwrap().value, "2", "the newest is not old");
}

fn rev(number: u64) -> Revision {
    model::ResourceVersion(number)
}

async fn done(store: &dyn Store, txn: Txn) -> Revision {
    match store.txn(txn).await.unwrap() {
        Outcome::Done { revision } => revision,
        refused => panic!("{refused:?}"),
    }
}

async fn value(store: &dyn Store, key: &Bytes) -> Option<Bytes> {
    store.get(key, None).await.unwrap().entry.map(|entry| entry.value)
}

async fn names(stage: &Stage, range: Range) -> Vec<String> {
    let page = stage.a.range(range).await.unwrap();
    let name = |key: &Bytes| String::from_utf8_lossy(&key[stage.prefix.len()..]).into_owned();
    page.entries.iter().map(|entry| name(&entry.key)).collect()
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Reads on until `count` events have come, checking what every batch must keep.
async fn take(watch: &mut Watch, count: usize) -> Vec<Arc<Event>> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    while events.len() < count {
        let Batch { events: more, through } = watch.next().await.unwrap();
        for event in &more {
            assert!(
                events.last().is_none_or(|last| last.revision < event.revision),
                "revisions rise"
            );
            assert!(event.revision <= through);
            events.push(event.clone());
        }
    }
    assert_eq!(events.len(), count, "no more than there were");
    events
}

async fn a_key_lives_and_dies(stage: Stage) {
    let (store, key) = (&*stage.a, stage.key("k"));
    assert_eq!(store.get(&key, None).await.unwrap().entry, None);
    let made = done(store, Txn::create(key.clone(), "one")).await;
    let changed = done(store, Txn::update(key.clone(), "two", made)).await;
    assert!(changed > made);
    let read = store.get(&key, None).await.unwrap();
    let entry = read.entry.unwrap();
    assert_eq!(
        (entry.created, entry.modified, &entry.value[..]),
        (made, changed, &b"two"[..])
    );
    assert_eq!(entry.key, key);
    assert!(read.revision >= changed);
    let gone = done(store, Txn::delete(key.clone(), changed)).await;
    assert!(gone > changed);
    assert_eq!(store.get(&key, None).await.unwrap().entry, None);
    let again = done(store, Txn::create(key.clone(), "three")).await;
    assert_eq!(
        store.get(&key, None).await.unwrap().entry.unwrap().created,
        again,
        "a new life has a new beginning"
    );
}

async fn a_txn_compares_many_keys(stage: Stage) {
    let (store, a, b, c) = (&*stage.a, stage.key("a"), stage.key("b"), stage.key("c"));
    let ra = done(store, Txn::put(a.clone(), "")).await;
    let rb = done(store, Txn::put(b.clone(), "")).await;
    let all = Txn::create(c.clone(), "1").when(a.clone(), ra).when(b.clone(), rb);
    let rc = done(store, all).await;
    let before = store.revision().await.unwrap();
    let stale = Txn::update(c.clone(), "2", rc).when(a.clone(), ra).when(b.clone(), ra);
    match store.txn(stale).await.unwrap() {
        Outcome::Refused { key, now } => assert_eq!((key, now.unwrap().modified), (b, rb)),
        done => panic!("{done:?}"),
    }
    assert_eq!(
        store.revision().await.unwrap(),
        before,
        "what changes nothing has no revision"
    );
    assert_eq!(value(store, &c).await.unwrap(), "1");
    // A key that must not be there, and a deletion that hangs on another key.
    let gone = Txn::delete(c.clone(), rc).when(stage.key("absent"), rev(0)).when(a, ra);
    done(store, gone).await;
    assert_eq!(value(store, &c).await, None);
}

async fn a_refusal_tells_what_is_there(stage: Stage) {
    let (store, key) = (&*stage.a, stage.key("k"));
    let made = done(store, Txn::create(key.clone(), "mine")).await;
    match store.txn(Txn::create(key.clone(), "yours")).await.unwrap() {
        Outcome::Refused { key: which, now } => {
            let now = now.unwrap();
            assert_eq!((which, now.modified, &now.value[..]), (key.clone(), made, &b"mine"[..]));
        }
        done => panic!("{done:?}"),
    }
    let absent = stage.key("absent");
    let outcome = store.txn(Txn::update(absent.clone(), "", made)).await.unwrap();
    assert_eq!(outcome, Outcome::Refused { key: absent, now: None });
}

async fn deleting_nothing_is_refused(stage: Stage) {
    let key = stage.key("k");
    let before = stage.a.revision().await.unwrap();
    let txn = Txn {
        compare: Vec::new(),
        change: store::Change::Delete { key: key.clone() },
    };
    assert_eq!(stage.a.txn(txn).await.unwrap(), Outcome::Refused { key, now: None });
    assert_eq!(stage.a.revision().await.unwrap(), before);
}

async fn keys_are_bytes_in_order(stage: Stage) {
    let tails: [&[u8]; 6] = [b"a", b"a\0", b"a\0\xff", b"a/", b"b\xfe", b"\xff\xff"];
    for tail in tails.iter().rev() {
        let key = [stage.prefix.as_bytes(), tail].concat();
        done(&*stage.a, Txn::put(key, tail.to_vec())).await;
    }
    let page = stage.a.range(Range::prefix(stage.prefix())).await.unwrap();
    let found: Vec<&[u8]> = page.entries.iter().map(|entry| &entry.value[..]).collect();
    assert_eq!(found, tails);
    let last = [stage.prefix.as_bytes(), b"\xff"].concat();
    assert_eq!(
        stage.a.count(&last, None).await.unwrap().count,
        1,
        "a prefix may end in the last byte"
    );
}

async fn a_prefix_is_no_path(stage: Stage) {
    for name in ["pod", "pod/a", "pod/b", "pods/a", "poe"] {
        done(&*stage.a, Txn::put(stage.key(name), "")).await;
    }
    assert_eq!(
        names(&stage, Range::prefix(stage.key("pod/"))).await,
        ["pod/a", "pod/b"]
    );
    assert_eq!(
        names(&stage, Range::prefix(stage.key("pod"))).await,
        ["pod", "pod/a", "pod/b", "pods/a"]
    );
    let behind = Range {
        start: stage.key("q"),
        ..Range::prefix(stage.key("pod"))
    };
    assert_eq!(names(&stage, behind).await, [""; 0]);
}

async fn pages_at_a_revision_are_one_list(stage: Stage) {
    for n in 0..25 {
        done(&*stage.a, Txn::put(stage.key(&format!("{n:02}")), format!("{n}"))).await;
    }
    let first = stage.a.range(Range::prefix(stage.prefix()).limit(10)).await.unwrap();
    assert_eq!((first.entries.len(), first.remaining), (10, 15));
    // Whatever happens now is not in the list.
    done(&*stage.b, Txn::put(stage.key("15"), "changed")).await;
    done(&*stage.b, Txn::put(stage.key("12a"), "new")).await;
    let read = stage.b.get(&stage.key("20"), None).await.unwrap();
    done(&*stage.b, Txn::delete(stage.key("20"), read.entry.unwrap().modified)).await;
    let mut all = first.entries.clone();
    loop {
        let last = all.last().unwrap().key.clone();
        let next = Range::prefix(stage.prefix()).limit(10).at(first.revision).after(&last);
        let page = stage.b.range(next).await.unwrap();
        assert_eq!(page.revision, first.revision);
        all.extend(page.entries);
        assert_eq!(page.remaining as usize, 25 - all.len());
        if page.remaining == 0 {
            break;
        }
    }
    let values: Vec<String> = all
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
        .collect();
    assert_eq!(values, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn a_long_list_comes_whole(stage: Stage) {
    let writes = (0..2_500).map(|n| {
        let stage = stage.clone();
        tokio::spawn(async move { done(&*stage.a, Txn::create(stage.key(&format!("{n:05}")), vec![7; 50])).await })
    });
    let revisions: BTreeSet<Revision> = futures::future::join_all(writes)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(revisions.len(), 2_500, "every change has a revision of its own");
    let page = stage.a.range(Range::prefix(stage.prefix())).await.unwrap();
    assert_eq!((page.entries.len(), page.remaining), (2_500, 0));
    assert!(page.entries.is_sorted_by(|a, b| a.key < b.key));
    let most = stage.a.range(Range::prefix(stage.prefix()).limit(2_100)).await.unwrap();
    assert_eq!((most.entries.len(), most.remaining), (2_100, 400));
    assert_eq!(most.entries[..], page.entries[..2_100]);
}

async fn counts_at_a_revision(stage: Stage) {
    let mut revisions = Vec::new();
    for n in 0..5 {
        revisions.push(done(&*stage.a, Txn::put(stage.key(&format!("{n}")), "")).await);
    }
    done(&*stage.a, Txn::delete(stage.key("0"), revisions[0])).await;
    let counted = stage.a.count(&stage.prefix(), None).await.unwrap();
    assert_eq!(counted.count, 4);
    assert_eq!(
        stage.a.count(&stage.prefix(), Some(revisions[2])).await.unwrap().count,
        3
    );
    assert_eq!(
        stage.a.count(&stage.prefix(), Some(revisions[4])).await.unwrap().count,
        5
    );
    assert_eq!(
        stage
            .a
            .count(&stage.prefix(), Some(counted.revision))
            .await
            .unwrap()
            .count,
        4
    );
}

async fn the_past_can_be_read(stage: Stage) {
    let key = stage.key("k");
    let one = done(&*stage.a, Txn::put(key.clone(), "1")).await;
    let two = done(&*stage.a, Txn::put(key.clone(), "2")).await;
    let gone = done(&*stage.a, Txn::delete(key.clone(), two)).await;
    let three = done(&*stage.a, Txn::put(key.clone(), "3")).await;
    for (at, expected) in [(one, Some("1")), (two, Some("2")), (gone, None), (three, Some("3"))] {
        let read = stage.b.get(&key, Some(at)).await.unwrap();
        assert_eq!(
            read.entry.as_ref().map(|entry| &entry.value[..]),
            expected.map(str::as_bytes)
        );
        assert_eq!(read.revision, at);
        let listed = stage.b.range(Range::prefix(stage.prefix()).at(at)).await.unwrap();
        assert_eq!(listed.entries.first(), read.entry.as_ref());
    }
    let before = stage.b.get(&key, Some(rev(one.0 - 1))).await.unwrap();
    assert_eq!(before.entry, None);
}

async fn the_future_cannot_be_read(stage: Stage) {
    let current = done(&*stage.a, Txn::put(stage.key("k"), "")).await;
    let ahead = rev(current.0 + 1_000_000);
    let answers = [
        stage.a.get(&stage.key("k"), Some(ahead)).await.map(drop),
        stage.a.range(Range::prefix(stage.prefix()).at(ahead)).await.map(drop),
        stage.a.count(&stage.prefix(), Some(ahead)).await.map(drop),
        stage.a.compact(ahead).await,
    ];
    for answer in answers {
        match answer {
            Err(StoreError::Future { asked, current: now }) => assert!(asked == ahead && now >= current),
            other => panic!("{other:?}"),
        }
    }
}

async fn what_is_too_large_is_refused(stage: Stage) {
    let before = stage.a.revision().await.unwrap();
    let long = stage.key(&"k".repeat(MAX_KEY));
    let refused = [
        Txn::put(stage.key("k"), vec![0; MAX_VALUE + 1]),
        Txn::put(long.clone(), ""),
        Txn::put("", ""),
        Txn::put(stage.key("k"), "").when(long, rev(0)),
    ];
    for txn in refused {
        assert!(matches!(stage.a.txn(txn).await, Err(StoreError::Size { .. })));
    }
    assert_eq!(stage.a.revision().await.unwrap(), before);
    let largest: Vec<u8> = (0..MAX_VALUE).map(|n| (n % 251) as u8).collect();
    done(&*stage.a, Txn::put(stage.key("k"), largest.clone())).await;
    assert_eq!(value(&*stage.a, &stage.key("k")).await.unwrap(), largest);
    let mut watch = stage.a.watch(stage.prefix(), before).await.unwrap();
    assert_eq!(take(&mut watch, 1).await[0].value.as_ref().unwrap().len(), MAX_VALUE);
}

async fn a_watch_tells_everything_once(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let mut watch = stage.b.watch(stage.prefix(), start).await.unwrap();
    let key = stage.key("k");
    let made = done(&*stage.a, Txn::put(key.clone(), "1")).await;
    let changed = done(&*stage.a, Txn::put(key.clone(), "2")).await;
    let gone = done(&*stage.a, Txn::delete(key.clone(), changed)).await;
    let again = done(&*stage.a, Txn::put(key.clone(), "3")).await;
    let previous = |value: &'static str, modified| {
        Some(Previous {
            value: value.into(),
            modified,
        })
    };
    let event = |revision, value: Option<&'static str>, created, previous| {
        Arc::new(Event {
            key: key.clone(),
            revision,
            value: value.map(Bytes::from),
            created,
            previous,
        })
    };
    let expected = [
        event(made, Some("1"), made, None),
        event(changed, Some("2"), made, previous("1", made)),
        event(gone, None, made, previous("2", changed)),
        event(again, Some("3"), again, None),
    ];
    assert_eq!(take(&mut watch, 4).await, expected);
}

async fn a_watch_starts_in_the_past(stage: Stage) {
    let mut revisions = Vec::new();
    for n in 0..700 {
        revisions.push(done(&*stage.a, Txn::put(stage.key(&format!("{}", n % 7)), format!("{n}"))).await);
    }
    for skip in [0, 1, 350, 699] {
        let mut watch = stage.b.watch(stage.prefix(), revisions[skip]).await.unwrap();
        let live = done(&*stage.a, Txn::put(stage.key("live"), "")).await;
        revisions.push(live);
        let events = take(&mut watch, revisions.len() - skip - 1).await;
        let seen: Vec<Revision> = events.iter().map(|event| event.revision).collect();
        assert_eq!(seen, revisions[skip + 1..], "from {skip}");
    }
}

async fn a_watch_may_start_in_the_future(stage: Stage) {
    let now = done(&*stage.a, Txn::put(stage.key("k"), "0")).await;
    let mut watch = stage.a.watch(stage.prefix(), rev(now.0 + 3)).await.unwrap();
    let mut last = now;
    while last.0 < now.0 + 5 {
        last = done(&*stage.a, Txn::put(stage.key("k"), "n")).await;
    }
    let events = take(&mut watch, (last.0 - now.0 - 3) as usize).await;
    assert_eq!(events[0].revision.0, now.0 + 4);
}

async fn a_watch_sees_its_prefix_only(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let (ours, theirs) = (stage.key("ours/"), stage.key("theirs/"));
    let mut watch = stage.a.watch(ours.clone(), start).await.unwrap();
    let mut twin = stage.a.watch(ours.clone(), start).await.unwrap();
    let mut other = stage.a.watch(theirs.clone(), start).await.unwrap();
    let mut both = stage.a.watch(stage.prefix(), start).await.unwrap();
    for n in 0..10 {
        for under in [&ours, &theirs] {
            done(
                &*stage.a,
                Txn::put([&under[..], format!("{n}").as_bytes()].concat(), ""),
            )
            .await;
        }
    }
    let events = take(&mut watch, 10).await;
    assert!(events.iter().all(|event| event.key.starts_with(&ours)));
    assert_eq!(take(&mut twin, 10).await, events);
    assert!(
        take(&mut other, 10)
            .await
            .iter()
            .all(|event| event.key.starts_with(&theirs))
    );
    assert_eq!(take(&mut both, 20).await.len(), 20);
    // One watch's end is not the others'.
    drop(twin);
    done(&*stage.a, Txn::put([&ours[..], b"more"].concat(), "")).await;
    assert_eq!(take(&mut watch, 1).await.len(), 1);
}

async fn progress_comes_when_asked(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let mut watch = stage.a.watch(stage.key("quiet/"), start).await.unwrap();
    for n in 0..3 {
        let now = done(&*stage.b, Txn::put(stage.key("loud"), format!("{n}"))).await;
        stage.a.request_progress().await.unwrap();
        let batch = watch.next().await.unwrap();
        assert!(batch.events.is_empty() && batch.through >= now, "{batch:?} at {now}");
    }
    // Never ahead of an event: what is told next lies behind it.
    let event = done(&*stage.b, Txn::put(stage.key("quiet/k"), "")).await;
    stage.a.request_progress().await.unwrap();
    let mut batch = watch.next().await.unwrap();
    while batch.events.is_empty() {
        assert!(batch.through < event);
        batch = watch.next().await.unwrap();
    }
    assert_eq!(batch.events[0].revision, event);
}

async fn compaction_forgets(stage: Stage) {
    let key = stage.key("k");
    let one = done(&*stage.a, Txn::put(key.clone(), "1")).await;
    let two = done(&*stage.a, Txn::put(key.clone(), "2")).await;
    let three = done(&*stage.a, Txn::put(key.clone(), "3")).await;
    stage.a.compact(two).await.unwrap();
    let compacted = |answer: Result<(), StoreError>, store: &str| match answer {
        Err(StoreError::Compacted { asked, oldest }) => {
            assert_eq!((asked, oldest), (one, two), "{store}")
        }
        other => panic!("{store}: {other:?}"),
    };
    for (name, store) in [("a", &stage.a), ("b", &stage.b)] {
        compacted(store.get(&key, Some(one)).await.map(drop), name);
        compacted(store.range(Range::prefix(stage.prefix()).at(one)).await.map(drop), name);
        compacted(store.count(&stage.prefix(), Some(one)).await.map(drop), name);
        compacted(store.watch(stage.prefix(), one).await.map(drop), name);
        let read = store.get(&key, Some(two)).await.unwrap().entry.unwrap();
        assert_eq!(read.value, "2", "the revision compacted to can still be read");
        let mut watch = store.watch(stage.prefix(), two).await.unwrap();
        let events = take(&mut watch, 1).await;
        assert_eq!(events[0].revision, three);
        assert_eq!(
            events[0].previous,
            Some(Previous {
                value: "2".into(),
                modified: two
            })
        );
    }
    // Again, and less: nothing changes.
    stage.b.compact(two).await.unwrap();
    stage.b.compact(one).await.unwrap();
    assert_eq!(stage.b.get(&key, Some(two)).await.unwrap().entry.unwrap().value, "2");
}

async fn what_is_alive_survives_compaction(stage: Stage) {
    let mut expected = BTreeMap::new();
    for n in 0..60 {
        let key = stage.key(&format!("{}", n % 20));
        let revision = done(&*stage.a, Txn::put(key.clone(), format!("{n}"))).await;
        expected.insert(key.clone(), (revision, n.to_string()));
        if n % 9 == 0 {
            done(&*stage.a, Txn::delete(key.clone(), revision)).await;
            expected.remove(&key);
        }
    }
    let now = stage.a.revision().await.unwrap();
    stage.a.compact(now).await.unwrap();
    let page = stage.a.range(Range::prefix(stage.prefix()).at(now)).await.unwrap();
    let found: BTreeMap<Bytes, (Revision, String)> = page
        .entries
        .into_iter()
        .map(|entry| {
            (
                entry.key,
                (entry.modified, String::from_utf8(entry.value.to_vec()).unwrap()),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

async fn a_watcher_that_keeps_up_survives_compaction(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let mut watch = stage.a.watch(stage.prefix(), start).await.unwrap();
    let mut quiet = stage.a.watch(stage.key("quiet/"), start).await.unwrap();
    for round in 0..5 {
        let revision = done(&*stage.a, Txn::put(stage.key("k"), format!("{round}"))).await;
        assert_eq!(take(&mut watch, 1).await[0].revision, revision);
        stage.a.compact(revision).await.unwrap();
    }
    // One that had nothing to read has missed nothing.
    let revision = done(&*stage.a, Txn::put(stage.key("quiet/k"), "")).await;
    assert_eq!(take(&mut quiet, 1).await[0].revision, revision);
}

async fn puts_expire(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let mut watch = stage.b.watch(stage.prefix(), start).await.unwrap();
    let second = Duration::from_secs(1);
    let put = |name: &str| Txn::put(stage.key(name), name.to_owned()).ttl(second);
    let short = done(&*stage.a, put("short")).await;
    let sibling = done(&*stage.a, put("sibling")).await;
    done(&*stage.a, put("kept")).await;
    done(&*stage.a, Txn::put(stage.key("kept"), "for good")).await;
    take(&mut watch, 4).await;
    let mut gone = take(&mut watch, 2).await;
    assert!(gone.iter().all(|event| event.value.is_none()));
    gone.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(
        gone[0].previous,
        Some(Previous {
            value: "short".into(),
            modified: short
        })
    );
    assert_eq!(
        gone[1].previous,
        Some(Previous {
            value: "sibling".into(),
            modified: sibling
        })
    );
    assert_eq!(names(&stage, Range::prefix(stage.prefix())).await, ["kept"]);
}

async fn counters_lose_no_step(stage: Stage) {
    const TASKS: u64 = 16;
    const STEPS: u64 = 10;
    let key = stage.key("counter");
    done(&*stage.a, Txn::create(key.clone(), "0")).await;
    let tasks = (0..TASKS).map(|task| {
        let (stage, key) = (stage.clone(), key.clone());
        tokio::spawn(async move {
            let store = if task % 2 == 0 { &stage.a } else { &stage.b };
            let mut revisions = Vec::new();
            let mut known = store.get(&key, None).await.unwrap().entry.unwrap();
            while revisions.len() < STEPS as usize {
                let count: u64 = std::str::from_utf8(&known.value).unwrap().parse().unwrap();
                let step = Txn::update(key.clone(), (count + 1).to_string(), known.modified);
                match store.txn(step).await.unwrap() {
                    Outcome::Done { revision } => {
                        revisions.push(revision);
                        known.value = (count + 1).to_string().into();
                        known.modified = revision;
                    }
                    Outcome::Refused { now, .. } => known = now.unwrap(),
                }
            }
            revisions
        })
    });
    let mut revisions = BTreeSet::new();
    for done in futures::future::join_all(tasks).await {
        revisions.extend(done.unwrap());
    }
    assert_eq!(revisions.len() as u64, TASKS * STEPS);
    assert_eq!(value(&*stage.a, &key).await.unwrap(), (TASKS * STEPS).to_string());
}

async fn a_crowd_of_writers_is_seen_in_order(stage: Stage) {
    const TASKS: usize = 20;
    const WRITES: usize = 40;
    let start = stage.a.revision().await.unwrap();
    let mut watches = vec![
        stage.a.watch(stage.prefix(), start).await.unwrap(),
        stage.b.watch(stage.prefix(), start).await.unwrap(),
    ];
    let tasks = (0..TASKS).map(|task| {
        let stage = stage.clone();
        tokio::spawn(async move {
            let store = if task % 2 == 0 { &stage.a } else { &stage.b };
            let mut revisions = Vec::new();
            for n in 0..WRITES {
                let key = stage.key(&format!("{task}/{}", n % 5));
                let held = revisions.last().cloned();
                let txn = match held {
                    Some((at, last)) if n % 7 == 6 && last == key => Txn::delete(key.clone(), at),
                    _ => Txn::put(key.clone(), format!("{task} {n}")),
                };
                revisions.push((done(&**store, txn).await, key));
            }
            revisions
        })
    });
    let mut written = BTreeMap::new();
    for revisions in futures::future::join_all(tasks).await {
        written.extend(revisions.unwrap());
    }
    // Somebody who starts late sees the same.
    watches.push(stage.b.watch(stage.prefix(), start).await.unwrap());
    let listed = stage.a.range(Range::prefix(stage.prefix())).await.unwrap();
    for watch in &mut watches {
        let events = take(watch, TASKS * WRITES).await;
        let seen: BTreeMap<Revision, Bytes> = events.iter().map(|event| (event.revision, event.key.clone())).collect();
        assert_eq!(seen, written);
        // List and watch tell one story; so does what was there before.
        let mut state: BTreeMap<Bytes, (Bytes, Revision)> = BTreeMap::new();
        for event in events {
            let previous = event
                .previous
                .as_ref()
                .map(|previous| (previous.value.clone(), previous.modified));
            assert_eq!(previous, state.remove(&event.key));
            if let Some(value) = &event.value {
                state.insert(event.key.clone(), (value.clone(), event.revision));
            }
        }
        let list: BTreeMap<Bytes, (Bytes, Revision)> = listed
            .entries
            .iter()
            .map(|entry| (entry.key.clone(), (entry.value.clone(), entry.modified)))
            .collect();
        assert_eq!(state, list);
    }
}

async fn writes_of_one_handle_are_seen_by_the_other(stage: Stage) {
    for n in 0..50 {
        let (write, read) = if n % 2 == 0 {
            (&stage.a, &stage.b)
        } else {
            (&stage.b, &stage.a)
        };
        let revision = done(&**write, Txn::put(stage.key("k"), format!("{n}"))).await;
        assert!(read.revision().await.unwrap() >= revision);
        let seen = read.get(&stage.key("k"), None).await.unwrap();
        assert_eq!(seen.entry.unwrap().modified, revision);
        assert!(seen.revision >= revision);
    }
}

async fn a_backup_becomes_a_store(stage: Stage) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    done(&*stage.a, Txn::put(stage.key("lasting"), "1")).await;
    let kept = done(&*stage.a, Txn::put(stage.key("lasting"), "2")).await;
    done(
        &*stage.a,
        Txn::put(stage.key("passing"), "").ttl(Duration::from_secs(1)),
    )
    .await;
    let at = stage.a.backup(&file).await.unwrap();
    assert!(at >= kept);
    assert!(stage.a.backup(&file).await.is_err(), "a backup is never overwritten");
    let issued = done(&*stage.a, Txn::put(stage.key("lasting"), "after the backup")).await;

    let begins = embedded::restore(&file, &dir.path().join("store")).unwrap();
    assert!(begins > issued, "past any revision ever issued");
    assert!(
        embedded::restore(&file, &dir.path().join("store")).is_err(),
        "a store is never overwritten"
    );
    let restored = embedded::open(&dir.path().join("store"), embedded::Options::default()).unwrap();
    let read = restored.get(&stage.key("lasting"), None).await.unwrap();
    assert_eq!((read.entry.unwrap().modified, read.revision >= begins), (kept, true));
    let of = |store: Handle| async move { store.range(Range::prefix("/registry/").at(at)).await.unwrap().entries };
    let before = of(stage.a.clone()).await;
    let after = restored.range(Range::prefix("/registry/")).await.unwrap().entries;
    let lasting = |entries: Vec<store::Entry>| {
        entries
            .into_iter()
            .filter(|entry| !entry.key.ends_with(b"passing"))
            .collect::<Vec<_>>()
    };
    assert_eq!(lasting(after), lasting(before));
    assert!(matches!(
        restored.watch(stage.prefix(), at).await,
        Err(StoreError::Compacted { .. })
    ));
    assert!(matches!(
        restored.get(b"k", Some(issued)).await,
        Err(StoreError::Compacted { .. })
    ));
    eventually("what was to expire does", || async {
        value(&restored, &stage.key("passing")).await.is_none()
    })
    .await;
    assert!(done(&restored, Txn::update(stage.key("lasting"), "3", kept)).await > begins);
}
