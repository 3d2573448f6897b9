//! Any sequence of calls against a model so simple that it is right: a list of all changes ever made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use store::etcd::{EtcdOptions, EtcdStore};
use store::{Change, Compare, Entry, History, Outcome, Range, Revision, Store, StoreError, Txn, embedded, memory};

use crate::etcd_server::EtcdServer;

#[derive(Debug, Clone)]
enum Step {
    /// Write a key (a value, or a deletion), comparing some keys with what they are now, or with something stale.
    Write {
        key: u8,
        value: Option<u8>,
        compare: Vec<(u8, bool)>,
    },
    /// List two keys or all of them, that many revisions ago.
    List {
        few: bool,
        limit: usize,
        ago: u64,
    },
    Get {
        key: u8,
        ago: u64,
    },
    /// Read everything after a revision that many ago as a watcher.
    Watch {
        ago: u64,
    },
    Compact {
        ago: u64,
    },
    /// Close the store and open it again, where it lasts.
    Reopen,
}

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let ago = prop_oneof![3 => 0..3u64, 1 => 0..40u64];
    let compare = prop::collection::vec((0..8u8, prop::bool::weighted(0.8)), 0..3);
    let step = prop_oneof![
        12 => (0..8u8, prop::option::weighted(0.7, any::<u8>()), compare)
            .prop_map(|(key, value, compare)| Step::Write { key, value, compare }),
        3 => (any::<bool>(), 0..5usize, ago.clone()).prop_map(|(few, limit, ago)| Step::List { few, limit, ago }),
        2 => (0..8u8, ago.clone()).prop_map(|(key, ago)| Step::Get { key, ago }),
        2 => ago.clone().prop_map(|ago| Step::Watch { ago }),
        1 => ago.prop_map(|ago| Step::Compact { ago }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..length)
}

/// Every change under the prefix since the beginning.
struct Model {
    prefix: String,
    changes: Vec<(Revision, Bytes, Option<Bytes>)>,
    begin: Revision,
    now: Revision,
    floor: Revision,
}

impl Model {
    fn key(&self, key: u8) -> Bytes {
        // Two of the eight share a longer prefix.
        format!("{}{}{key}", self.prefix, if key < 2 { "few/" } else { "" }).into()
    }

    fn at(&self, at: Revision) -> BTreeMap<Bytes, Entry> {
        let mut state: BTreeMap<Bytes, Entry> = BTreeMap::new();
        for (revision, key, value) in self.changes.iter().filter(|(revision, ..)| *revision <= at) {
            match value {
                None => drop(state.remove(key)),
                Some(value) => {
                    let created = state.get(key).map_or(*revision, |entry| entry.created);
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        created,
                        modified: *revision,
                    };
                    state.insert(key.clone(), entry);
                }
            }
        }
        state
    }

    fn ago(&self, ago: u64) -> Revision {
        model::ResourceVersion(self.now.0.saturating_sub(ago).max(self.begin.0))
    }
}

