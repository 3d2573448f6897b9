//! A reader that does not read: it costs no memory, holds up nobody, and is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use store::etcd::{EtcdOptions, EtcdStore};
use store::{History, Outcome, Revision, Store, StoreError, Txn, embedded, memory};

use crate::etcd_server::EtcdServer;

const KEPT: usize = 256 << 10;
const WRITES: usize = 3_000;

fn history() -> History {
    History {
        bytes: KEPT,
        ..History::default()
    }
}

/// Writes ten times what is kept while one watcher reads and another does not.
async fn a_slow_one_is_told(store: Arc<dyn Store>) -> Revision {
    let start = store.revision().await.unwrap();
    let mut slow = store.watch("/registry/".into(), start).await.unwrap();
    let mut quick = store.watch("/registry/".into(), start).await.unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn({
        let read = read.clone();
        async move {
            while read.load(Ordering::Relaxed) < WRITES {
                let batch = quick.next().await.unwrap();
                read.fetch_add(batch.events.len(), Ordering::Relaxed);
            }
        }
    });
    // Ten at a time, and no faster than the quick one reads.
    for n in 0..WRITES / 10 {
        while read.load(Ordering::Relaxed) + 100 < n * 10 {
            tokio::task::yield_now().await;
        }
        let writes = (0..10).map(|m| store.txn(Txn::put(format!("/registry/{m}"), vec![n as u8; 1000])));
        for done in futures::future::join_all(writes).await {
            assert!(matches!(done.unwrap(), Outcome::Done { .. }));
        }
    }
    let read = tokio::time::timeout(Duration::from_secs(30), reading).await;
    read.expect("the quick one is not held up").unwrap();
    match slow.next().await {
        Err(StoreError::Lagged { seen }) => assert_eq!(seen, start),
        other => panic!("{other:?}"),
    }
    start
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_memory() {
    let store = Arc::new(memory::open(history()).unwrap());
    let start = a_slow_one_is_told(store.clone()).await;
    // There is nowhere to read the past again; a list starts anew.
    assert!(matches!(
        store.watch("/registry/".into(), start).await,
        Err(StoreError::Compacted { .. })
    ));
    let kept = store.history_bytes();
    assert!(kept <= KEPT, "{kept} bytes are kept");
    let now = store.revision().await.unwrap();
    assert!(store.watch("/registry/".into(), now).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_embedded() {
    let dir = tempfile::tempdir().unwrap();
    let options = embedded::Options {
        history: history(),
        ..embedded::Options::default()
    };
    let store = Arc::new(embedded::open(dir.path(), options.clone()).unwrap());
    a_slow_one_is_told(store.clone()).await;
    drop(store);
    // What the log holds beyond that is let go when it is opened, too.
    let store = embedded::open(dir.path(), options).unwrap();
    store.txn(Txn::put("/registry/a", "")).await.unwrap();
    assert!(store.history_bytes() <= KEPT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = EtcdServer::start(dir.path()) else {
        return;
    };
    let options = EtcdOptions {
        history: history(),
        ..EtcdOptions::new(vec![server.endpoint.clone()])
    };
    let store = Arc::new(EtcdStore::connect(options).await.unwrap());
    let start = a_slow_one_is_told(store.clone()).await;
    // etcd still has what is not kept here, and it joins up with what is.
    let mut again = store.watch("/registry/".into(), start).await.unwrap();
    let last = store.txn(Txn::put("/registry/last", "")).await.unwrap();
    let mut revisions = Vec::new();
    while revisions.len() < WRITES + 1 {
        revisions.extend(again.next().await.unwrap().events.iter().map(|event| event.revision));
    }
    assert!(revisions.is_sorted_by(|a, b| a < b));
    assert_eq!(
        Outcome::Done {
            revision: revisions[WRITES]
        },
        last
    );
}
