//! Compaction, expiry, crowds, two handles, and backups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use store::{Outcome, Previous, Range, Revision, Store, StoreError, Txn, embedded};

use super::{Handle, Stage, done, eventually, names, take, value};

pub(super) async fn compaction_forgets(stage: Stage) {
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

pub(super) async fn what_is_alive_survives_compaction(stage: Stage) {
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

pub(super) async fn a_watcher_that_keeps_up_survives_compaction(stage: Stage) {
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

pub(super) async fn puts_expire(stage: Stage) {
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

pub(super) async fn counters_lose_no_step(stage: Stage) {
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

pub(super) async fn a_crowd_of_writers_is_seen_in_order(stage: Stage) {
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

pub(super) async fn writes_of_one_handle_are_seen_by_the_other(stage: Stage) {
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

pub(super) async fn a_backup_becomes_a_store(stage: Stage) {
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
