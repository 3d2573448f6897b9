//! A disk that fills up: writes are refused with the reason, nothing acknowledged is lost, and room brings it back.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use store::{Outcome, Range, Store, StoreError, Txn, embedded};

/// A file system of eight megabytes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(dir: &Path) -> Option<Self> {
        match mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=8m")) {
            Ok(()) => Some(Self(dir.to_owned())),
            Err(error) => {
                eprintln!("skipped: a small file system cannot be mounted here ({error}; needs root)");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(dir.path()) else {
        return;
    };
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![1; 3 << 20]).unwrap();
    let at = disk.0.join("store");
    // Snapshots too run out of room on the way.
    let options = embedded::Options {
        log_bytes: 1 << 20,
        ..embedded::Options::default()
    };
    let store = embedded::open(&at, options.clone()).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        let key = format!("/registry/{:05}", kept.len());
        match store
            .txn(Txn::create(key.clone(), vec![kept.len() as u8; 10_000]))
            .await
        {
            Ok(Outcome::Done { revision }) => kept.push((key, revision)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        assert!(kept.len() < 2_000, "the disk never fills");
    };
    assert!(matches!(&refused, StoreError::Full { .. }), "{refused:?}");
    assert!(refused.to_string().contains("free some space"), "{refused}");
    let whole = |page: store::Page| {
        let found: Vec<_> = page
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry.modified))
            .collect();
        let expected: Vec<_> = kept
            .iter()
            .map(|(key, revision)| (key.clone().into_bytes().into(), *revision))
            .collect();
        assert_eq!(found, expected);
    };
    whole(store.range(Range::prefix("/registry/")).await.unwrap());
    assert!(matches!(
        store.txn(Txn::put("/registry/x", vec![0; 20_000])).await,
        Err(StoreError::Full { .. })
    ));

    // As it is, it can be opened again.
    drop(store);
    let store = embedded::open(&at, options.clone()).unwrap();
    whole(store.range(Range::prefix("/registry/")).await.unwrap());
    assert!(matches!(
        store.txn(Txn::put("/registry/x", vec![0; 4_000_000 / 4])).await,
        Err(StoreError::Full { .. })
    ));

    // And with room it goes on, with nobody doing anything.
    std::fs::remove_file(&filler).unwrap();
    let Outcome::Done { revision } = store.txn(Txn::put("/registry/x", "again")).await.unwrap() else {
        panic!()
    };
    assert!(revision > kept.last().unwrap().1);
    drop(store);
    let store = embedded::open(&at, options).unwrap();
    let read = store.get(b"/registry/x", None).await.unwrap();
    assert_eq!(read.entry.unwrap().value, "again");
    drop(store);
    drop(disk);
}
