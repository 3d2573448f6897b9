//! One key: how it lives and dies, and what a transaction compares.

use store::{Outcome, Txn};

use super::{Stage, done, rev, value};

pub(super) async fn a_key_lives_and_dies(stage: Stage) {
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

pub(super) async fn a_txn_compares_many_keys(stage: Stage) {
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

pub(super) async fn a_refusal_tells_what_is_there(stage: Stage) {
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

pub(super) async fn deleting_nothing_is_refused(stage: Stage) {
    let key = stage.key("k");
    let before = stage.a.revision().await.unwrap();
    let txn = Txn {
        compare: Vec::new(),
        change: store::Change::Delete { key: key.clone() },
    };
    assert_eq!(stage.a.txn(txn).await.unwrap(), Outcome::Refused { key, now: None });
    assert_eq!(stage.a.revision().await.unwrap(), before);
}