async fn walk(
    steps: &[Step],
    prefix: String,
    mut store: Box<dyn Store>,
    reopen: impl Fn(Box<dyn Store>) -> Box<dyn Store>,
) {
    let begin = store.revision().await.unwrap();
    let mut model = Model {
        prefix,
        changes: Vec::new(),
        begin,
        now: begin,
        floor: begin,
    };
    // Earlier histories on the same store are not this one's business.
    store.compact(begin).await.unwrap();
    for step in steps {
        match step {
            Step::Write { key, value, compare } => {
                let (key, state) = (model.key(*key), model.at(model.now));
                let modified = |key: &Bytes| state.get(key).map_or(Revision::default(), |entry| entry.modified);
                let compare: Vec<Compare> = compare
                    .iter()
                    .map(|(key, right)| {
                        let key = model.key(*key);
                        let now = modified(&key);
                        let stale = if now == Revision::default() {
                            begin
                        } else {
                            Revision::default()
                        };
                        Compare {
                            modified: if *right { now } else { stale },
                            key,
                        }
                    })
                    .collect();
                let wrong = compare
                    .iter()
                    .find(|compare| compare.modified != modified(&compare.key));
                let change = match value {
                    Some(value) => Change::Put {
                        key: key.clone(),
                        value: vec![*value; 20].into(),
                        ttl: None,
                    },
                    None => Change::Delete { key: key.clone() },
                };
                let refused = match wrong {
                    Some(wrong) => Some(&wrong.key),
                    None => (value.is_none() && !state.contains_key(&key)).then_some(&key),
                };
                match (
                    store
                        .txn(Txn {
                            compare: compare.clone(),
                            change,
                        })
                        .await
                        .unwrap(),
                    refused,
                ) {
                    (Outcome::Done { revision }, None) => {
                        assert!(revision > model.now);
                        model.now = revision;
                        model
                            .changes
                            .push((revision, key, value.map(|value| vec![value; 20].into())));
                    }
                    (Outcome::Refused { key, now }, Some(expected)) => {
                        assert_eq!((&key, now.as_ref()), (expected, state.get(expected)));
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::List { few, limit, ago } => {
                let at = model.ago(*ago);
                let prefix: Bytes = format!("{}{}", model.prefix, if *few { "few/" } else { "" }).into();
                let range = Range::prefix(prefix.clone()).limit(*limit).at(at);
                let counted = store.count(&prefix, Some(at)).await;
                match store.range(range).await {
                    Ok(page) => {
                        let all: Vec<Entry> = model
                            .at(at)
                            .into_values()
                            .filter(|entry| entry.key.starts_with(&prefix))
                            .collect();
                        let shown = if *limit == 0 { all.len() } else { all.len().min(*limit) };
                        assert_eq!(page.entries, all[..shown]);
                        assert_eq!(page.remaining as usize, all.len() - shown);
                        assert_eq!(counted.unwrap().count as usize, all.len());
                        assert!(at >= model.floor);
                    }
                    Err(error) => assert_compacted(&model, at, error),
                }
            }
            Step::Get { key, ago } => {
                let (key, at) = (model.key(*key), model.ago(*ago));
                match store.get(&key, Some(at)).await {
                    Ok(read) => assert_eq!(read.entry.as_ref(), model.at(at).get(&key)),
                    Err(error) => assert_compacted(&model, at, error),
                }
            }
            Step::Watch { ago } => {
                let after = model.ago(*ago);
                match store.watch(model.prefix.clone().into(), after).await {
                    Ok(mut watch) => {
                        let expected: Vec<_> = model
                            .changes
                            .iter()
                            .filter(|(revision, ..)| *revision > after)
                            .cloned()
                            .collect();
                        let mut seen = Vec::new();
                        while seen.len() < expected.len() {
                            for event in watch.next().await.unwrap().events {
                                let before = model.at(model::ResourceVersion(event.revision.0 - 1));
                                let previous = event
                                    .previous
                                    .as_ref()
                                    .map(|previous| (&previous.value, previous.modified));
                                let before = before.get(&event.key).map(|entry| (&entry.value, entry.modified));
                                assert_eq!(previous, before);
                                seen.push((event.revision, event.key.clone(), event.value.clone()));
                            }
                        }
                        assert_eq!(seen, expected);
                    }
                    Err(error) => assert_compacted(&model, after, error),
                }
            }
            Step::Compact { ago } => {
                let through = model.ago(*ago);
                store.compact(through).await.unwrap();
                model.floor = model.floor.max(through);
            }
            Step::Reopen => {
                store = reopen(store);
                assert_eq!(store.revision().await.unwrap(), model.now);
                // What a snapshot holds has no history.
                let all = store.range(Range::prefix(model.prefix.clone())).await.unwrap().entries;
                assert_eq!(all, model.at(model.now).into_values().collect::<Vec<_>>());
            }
        }
    }
}

/// A store may remember less than it was told to forget, after a restart from a snapshot, but never lie.
fn assert_compacted(model: &Model, at: Revision, error: StoreError) {
    match error {
        StoreError::Compacted { asked, oldest } => {
            assert!(asked == at && at < oldest && oldest <= model.now.max(model.floor))
        }
        other => panic!("{other:?}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_obeys(steps in steps(80)) {
        let store = Box::new(memory::open(History::default()).unwrap());
        runtime().block_on(walk(&steps, "/registry/laws/".into(), store, |store| store));
    }

    #[test]
    fn embedded_obeys(steps in steps(80)) {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().into();
        // Snapshots and new segments every few writes.
        let options = embedded::Options { log_bytes: 400, ..embedded::Options::default() };
        let open = || -> Box<dyn Store> { Box::new(embedded::open(&path, options.clone()).unwrap()) };
        runtime().block_on(walk(&steps, "/registry/laws/".into(), open(), |store| {
            drop(store);
            open()
        }));
    }
}

#[test]
fn etcd_obeys() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = EtcdServer::start(dir.path()) else {
        return;
    };
    let runtime = runtime();
    let config = ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let case = std::cell::Cell::new(0);
    let connect = || -> Box<dyn Store> {
        let options = EtcdOptions::new(vec![server.endpoint.clone()]);
        Box::new(runtime.block_on(EtcdStore::connect(options)).unwrap())
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&steps(60), |steps| {
        case.set(case.get() + 1);
        let prefix = format!("/registry/laws-{}/", case.get());
        let store = connect();
        runtime.block_on(walk(&steps, prefix, store, |store| store));
        Ok(())
    });
    outcome.unwrap();
}
