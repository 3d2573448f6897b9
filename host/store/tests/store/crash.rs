//! kill -9 under concurrent writers, again and again on the same files.
//!
//! The child writes and tells, on its standard output, what it is about to write and what was acknowledged. The parent
//! kills it at some point, opens the store and holds it against what was told.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use store::{Outcome, Range, Revision, Store, StoreError, Txn, embedded};

const DIR: &str = "PILOTIS_STORE_CRASH_DIR";
const ROUND: &str = "PILOTIS_STORE_CRASH_ROUND";
const ROUNDS: u64 = 12;
const WRITERS: u64 = 24;
const KEYS: u64 = 6;

fn options() -> embedded::Options {
    // So small that the child is often killed in the middle of a snapshot or a change of segments.
    embedded::Options {
        log_bytes: 40_000,
        ..embedded::Options::default()
    }
}

/// A value as long as its parts say, so that a mixture of two would show.
fn value(writer: u64, round: u64, n: u64) -> String {
    let mark = format!("{writer}.{round}.{n};");
    mark.repeat(1 + (n % 40) as usize)
}

/// Not a test: the process that is killed. Each writer has keys of its own, so the order of its words is that of its writes.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else {
        return;
    };
    let round: u64 = round.parse().unwrap();
    let say = |line: String| {
        // One write of less than a page goes into a pipe whole. When the parent is gone there is nobody to tell.
        let _ = std::io::stdout().write_all(line.as_bytes());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(embedded::open(Path::new(&dir), options()).unwrap());
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0u64.. {
                    let key = format!("/registry/{writer:02}/{}", n % KEYS);
                    let held = store.get(key.as_bytes(), None).await.unwrap().entry;
                    let (txn, what) = match (n % 5, held) {
                        (4, Some(held)) => (Txn::delete(key.clone(), held.modified), "delete"),
                        (3, held) => {
                            let expected = held.map_or(Revision::default(), |held| held.modified);
                            (Txn::update(key.clone(), value(writer, round, n), expected), "put")
                        }
                        _ => (Txn::put(key.clone(), value(writer, round, n)), "put"),
                    };
                    say(format!("\ntry {writer} {n} {what} {key}\n"));
                    match store.txn(txn).await {
                        Ok(Outcome::Done { revision }) => say(format!("\nack {writer} {n} {revision}\n")),
                        other => say(format!("\nwrong {other:?}\n")),
                    }
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

/// A write as the child told it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    key: String,
    value: Option<String>,
    revision: Option<u64>,
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("PILOTIS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(seed);
    eprintln!("PILOTIS_SEED={seed}");
    let mut dice = seed;
    let dir = tempfile::tempdir().unwrap();
    // What the keys hold, as of the last opening.
    let mut state: BTreeMap<String, String> = BTreeMap::new();
    let mut newest = 0;
    for round in 0..ROUNDS {
        dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let words = run_and_kill(dir.path(), round, 1 + (dice >> 33) % 4000);
        let acknowledged = words.iter().filter(|told| told.revision.is_some()).count();
        assert!(round > 0 || acknowledged > 0, "the child wrote nothing");

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let store = embedded::open(dir.path(), options()).unwrap();
        let (entries, now) = runtime.block_on(async {
            let page = store.range(Range::prefix("/registry/")).await.unwrap();
            (page.entries, page.revision.0)
        });
        let found: BTreeMap<String, (String, u64)> = entries
            .into_iter()
            .map(|e| (text(&e.key), (text(&e.value), e.modified.0)))
            .collect();

        // Each acknowledged revision is one write's, past all of the round before, and not past the store's own.
        let mut revisions = HashMap::new();
        for told in words.iter().filter(|told| told.revision.is_some()) {
            let revision = told.revision.unwrap();
            assert!(revision > newest && revision <= now, "revision {revision}");
            assert!(
                revisions.insert(revision, told).is_none(),
                "revision {revision} was given twice"
            );
        }
        // A key holds its last acknowledged write, or the one after it that was on its way.
        let mut by_key: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
        for told in &words {
            by_key.entry(&told.key).or_default().push(told);
        }
        let mut expected = state.clone();
        for (key, writes) in by_key {
            let found_value = found.get(key).map(|(value, _)| value.as_str());
            let last = writes.iter().rposition(|told| told.revision.is_some());
            let acknowledged = match last {
                Some(last) => writes[last].value.as_deref(),
                None => state.get(key).map(String::as_str),
            };
            let on_its_way = &writes[last.map_or(0, |last| last + 1)..];
            assert!(on_its_way.len() <= 1, "a writer waits for each answer");
            let possible = on_its_way.iter().any(|told| told.value.as_deref() == found_value);
            assert!(
                found_value == acknowledged || possible,
                "{key} holds {found_value:?}, not {acknowledged:?}"
            );
            if found_value == acknowledged
                && let Some((_, modified)) = found.get(key)
                && let Some(last) = last
                && !possible
            {
                assert_eq!(Some(*modified), writes[last].revision);
            }
            match found_value {
                Some(value) => expected.insert(key.to_owned(), value.to_owned()),
                None => expected.remove(key),
            };
        }
        // And nobody's write is there that nobody sent.
        let found_values: BTreeMap<String, String> = found.into_iter().map(|(key, (value, _))| (key, value)).collect();
        assert_eq!(found_values, expected);
        runtime.block_on(history_is_whole(&store, &words, &revisions));
        state = found_values;
        newest = now;
    }
}

/// What is left of the history has every acknowledged change, in order, and none that was not sent.
async fn history_is_whole(store: &dyn Store, words: &[Told], acknowledged: &HashMap<u64, &Told>) {
    let now = store.revision().await.unwrap();
    let oldest = match store
        .watch(Bytes::from_static(b"/registry/"), Revision::default())
        .await
    {
        Err(StoreError::Compacted { oldest, .. }) => oldest,
        _ => panic!("revision 0 is always compacted"),
    };
    let mut watch = store.watch(Bytes::from_static(b"/registry/"), oldest).await.unwrap();
    let mut last = oldest;
    let mut seen = 0;
    while last < now {
        for event in watch.next().await.unwrap().events {
            assert_eq!(
                event.revision.0,
                last.0 + 1,
                "no change is missing, none is there twice"
            );
            last = event.revision;
            let (key, value) = (text(&event.key), event.value.as_ref().map(text));
            if let Some(told) = acknowledged.get(&last.0) {
                seen += 1;
                assert_eq!((&told.key, &told.value), (&key, &value));
            } else if last.0 > acknowledged.keys().min().copied().unwrap_or(u64::MAX) {
                assert!(
                    words
                        .iter()
                        .any(|told| told.revision.is_none() && told.key == key && told.value == value)
                );
            }
        }
    }
    assert_eq!(
        seen,
        acknowledged.keys().filter(|revision| **revision > oldest.0).count()
    );
}

/// Runs the child until it has said so many lines, kills it, and says what it had said.
fn run_and_kill(dir: &Path, round: u64, lines: u64) -> Vec<Told> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut words: Vec<Told> = Vec::new();
    let mut open: HashMap<(u64, u64), usize> = HashMap::new();
    let mut said = 0;
    for line in output.split(b'\n') {
        let line = line.unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        let parts: Vec<&str> = line.split(' ').collect();
        match parts[..] {
            ["try", writer, n, what, key] => {
                let (writer, n) = (writer.parse().unwrap(), n.parse().unwrap());
                open.insert((writer, n), words.len());
                let value = (what == "put").then(|| value(writer, round, n));
                words.push(Told {
                    key: key.to_owned(),
                    value,
                    revision: None,
                });
            }
            ["ack", writer, n, revision] => {
                let told = open[&(writer.parse().unwrap(), n.parse().unwrap())];
                words[told].revision = Some(revision.parse().unwrap());
            }
            ["wrong", ..] => panic!("{line}"),
            _ => continue,
        }
        said += 1;
        if said == lines {
            child.kill().unwrap();
            // What it had said by then is still in the pipe, and counts.
        }
    }
    child.wait().unwrap();
    words
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn every_answer_waits_for_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = embedded::open(dir.path(), embedded::Options::default()).unwrap();
    for n in 1..=20 {
        let before = store.log_syncs();
        store.txn(Txn::put("/registry/k", "v")).await.unwrap();
        assert!(
            store.log_syncs() > before,
            "write {n} was answered before it was synced"
        );
    }
}

#[tokio::test]
async fn two_processes_cannot_open_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = embedded::open(dir.path(), embedded::Options::default()).unwrap();
    match embedded::open(dir.path(), embedded::Options::default()) {
        Err(StoreError::InUse { holder, .. }) => {
            assert!(holder.contains(&std::process::id().to_string()))
        }
        other => panic!("{:?}", other.err()),
    }
    drop(store);
    assert!(embedded::open(dir.path(), embedded::Options::default()).is_ok());
}
