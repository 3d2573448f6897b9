//! One suite, every engine. To add a case: an async function in a file beside, and its name in `cases!`.

mod ranges;
mod upkeep;
mod watches;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::etcd::{EtcdOptions, EtcdStore};
use store::{Batch, Event, History, Outcome, Range, Revision, Store, StoreError, Txn, Watch, embedded, memory};

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
    ($($name:path),* $(,)?) => {
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |stage| Box::pin($name(stage)))),*];
    };
}

cases![
    writes::a_key_lives_and_dies,
    writes::a_txn_compares_many_keys,
    writes::a_refusal_tells_what_is_there,
    writes::deleting_nothing_is_refused,
    ranges::keys_are_bytes_in_order,
    ranges::a_prefix_is_no_path,
    ranges::pages_at_a_revision_are_one_list,
    ranges::a_long_list_comes_whole,
    ranges::counts_at_a_revision,
    ranges::the_past_can_be_read,
    ranges::the_future_cannot_be_read,
    ranges::what_is_too_large_is_refused,
    watches::a_watch_tells_everything_once,
    watches::a_watch_starts_in_the_past,
    watches::a_watch_may_start_in_the_future,
    watches::a_watch_sees_its_prefix_only,
    watches::progress_comes_when_asked,
    upkeep::compaction_forgets,
    upkeep::what_is_alive_survives_compaction,
    upkeep::a_watcher_that_keeps_up_survives_compaction,
    upkeep::puts_expire,
    upkeep::counters_lose_no_step,
    upkeep::a_crowd_of_writers_is_seen_in_order,
    upkeep::writes_of_one_handle_are_seen_by_the_other,
    upkeep::a_backup_becomes_a_store,
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
